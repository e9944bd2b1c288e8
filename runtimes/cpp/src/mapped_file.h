// A whole file as bytes that are only read: mapped where the system can do that, else read into memory. Somebody who
// writes into a mapped file changes what was checked, or ends the program; a row may be replaced at any time, so it is
// read by read_file.

#ifndef BITFIT_SRC_MAPPED_FILE_H
#define BITFIT_SRC_MAPPED_FILE_H

#include <cstddef>
#include <cstdint>
#include <string>
#include <string_view>
#include <vector>

namespace bitfit {

class MappedFile {
 public:
  // Fails with a bundle_error when the file can't be read.
  explicit MappedFile(const std::string& path);
  ~MappedFile();
  MappedFile(const MappedFile&) = delete;
  MappedFile& operator=(const MappedFile&) = delete;

  const std::uint8_t* data() const noexcept { return data_; }
  std::size_t size() const noexcept { return size_; }
  std::string_view text() const noexcept { return {reinterpret_cast<const char*>(data_), size_}; }

 private:
  const std::uint8_t* data_ = nullptr;
  std::size_t size_ = 0;
  std::vector<std::uint8_t> copy_;  // where files can't be mapped
};

// The bytes of a file as they are now. Fails with a bundle_error when it can't be read.
std::vector<std::uint8_t> read_file(const std::string& path);

}  // namespace bitfit

#endif  // BITFIT_SRC_MAPPED_FILE_H
