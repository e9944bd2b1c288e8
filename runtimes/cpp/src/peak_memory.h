// How much memory this process has used, and will use.

#ifndef BITFIT_SRC_PEAK_MEMORY_H
#define BITFIT_SRC_PEAK_MEMORY_H

#include <cstddef>
#include <string_view>

#if defined(__linux__)
#include <fstream>
#include <sstream>
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

// What of mapped files with this end of their names is not in memory yet, in bytes: each page that is read adds to what
// is resident. 0 where the system does not say.
inline std::size_t unread_of_mapped([[maybe_unused]] std::string_view end) {
  std::size_t unread = 0;
#if defined(__linux__)
  std::ifstream maps("/proc/self/smaps");
  bool is_wanted = false;
  for (std::string line; std::getline(maps, line);) {
    std::istringstream words(line);
    std::string word;
    std::size_t kilobytes = 0;
    words >> word;
    if (word.empty()) continue;
    if (word.back() != ':') {  // the line that begins a mapping, with its name at the end
      is_wanted = line.size() >= end.size() && line.compare(line.size() - end.size(), end.size(), end) == 0;
    } else if (is_wanted && word == "Size:" && words >> kilobytes) {
      unread += kilobytes * 1024;
    } else if (is_wanted && word == "Rss:" && words >> kilobytes) {
      unread -= kilobytes * 1024;
    }
  }
#endif
  return unread;
}

}  // namespace bitfit

#endif  // BITFIT_SRC_PEAK_MEMORY_H
