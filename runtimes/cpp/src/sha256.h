// SHA-256 (FIPS 180-4), as lower-case hexadecimal digits.

#ifndef BITFIT_SRC_SHA256_H
#define BITFIT_SRC_SHA256_H

#include <array>
#include <cstddef>
#include <cstdint>
#include <string>
#include <string_view>

namespace bitfit {

class Sha256 {
 public:
  void update(const void* data, std::size_t size) noexcept;
  void update(std::string_view text) noexcept { update(text.data(), text.size()); }

  // The digest of all bytes so far. Call it once, at the end.
  std::array<std::uint8_t, 32> finish() noexcept;

 private:
  void compress(const std::uint8_t* block) noexcept;

  std::array<std::uint32_t, 8> state_ = {0x6a09e667, 0xbb67ae85, 0x3c6ef372, 0xa54ff53a,
                                         0x510e527f, 0x9b05688c, 0x1f83d9ab, 0x5be0cd19};
  std::array<std::uint8_t, 64> block_ = {};
  std::uint64_t size_ = 0;  // in bytes
};

std::string hex_of(const std::array<std::uint8_t, 32>& digest);

// The bytes that 64 hexadecimal digits stand for; the digits must have been checked.
std::array<std::uint8_t, 32> bytes_of_hex(std::string_view digits) noexcept;

inline std::string sha256_of(const void* data, std::size_t size) {
  Sha256 hash;
  hash.update(data, size);
  return hex_of(hash.finish());
}

}  // namespace bitfit

#endif  // BITFIT_SRC_SHA256_H
