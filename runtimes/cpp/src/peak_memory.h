// How much memory this process has used.

#ifndef BITFIT_SRC_PEAK_MEMORY_H
#define BITFIT_SRC_PEAK_MEMORY_H

#include <cstddef>

#if defined(__linux__)
#include <fstream>
#include <string>
#elif defined(__APPLE__)
#include <sys/resource.h>
#endif

namespace bitfit {

// The largest resident memory so far, in bytes; 0 where the system does not say. On Linux, what getrusage says of a
// process begins with the memory of the one that started it.
inline std::size_t peak_memory() {
#if defined(__linux__)
  std::ifstream status("/proc/self/status");
  for (std::string word; status >> word;) {
    std::size_t kilobytes = 0;
    if (word == "VmHWM:" && status >> kilobytes) return kilobytes * 1024;
  }
  return 0;
#elif defined(__APPLE__)
  rusage usage = {};
  getrusage(RUSAGE_SELF, &usage);
  return static_cast<std::size_t>(usage.ru_maxrss);
#else
  return 0;
#endif
}

}  // namespace bitfit

#endif  // BITFIT_SRC_PEAK_MEMORY_H
