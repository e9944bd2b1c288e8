// SHA-256 (FIPS 180-4), with the processor's instructions where it has them.

#ifndef BITFIT_SRC_SHA256_H
#define BITFIT_SRC_SHA256_H

#include <array>
#include <cstddef>
#include <cstdint>
#include <string>
#include <string_view>

namespace bitfit {

namespace detail {

// Mix blocks of 64 bytes into the state. `without_instructions` is for every processor; `with_instructions` is null on
// one that lacks them, or where this compiler cannot write them.
using Sha256Step = void (*)(std::uint32_t* state, const std::uint8_t* bytes, std::size_t blocks) noexcept;
void sha256_without_instructions(std::uint32_t* state, const std::uint8_t* bytes, std::size_t blocks) noexcept;
Sha256Step sha256_with_instructions() noexcept;

}  // namespace detail

class Sha256 {
 public:
  // With one step or another, for tests; by default with the fastest.
  Sha256() noexcept;
  explicit Sha256(detail::Sha256Step step) noexcept : step_(step) {}

  void update(const void* data, std::size_t size) noexcept;
  void update(std::string_view text) noexcept { update(text.data(), text.size()); }

  // The digest of all bytes so far. Call it once, at the end.
  std::array<std::uint8_t, 32> finish() noexcept;

 private:
  detail::Sha256Step step_;
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
