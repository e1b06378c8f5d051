// Sockets of the RPC server: whole reads and writes, the listening socket, the connection to a tracker.
#pragma once
#include <netdb.h>
#include <netinet/in.h>
#include <netinet/tcp.h>
#include <sys/socket.h>
#include <sys/time.h>
#include <unistd.h>

#include <cerrno>
#include <cstdint>
#include <cstring>
#include <random>
#include <stdexcept>
#include <string>

#include "device_info.h"

namespace irnn {

constexpr int32_t kRpcMagic = 0xFF271, kRpcMismatch = kRpcMagic + 2, kTrackerMagic = 0x2F271;
constexpr int kMaxMessage = 1 << 20;

inline void SetTimeout(int fd, int seconds) {
  const timeval limit{seconds, 0};
  setsockopt(fd, SOL_SOCKET, SO_RCVTIMEO, &limit, sizeof limit);
  setsockopt(fd, SOL_SOCKET, SO_SNDTIMEO, &limit, sizeof limit);
}

inline bool Receive(int fd, void* data, size_t size) {
  char* at = static_cast<char*>(data);
  while (size) {
    const ssize_t n = recv(fd, at, size, 0);
    if (n <= 0) return false;
    at += n, size -= n;
  }
  return true;
}

inline bool Send(int fd, const void* data, size_t size) {
  const char* at = static_cast<const char*>(data);
  while (size) {
    const ssize_t n = send(fd, at, size, MSG_NOSIGNAL);
    if (n <= 0) return false;
    at += n, size -= n;
  }
  return true;
}

// A length and that many bytes, as RPC and tracker send their texts.
inline bool ReceiveText(int fd, std::string* text) {
  int32_t size;
  if (!Receive(fd, &size, sizeof size) || size < 0 || size > kMaxMessage) return false;
  text->resize(size);
  return Receive(fd, text->data(), size);
}

inline bool SendText(int fd, const std::string& text) {
  const int32_t size = static_cast<int32_t>(text.size());
  return Send(fd, &size, sizeof size) && Send(fd, text.data(), text.size());
}

struct Address {
  std::string host;
  int port = 0;
};

// Opens a socket for `address`, listening or connected.
inline int Open(const Address& address, bool listening) {
  addrinfo hints{}, *found = nullptr;
  hints.ai_socktype = SOCK_STREAM;
  hints.ai_flags = listening ? AI_PASSIVE : 0;
  const int code = getaddrinfo(address.host.c_str(), std::to_string(address.port).c_str(), &hints, &found);
  if (code) throw std::runtime_error("cannot resolve " + address.host + ": " + gai_strerror(code));
  std::string problem = "no address";
  for (addrinfo* at = found; at; at = at->ai_next) {
    const int fd = socket(at->ai_family, at->ai_socktype | SOCK_CLOEXEC, at->ai_protocol);
    if (fd < 0) continue;
    const int one = 1;
    setsockopt(fd, SOL_SOCKET, SO_REUSEADDR, &one, sizeof one);
    const int rc = listening ? (bind(fd, at->ai_addr, at->ai_addrlen) || listen(fd, 4))
                             : connect(fd, at->ai_addr, at->ai_addrlen);
    if (rc == 0) {
      freeaddrinfo(found);
      return fd;
    }
    problem = std::strerror(errno);
    close(fd);
  }
  freeaddrinfo(found);
  throw std::runtime_error((listening ? "cannot listen on " : "cannot reach ") + address.host + ":" +
                           std::to_string(address.port) + ": " + problem);
}

inline int BoundPort(int fd) {
  sockaddr_storage address{};
  socklen_t size = sizeof address;
  getsockname(fd, reinterpret_cast<sockaddr*>(&address), &size);
  return ntohs(address.ss_family == AF_INET6 ? reinterpret_cast<sockaddr_in6&>(address).sin6_port
                                             : reinterpret_cast<sockaddr_in&>(address).sin_port);
}

// The registration with a TVM tracker: it hands out our address together with a key that is good for one session.
class Tracker {
 public:
  Tracker(Address tracker, std::string key, int port, std::string advertised)
      : tracker_(std::move(tracker)), key_(std::move(key)), port_(port),
        advertised_(advertised.empty() ? "null" : Quoted(advertised)) {}

  // Registers anew; false while the tracker cannot be reached.
  bool Offer() {
    try {
      if (fd_ < 0) Connect();
      match_ = key_ + ":" + std::to_string(std::random_device{}());
      unasked_ = 0;
      if (Ask("[3, " + Quoted(key_) + ", [" + std::to_string(port_) + ", " + Quoted(match_) + "], " + advertised_ +
              "]") == "0")
        return true;
      problem_ = "the tracker refused the registration";
    } catch (const std::exception& error) {
      problem_ = error.what();
    }
    Drop();
    return false;
  }

  // Called every kPeriod seconds; false when the offer must be renewed: it was handed out and nobody came, or the
  // tracker is gone.
  bool Check() {
    try {
      const bool pending = Ask("[7]").find(Quoted(match_)) != std::string::npos;
      unasked_ = pending ? 0 : unasked_ + 1;
      return unasked_ <= 3;
    } catch (const std::exception& error) {
      problem_ = error.what();
      Drop();
      return false;
    }
  }

  static constexpr int kPeriod = 2;
  const std::string& match() const { return match_; }
  const std::string& problem() const { return problem_; }

 private:
  void Connect() {
    fd_ = Open(tracker_, false);
    SetTimeout(fd_, 10);
    int32_t magic = kTrackerMagic;
    if (!Send(fd_, &magic, sizeof magic) || !Receive(fd_, &magic, sizeof magic) || magic != kTrackerMagic)
      throw std::runtime_error(tracker_.host + ":" + std::to_string(tracker_.port) + " is no TVM tracker");
    Ask("[5, {\"key\": " + Quoted("server:" + key_) + ", \"addr\": [" + advertised_ + ", " + std::to_string(port_) +
        "]}]");
  }

  std::string Ask(const std::string& message) {
    std::string reply;
    if (!SendText(fd_, message) || !ReceiveText(fd_, &reply)) throw std::runtime_error("the tracker hung up");
    return reply;
  }

  void Drop() {
    if (fd_ >= 0) close(fd_);
    fd_ = -1;
  }

  Address tracker_;
  std::string key_;
  int port_;
  std::string advertised_, match_, problem_;
  int fd_ = -1, unasked_ = 0;
};

}  // namespace irnn
