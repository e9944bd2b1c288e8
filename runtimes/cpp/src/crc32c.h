// CRC-32C of files, with the processor's instruction where it has one. A row's reader has its own, which needs neither.

#ifndef BITFIT_SRC_CRC32C_H
#define BITFIT_SRC_CRC32C_H

#include <cstddef>
#include <cstdint>

namespace bitfit {

class Crc32c {
 public:
  void update(const void* data, std::size_t size) noexcept;

  // Of all bytes so far.
  std::uint32_t value() const noexcept { return state_ ^ 0xFFFFFFFFu; }

 private:
  std::uint32_t state_ = 0xFFFFFFFFu;
};

inline std::uint32_t crc32c_of(const void* data, std::size_t size) noexcept {
  Crc32c crc;
  crc.update(data, size);
  return crc.value();
}

namespace detail {

// The state after more bytes. `without_instruction` is for every processor; `with_instruction` is null on one that
// lacks the instruction, or where this compiler cannot write it.
using Crc32cStep = std::uint32_t (*)(std::uint32_t state, const std::uint8_t* bytes, std::size_t size) noexcept;
std::uint32_t crc32c_without_instruction(std::uint32_t state, const std::uint8_t* bytes, std::size_t size) noexcept;
Crc32cStep crc32c_with_instruction() noexcept;

}  // namespace detail
}  // namespace bitfit

#endif  // BITFIT_SRC_CRC32C_H
