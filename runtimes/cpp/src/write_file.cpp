#include "write_file.h"

#include "failure.h"

#include <filesystem>

#if defined(__unix__) || defined(__APPLE__)
#define BITFIT_IS_POSIX
#include <fcntl.h>
#include <unistd.h>

#include <algorithm>
#include <cerrno>
#include <cstring>
#else
#include <fstream>
#endif

namespace bitfit {
namespace {

[[noreturn]] void refuse_output(const std::string& path, const char* reason) {
  fail(StatusCode::failure, text_of(path, " cannot be written: ", reason),
       "choose a folder with room that can be written");
}

#ifdef BITFIT_IS_POSIX

// Closes the file, and removes it unless it was renamed.
class NewFile {
 public:
  NewFile(std::string name, const std::string& target) : name_(std::move(name)), target_(target) {
    descriptor_ = ::open(name_.c_str(), O_WRONLY | O_CREAT | O_TRUNC | O_CLOEXEC | O_NOFOLLOW, 0666);
    if (descriptor_ < 0) refuse_output(target_, std::strerror(errno));
  }
  ~NewFile() {
    if (descriptor_ >= 0) ::close(descriptor_);
    if (!name_.empty()) ::unlink(name_.c_str());
  }
  NewFile(const NewFile&) = delete;
  NewFile& operator=(const NewFile&) = delete;

  void write(const char* data, std::size_t size) {
    while (size > 0) {
      const ssize_t count = ::write(descriptor_, data, std::min(size, std::size_t{1} << 30));
      if (count < 0 && errno == EINTR) continue;
      if (count < 0) refuse_output(target_, std::strerror(errno));
      data += count;
      size -= static_cast<std::size_t>(count);
    }
  }

  void publish() {
    const int synced = ::fsync(descriptor_), closed = ::close(descriptor_);
    descriptor_ = -1;
    if (synced != 0 || closed != 0 || ::rename(name_.c_str(), target_.c_str()) != 0) {
      refuse_output(target_, std::strerror(errno));
    }
    name_.clear();
  }

 private:
  std::string name_;
  const std::string& target_;
  int descriptor_ = -1;
};

void sync_folder(const std::string& folder) noexcept {
  const int descriptor = ::open(folder.c_str(), O_RDONLY | O_CLOEXEC);
  if (descriptor < 0) return;
  ::fsync(descriptor);  // a file system that cannot has nothing to lose
  ::close(descriptor);
}

#endif

}  // namespace

void write_file(const std::string& path, const void* data, std::size_t size) {
  if (path.find('\0') != std::string::npos) refuse_output(path, "its name has a zero byte");
  const std::filesystem::path target(path);
  const std::string folder = target.has_parent_path() ? target.parent_path().string() : ".";
  const std::string name = folder + "/." + target.filename().string() + ".bitfit-new";
#ifdef BITFIT_IS_POSIX
  NewFile file(name, path);
  file.write(static_cast<const char*>(data), size);
  file.publish();
  sync_folder(folder);
#else
  std::ofstream stream(name, std::ios::binary | std::ios::trunc);
  stream.write(static_cast<const char*>(data), static_cast<std::streamsize>(size));
  stream.close();
  std::error_code error;
  if (stream) std::filesystem::rename(name, target, error);
  if (stream && !error) return;
  std::error_code ignored;
  std::filesystem::remove(name, ignored);
  refuse_output(path, error ? error.message().c_str() : "writing failed");
#endif
}

}  // namespace bitfit
