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

namespace {

class OpenFile {
 public:
  explicit OpenFile(const std::string& path) : descriptor(::open(path.c_str(), O_RDONLY | O_CLOEXEC)), path_(path) {
    if (descriptor < 0) refuse(path, std::strerror(errno));
    struct stat found = {};
    const char* reason = ::fstat(descriptor, &found) != 0 ? std::strerror(errno) : nullptr;
    if (reason == nullptr && !S_ISREG(found.st_mode)) reason = "it is no file";
    if (reason != nullptr) {
      ::close(descriptor);
      refuse(path, reason);
    }
    size = static_cast<std::size_t>(found.st_size);
  }
  ~OpenFile() { ::close(descriptor); }
  OpenFile(const OpenFile&) = delete;
  OpenFile& operator=(const OpenFile&) = delete;

  [[noreturn]] void refuse_now() const { refuse(path_, std::strerror(errno)); }

  const int descriptor;
  std::size_t size = 0;

 private:
  const std::string& path_;
};

}  // namespace

MappedFile::MappedFile(const std::string& path) {
  const OpenFile file(path);
  if (file.size == 0) return;  // an empty file can't be mapped
  void* const mapped = ::mmap(nullptr, file.size, PROT_READ, MAP_PRIVATE, file.descriptor, 0);
  if (mapped == MAP_FAILED) file.refuse_now();
  data_ = static_cast<const std::uint8_t*>(mapped);
  size_ = file.size;
}

MappedFile::~MappedFile() {
  if (size_ > 0) ::munmap(const_cast<std::uint8_t*>(data_), size_);
}

std::vector<std::uint8_t> read_file(const std::string& path) {
  const OpenFile file(path);
  std::vector<std::uint8_t> bytes(file.size);
  std::size_t count = 0;
  while (count < bytes.size()) {
    const ssize_t more = ::read(file.descriptor, bytes.data() + count, bytes.size() - count);
    if (more < 0 && errno == EINTR) continue;
    if (more < 0) file.refuse_now();
    if (more == 0) break;  // it has become shorter
    count += static_cast<std::size_t>(more);
  }
  bytes.resize(count);
  return bytes;
}

#else

std::vector<std::uint8_t> read_file(const std::string& path) {
  std::ifstream stream(path, std::ios::binary);
  if (!stream) refuse(path, "it can't be opened");
  std::vector<std::uint8_t> bytes{std::istreambuf_iterator<char>(stream), std::istreambuf_iterator<char>()};
  if (stream.bad()) refuse(path, "reading failed");
  return bytes;
}

MappedFile::MappedFile(const std::string& path) : copy_(read_file(path)) {
  data_ = copy_.data();
  size_ = copy_.size();
}

MappedFile::~MappedFile() = default;

#endif

}  // namespace bitfit
