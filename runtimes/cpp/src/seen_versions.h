// The highest version of each task that a host has used, in a file: an old row is refused after a restart too.
// docs/files.md specifies it; sessions of the Python package may share it.

#ifndef BITFIT_SRC_SEEN_VERSIONS_H
#define BITFIT_SRC_SEEN_VERSIONS_H

#include <cstdint>
#include <map>
#include <mutex>
#include <string>

namespace bitfit {

using Versions = std::map<std::string, std::uint32_t>;  // by task

class SeenVersions {
 public:
  // The file is made when there is something to write. Fails with a usage_error: it is there and cannot be read, or is
  // not one of these. It is never begun anew by itself.
  explicit SeenVersions(std::string path);

  // Notes versions that are about to be used. Fails with an input_error where one is lower than one that was seen, and
  // notes nothing then; with a failure where the file cannot be written.
  void take(const Versions& versions);

 private:
  std::string path_;
  std::mutex mutex_;
  Versions seen_;  // guarded by the mutex; what the file had when it was last read
};

}  // namespace bitfit

#endif  // BITFIT_SRC_SEEN_VERSIONS_H
