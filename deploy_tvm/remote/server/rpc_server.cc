// TVM RPC server without Python, for boards: the libraries of TVM's runtime and this program are all it needs.
//
//   irnn-rpc-server [--host 127.0.0.1] [--port 9090] [--key KEY] [--tracker HOST:PORT] [--advertise HOST]
//                   [--lifetime own|parent]
//
// "--lifetime parent": ends with the process that started it.
//
// One session at a time, each in a process and a temporary folder of its own, so that a program that crashes takes
// nothing along and measurements do not disturb each other.  Whoever can connect can run code: listen on loopback or in
// a network that you trust.
#include <poll.h>
#include <sched.h>
#include <signal.h>
#include <sys/prctl.h>
#include <sys/wait.h>
#include <tvm/ffi/extra/module.h>
#include <tvm/ffi/tvm_ffi.h>

#include <chrono>
#include <cstdlib>
#include <filesystem>
#include <iostream>
#include <sstream>
#include <thread>

#include "device_info.h"
#include "network.h"
#include "sha256.h"

namespace ffi = tvm::ffi;
namespace fs = std::filesystem;

namespace {

struct Options {
  irnn::Address listen{"127.0.0.1", 9090};
  std::string key, advertise;
  irnn::Address tracker;
  bool with_parent = false;
};

struct Session {
  int fd;
  double timeout;  // seconds; 0: none
};

[[noreturn]] void Usage(const std::string& problem) {
  std::cerr << "irnn-rpc-server: " << problem
            << "\nusage: irnn-rpc-server [--host H] [--port P] [--key K] [--tracker HOST:PORT] [--advertise HOST]"
               " [--lifetime own|parent]\n";
  std::exit(2);
}

int Port(const std::string& text, int lowest) {
  char* end = nullptr;
  const long port = std::strtol(text.c_str(), &end, 10);
  if (text.empty() || *end || port < lowest || port > 65535) Usage("port " + text + " must lie in 1 to 65535");
  return static_cast<int>(port);
}

Options Parse(int argc, char** argv) {
  Options options;
  for (int i = 1; i < argc; i += 2) {
    const std::string name = argv[i];
    if (i + 1 == argc) Usage(name + " needs a value");
    const std::string value = argv[i + 1];
    if (name == "--host") options.listen.host = value;
    else if (name == "--port") options.listen.port = Port(value, 0);  // 0: any free one
    else if (name == "--key") options.key = value;
    else if (name == "--advertise") options.advertise = value;
    else if (name == "--lifetime" && (value == "own" || value == "parent")) options.with_parent = value == "parent";
    else if (name == "--tracker") {
      const size_t colon = value.rfind(':');
      if (colon == std::string::npos) Usage("--tracker takes HOST:PORT, not " + value);
      options.tracker = {value.substr(0, colon), Port(value.substr(colon + 1), 1)};
    } else Usage("unknown option " + name + " " + value);
  }
  if (options.tracker.port && options.key.empty()) Usage("--tracker needs --key");
  return options;
}

void Log(const std::string& text) { std::cerr << "irnn-rpc-server: " << text << std::endl; }

// Reads a client's greeting; a file descriptor below 0 where it is no client of ours.
Session Greet(int fd, const std::string& expected, const std::string& key) {
  const Session refused{-1, 0};
  irnn::SetTimeout(fd, 5);
  int32_t magic;
  std::string greeting, word;
  if (!irnn::Receive(fd, &magic, sizeof magic) || magic != irnn::kRpcMagic || !irnn::ReceiveText(fd, &greeting)) {
    close(fd);
    return refused;
  }
  std::istringstream words(greeting);
  words >> word;
  if (word != "client:" + expected) {
    irnn::Send(fd, &irnn::kRpcMismatch, sizeof irnn::kRpcMismatch);
    close(fd);
    Log("refused a client with another key");
    return refused;
  }
  Session session{fd, 0};
  while (words >> word)
    if (word.rfind("-timeout=", 0) == 0) session.timeout = std::atof(word.c_str() + 9);
  irnn::Send(fd, &irnn::kRpcMagic, sizeof irnn::kRpcMagic);
  irnn::SendText(fd, "server:" + key);
  irnn::SetTimeout(fd, 0);
  // A client whose machine vanished must not keep the device for ever.
  const int one = 1, idle = 20, interval = 5, count = 4;
  setsockopt(fd, SOL_SOCKET, SO_KEEPALIVE, &one, sizeof one);
  setsockopt(fd, IPPROTO_TCP, TCP_KEEPIDLE, &idle, sizeof idle);
  setsockopt(fd, IPPROTO_TCP, TCP_KEEPINTVL, &interval, sizeof interval);
  setsockopt(fd, IPPROTO_TCP, TCP_KEEPCNT, &count, sizeof count);
  return session;
}

// Uploads keep their names inside the session's folder, whatever the client calls them.
std::string Inside(const std::string& folder, const std::string& name) {
  return folder + "/" + fs::path(name).filename().string();
}

void PinTo(int64_t core) {
  cpu_set_t set;
  CPU_ZERO(&set);
  CPU_SET(static_cast<int>(core), &set);
  if (sched_setaffinity(0, sizeof set, &set))
    throw std::runtime_error("cannot run on core " + std::to_string(core) + ": " + std::strerror(errno));
}

[[noreturn]] void Serve(int fd, const std::string& folder, const std::string& last_failure) {
  using ffi::Function;
  Function::SetGlobal("tvm.rpc.server.workpath",
                      Function::FromTyped([folder](std::string name) { return Inside(folder, name); }), true);
  Function::SetGlobal("tvm.rpc.server.load_module", Function::FromTyped([folder](std::string name) {
                        return ffi::Module::LoadFromFile(Inside(folder, name));
                      }), true);
  Function::SetGlobal("irnn.device.describe",
                      Function::FromTyped([last_failure]() { return irnn::DescribeDevice(last_failure); }), true);
  Function::SetGlobal("irnn.device.sha256", Function::FromTyped([folder](std::string name) {
                        return irnn::FileSha256(Inside(folder, name));
                      }), true);
  Function::SetGlobal("irnn.device.pin", Function::FromTyped([](int64_t core) { PinTo(core); }), true);
  try {
    Function::GetGlobalRequired("rpc.ServerLoop")(static_cast<int64_t>(fd));
  } catch (const std::exception& error) {
    Log(error.what());
  }
  _exit(0);
}

// Runs one session to its end; returns how it failed, empty where it did not.
std::string Run(const Session& session, int listener, const std::string& last_failure) {
  std::string folder = (fs::temp_directory_path() / "irnn-rpc-XXXXXX").string();
  if (!mkdtemp(folder.data())) throw std::runtime_error("cannot make a folder: " + std::string(std::strerror(errno)));
  const pid_t child = fork();
  if (child < 0) throw std::runtime_error("cannot fork: " + std::string(std::strerror(errno)));
  if (child == 0) {
    prctl(PR_SET_PDEATHSIG, SIGKILL);
    close(listener);
    Serve(session.fd, folder, last_failure);
  }
  close(session.fd);
  const auto start = std::chrono::steady_clock::now();
  int status = 0;
  std::string failure;
  while (waitpid(child, &status, WNOHANG) == 0) {
    const std::chrono::duration<double> passed = std::chrono::steady_clock::now() - start;
    if (session.timeout > 0 && passed.count() > session.timeout && failure.empty()) {
      failure = "the session took longer than the " + std::to_string(static_cast<int>(session.timeout)) +
                " s that the client had asked for";
      kill(child, SIGKILL);
    }
    std::this_thread::sleep_for(std::chrono::milliseconds(5));
  }
  if (failure.empty() && WIFSIGNALED(status))
    failure = "the program was ended by signal " + std::to_string(WTERMSIG(status)) + " (" +
              strsignal(WTERMSIG(status)) + ")";
  std::error_code ignored;
  fs::remove_all(folder, ignored);
  if (!failure.empty()) Log(failure);
  return failure;
}

}  // namespace

int main(int argc, char** argv) {
  const Options options = Parse(argc, argv);
  signal(SIGPIPE, SIG_IGN);
  if (options.with_parent) prctl(PR_SET_PDEATHSIG, SIGKILL);
  try {
    const int listener = irnn::Open(options.listen, true);
    const int port = irnn::BoundPort(listener);
    std::cout << "listening on " << options.listen.host << ":" << port << std::endl;
    irnn::Tracker tracker(options.tracker, options.key, port, options.advertise);
    const bool tracked = options.tracker.port != 0;
    bool offered = false, complained = false;
    std::string last_failure;
    for (;;) {
      if (tracked && !offered) {
        offered = tracker.Offer();
        if (!offered && !complained) Log(tracker.problem() + "; trying again");
        complained = !offered;
      }
      pollfd waiting{listener, POLLIN, 0};
      const int ready = poll(&waiting, 1, tracked ? irnn::Tracker::kPeriod * 1000 : -1);
      if (ready <= 0) {
        if (tracked && offered) offered = tracker.Check();
        continue;
      }
      const int fd = accept4(listener, nullptr, nullptr, SOCK_CLOEXEC);
      if (fd < 0) continue;
      const Session session = Greet(fd, tracked ? tracker.match() : options.key, options.key);
      if (session.fd < 0) continue;
      last_failure = Run(session, listener, last_failure);
      offered = false;
    }
  } catch (const std::exception& error) {
    Log(error.what());
    return 1;
  }
}
