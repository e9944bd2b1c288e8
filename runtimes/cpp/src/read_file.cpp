#include "read_file.h"

#include "failure.h"

#if defined(__unix__) || defined(__APPLE__)
#define BITFIT_IS_POSIX
#include <fcntl.h>
#include <sys/stat.h>
#include <unistd.h>

#include <cerrno>
#include <cstring>
#else
#include <filesystem>
#include <fstream>
#endif

#include <algorithm>

namespace bitfit {
namespace {

[[noreturn]] void refuse(const std::string& path, const char* reason) {
  fail(StatusCode::bundle_error, text_of(path, " cannot be read: ", reason));
}

}  // namespace

#ifdef BITFIT_IS_POSIX

struct OpenFile::Handle {
  explicit Handle(const std::string& path)
      : descriptor(::open(path.c_str(), O_RDONLY | O_CLOEXEC | O_NONBLOCK | O_NOCTTY)) {}
  ~Handle() {
    if (descriptor >= 0) ::close(descriptor);
  }
  Handle(const Handle&) = delete;
  Handle& operator=(const Handle&) = delete;

  const int descriptor;
};

namespace {

std::vector<std::uint64_t> identity_of(const struct stat& found) {
#if defined(__APPLE__)
  const timespec written = found.st_mtimespec, changed = found.st_ctimespec;
#else
  const timespec written = found.st_mtim, changed = found.st_ctim;
#endif
  const auto number = [](auto value) { return static_cast<std::uint64_t>(value); };
  return {number(found.st_dev),    number(found.st_ino),   number(found.st_size),  number(written.tv_sec),
          number(written.tv_nsec), number(changed.tv_sec), number(changed.tv_nsec)};
}

}  // namespace

OpenFile::OpenFile(const std::string& path) : path_(path) {
  if (path.find('\0') != std::string::npos) refuse(path, "its name has a zero byte");
  handle_ = std::make_unique<Handle>(path);
  if (handle_->descriptor < 0) refuse(path, std::strerror(errno));
  struct stat found = {};
  if (::fstat(handle_->descriptor, &found) != 0) refuse(path, std::strerror(errno));
  if (!S_ISREG(found.st_mode)) refuse(path, "it is not a regular file");
  size_ = static_cast<std::uint64_t>(found.st_size);
  identity_ = identity_of(found);
}

std::size_t OpenFile::read(void* data, std::size_t size) {
  std::size_t count = 0;
  while (count < size) {
    // Some systems take no more than 2 GiB in one call.
    const std::size_t wanted = std::min(size - count, std::size_t{1} << 30);
    const ssize_t more = ::read(handle_->descriptor, static_cast<char*>(data) + count, wanted);
    if (more < 0 && errno == EINTR) continue;
    if (more < 0) refuse(path_, std::strerror(errno));
    if (more == 0) break;
    count += static_cast<std::size_t>(more);
  }
  return count;
}

#else

struct OpenFile::Handle {
  std::ifstream stream;
};

OpenFile::OpenFile(const std::string& path) : path_(path) {
  if (path.find('\0') != std::string::npos) refuse(path, "its name has a zero byte");
  std::error_code error;
  if (!std::filesystem::is_regular_file(path, error)) refuse(path, "it is not a regular file");
  size_ = std::filesystem::file_size(path, error);
  handle_ = std::make_unique<Handle>();
  handle_->stream.open(path, std::ios::binary);
  if (error || !handle_->stream) refuse(path, "it cannot be opened");
}

std::size_t OpenFile::read(void* data, std::size_t size) {
  handle_->stream.read(static_cast<char*>(data), static_cast<std::streamsize>(size));
  if (handle_->stream.bad()) refuse(path_, "reading failed");
  return static_cast<std::size_t>(handle_->stream.gcount());
}

#endif

OpenFile::~OpenFile() = default;

Bytes read_all(OpenFile* file) {
  Bytes bytes(static_cast<std::size_t>(file->size()));
  bytes.resize(file->read(bytes.data(), bytes.size()));  // it may have become shorter
  return bytes;
}

Bytes read_file(const std::string& path, std::uint64_t limit) {
  OpenFile file(path);
  if (file.size() > limit) {
    fail(StatusCode::bundle_error, text_of(path, " has ", file.size(), " bytes, expected at most ", limit));
  }
  return read_all(&file);
}

}  // namespace bitfit
