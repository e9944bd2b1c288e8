// Files as bytes in memory. Nothing is mapped: somebody who writes into a mapped file changes what was checked, or ends
// the program.

#ifndef BITFIT_SRC_READ_FILE_H
#define BITFIT_SRC_READ_FILE_H

#include <cstddef>
#include <cstdint>
#include <memory>
#include <string>
#include <string_view>
#include <vector>

namespace bitfit {

using Bytes = std::vector<std::uint8_t>;

inline std::string_view text_in(const Bytes& bytes) noexcept {
  return {reinterpret_cast<const char*>(bytes.data()), bytes.size()};
}

// A file that is read from its start to its end. Everything fails with a bundle_error.
class OpenFile {
 public:
  // Opens a regular file. Any other (a folder, a pipe, a device) is refused, and not waited for.
  explicit OpenFile(const std::string& path);
  ~OpenFile();
  OpenFile(const OpenFile&) = delete;
  OpenFile& operator=(const OpenFile&) = delete;

  // In bytes, when it was opened.
  std::uint64_t size() const noexcept { return size_; }

  // Up to `size` bytes; fewer at the end of the file alone.
  std::size_t read(void* data, std::size_t size);

  // What tells this state of the file from another file at its path, and from later states: device, inode, size and
  // times of change. Empty where the system has none.
  const std::vector<std::uint64_t>& identity() const noexcept { return identity_; }

 private:
  struct Handle;
  std::string path_;
  std::unique_ptr<Handle> handle_;
  std::uint64_t size_ = 0;
  std::vector<std::uint64_t> identity_;
};

// All bytes of a file that was opened.
Bytes read_all(OpenFile* file);

// The bytes of a file as they are now. Fails with a bundle_error where it cannot be read, or has more than `limit`
// bytes: its size is compared before anything of that size is made.
Bytes read_file(const std::string& path, std::uint64_t limit);

}  // namespace bitfit

#endif  // BITFIT_SRC_READ_FILE_H
