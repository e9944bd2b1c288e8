#include "mapped_file.h"

#include "failure.h"

#if defined(__unix__) || defined(__APPLE__)
#define BITFIT_MAPS_FILES
#include <fcntl.h>
#include <sys/mman.h>
#include <sys/stat.h>
#include <unistd.h>

#include <cerrno>
#include <cstring>
#else
#include <fstream>
#include <iterator>
#endif

namespace bitfit {
namespace {

[[noreturn]] void refuse(const std::string& path, const char* reason) {
  fail(StatusCode::bundle_error, text_of(path, " can't be read: ", reason));
}

}  // namespace

#ifdef BITFIT_MAPS_FILES

MappedFile::MappedFile(const std::string& path) {
  const int file = ::open(path.c_str(), O_RDONLY | O_CLOEXEC);
  if (file < 0) refuse(path, std::strerror(errno));
  struct stat found = {};
  void* mapped = nullptr;
  const char* reason = nullptr;
  if (::fstat(file, &found) != 0) {
    reason = std::strerror(errno);
  } else if (!S_ISREG(found.st_mode)) {
    reason = "it is no file";
  } else if (found.st_size > 0) {  // an empty file can't be mapped
    mapped = ::mmap(nullptr, static_cast<std::size_t>(found.st_size), PROT_READ, MAP_PRIVATE, file, 0);
    if (mapped == MAP_FAILED) reason = std::strerror(errno);
  }
  ::close(file);
  if (reason != nullptr) refuse(path, reason);
  data_ = static_cast<const std::uint8_t*>(mapped);
  size_ = static_cast<std::size_t>(found.st_size);
}

MappedFile::~MappedFile() {
  if (size_ > 0) ::munmap(const_cast<std::uint8_t*>(data_), size_);
}

#else

MappedFile::MappedFile(const std::string& path) {
  std::ifstream stream(path, std::ios::binary);
  if (!stream) refuse(path, "it can't be opened");
  copy_.assign(std::istreambuf_iterator<char>(stream), std::istreambuf_iterator<char>());
  if (stream.bad()) refuse(path, "reading failed");
  data_ = copy_.data();
  size_ = copy_.size();
}

MappedFile::~MappedFile() = default;

#endif

}  // namespace bitfit
