// A lock that goes with its process, however that ends: the Python package's, so that both keep one another out.

#ifndef BITFIT_SRC_FILE_LOCK_H
#define BITFIT_SRC_FILE_LOCK_H

#include <string>

namespace bitfit {

// Held from its making to its end. Systems without flock have none: there nothing is kept out.
class FileLock {
 public:
  // Locks the file at `path`, which is there only while it is locked, or after a kill. Waits for another holder for ten
  // seconds, then fails with `busy`. Fails with a failure too where the file cannot be made.
  FileLock(std::string path, const std::string& busy);
  ~FileLock();
  FileLock(const FileLock&) = delete;
  FileLock& operator=(const FileLock&) = delete;

 private:
  bool is_there() const noexcept;  // whether the name is still of the file that was opened

  std::string path_;
  int descriptor_ = -1;
};

}  // namespace bitfit

#endif  // BITFIT_SRC_FILE_LOCK_H
