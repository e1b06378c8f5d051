// What this device is: JSON for the host's `doctor` and for the results' description of the machine.
#pragma once
#include <sys/utsname.h>
#include <unistd.h>

#include <cstdio>
#include <cstdlib>
#include <fstream>
#include <string>

namespace irnn {

inline std::string Quoted(const std::string& text) {
  std::string out = "\"";
  for (unsigned char c : text) {
    char escaped[8];
    if (c == '"' || c == '\\') {
      out += '\\';
      out += static_cast<char>(c);
    } else if (c < 0x20) {
      std::snprintf(escaped, sizeof escaped, "\\u%04x", c);
      out += escaped;
    } else {
      out += static_cast<char>(c);
    }
  }
  return out + '"';
}

// The value behind "name :" in a file of such lines (/proc/cpuinfo, /proc/meminfo); empty where there is none.
inline std::string Field(const char* path, const std::string& name) {
  std::ifstream file(path);
  for (std::string line; std::getline(file, line);) {
    const size_t colon = line.find(':');
    if (colon == std::string::npos) continue;
    const size_t end = line.find_last_not_of(" \t", colon - 1);
    if (end == std::string::npos || line.substr(0, end + 1) != name) continue;
    const size_t start = line.find_first_not_of(" \t", colon + 1);
    return start == std::string::npos ? "" : line.substr(start);
  }
  return "";
}

inline std::string FirstLine(const char* path) {
  std::ifstream file(path);
  std::string line;
  std::getline(file, line);
  return line;
}

inline std::string DescribeDevice(const std::string& last_failure) {
  utsname system{};
  uname(&system);
  const std::string features = Field("/proc/cpuinfo", "Features");
  std::string cpu = Field("/proc/cpuinfo", "model name");
  if (cpu.empty() && !Field("/proc/cpuinfo", "CPU part").empty())
    cpu = "implementer " + Field("/proc/cpuinfo", "CPU implementer") + " part " + Field("/proc/cpuinfo", "CPU part");
  const std::pair<const char*, std::string> fields[] = {
      {"server", "irnn"},
      {"tvm", IRNN_TVM_VERSION},
      {"machine", system.machine},
      {"system", std::string(system.sysname) + " " + system.release},
      {"cpu", cpu},
      {"features", features.empty() ? Field("/proc/cpuinfo", "flags") : features},
      {"governor", FirstLine("/sys/devices/system/cpu/cpu0/cpufreq/scaling_governor")},
      {"memory_available", Field("/proc/meminfo", "MemAvailable")},
      {"memory_peak", Field("/proc/self/status", "VmHWM")},
      {"emulated", std::getenv("IRNN_EMULATED") ? "yes" : ""},
      {"last_failure", last_failure},
  };
  std::string json = "{\"cores\": " + std::to_string(sysconf(_SC_NPROCESSORS_ONLN));
  for (const auto& [name, value] : fields) json += ", " + Quoted(name) + ": " + Quoted(value);
  return json + "}";
}

}  // namespace irnn
