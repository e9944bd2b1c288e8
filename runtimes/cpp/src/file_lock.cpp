#include "file_lock.h"

#include "failure.h"

#include <chrono>
#include <thread>
#include <utility>

#if defined(__unix__) || defined(__APPLE__)
#define BITFIT_IS_POSIX
#include <fcntl.h>
#include <sys/file.h>
#include <sys/stat.h>
#include <unistd.h>

#include <cerrno>
#include <cstring>
#endif

namespace bitfit {

#ifdef BITFIT_IS_POSIX

FileLock::FileLock(std::string path, const std::string& busy) : path_(std::move(path)) {
  using std::chrono::steady_clock;
  const auto deadline = steady_clock::now() + std::chrono::seconds(10);
  while (true) {
    descriptor_ = ::open(path_.c_str(), O_RDWR | O_CREAT | O_CLOEXEC | O_NOFOLLOW, 0666);
    if (descriptor_ < 0) {
      fail(StatusCode::failure, text_of(path_, " cannot be written: ", std::strerror(errno)),
           "choose a folder with room that can be written");
    }
    const int taken = ::flock(descriptor_, LOCK_EX | LOCK_NB);
    const bool is_held = taken != 0 && errno == EWOULDBLOCK;  // other errors: a file system without locks
    if (!is_held && is_there()) return;
    ::close(descriptor_);
    descriptor_ = -1;
    if (!is_held) continue;  // its holder has just removed it
    if (steady_clock::now() >= deadline) {
      fail(StatusCode::failure, busy, "wait for it to end, or name another file");
    }
    std::this_thread::sleep_for(std::chrono::milliseconds(10));
  }
}

FileLock::~FileLock() {
  if (is_there()) ::unlink(path_.c_str());
  ::close(descriptor_);
}

bool FileLock::is_there() const noexcept {
  struct stat named = {}, opened = {};
  return ::lstat(path_.c_str(), &named) == 0 && ::fstat(descriptor_, &opened) == 0 && named.st_dev == opened.st_dev &&
         named.st_ino == opened.st_ino;
}

#else

FileLock::FileLock(std::string path, const std::string&) : path_(std::move(path)) {}
FileLock::~FileLock() = default;
bool FileLock::is_there() const noexcept { return true; }

#endif

}  // namespace bitfit
