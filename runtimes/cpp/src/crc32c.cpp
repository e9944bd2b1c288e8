#include "crc32c.h"

#include <bitfit/bias_row.h>

#include <array>
#include <cstring>

#if defined(__x86_64__) && defined(__GNUC__)
#include <nmmintrin.h>
#define BITFIT_CRC_TARGET __attribute__((target("sse4.2")))
#define BITFIT_CRC_8(state, bytes) _mm_crc32_u64(state, bytes)
#define BITFIT_CRC_1(state, byte) _mm_crc32_u8(state, byte)
#elif defined(_M_X64)
#include <intrin.h>
#include <nmmintrin.h>
#define BITFIT_CRC_TARGET
#define BITFIT_CRC_8(state, bytes) _mm_crc32_u64(state, bytes)
#define BITFIT_CRC_1(state, byte) _mm_crc32_u8(state, byte)
#elif defined(__aarch64__) && (defined(__ARM_FEATURE_CRC32) || defined(__linux__))
#define BITFIT_CRC_TARGET __attribute__((target("arch=armv8-a+crc")))
#if defined(__ARM_FEATURE_CRC32)
#undef BITFIT_CRC_TARGET
#define BITFIT_CRC_TARGET
#else
#include <sys/auxv.h>
#endif
#if defined(__clang__)
#define BITFIT_CRC_8(state, bytes) __builtin_arm_crc32cd(state, bytes)
#define BITFIT_CRC_1(state, byte) __builtin_arm_crc32cb(state, byte)
#else
#define BITFIT_CRC_8(state, bytes) __builtin_aarch64_crc32cx(state, bytes)
#define BITFIT_CRC_1(state, byte) __builtin_aarch64_crc32cb(state, byte)
#endif
#endif

namespace bitfit {
namespace detail {

std::uint32_t crc32c_without_instruction(std::uint32_t state, const std::uint8_t* bytes, std::size_t size) noexcept {
  for (std::size_t i = 0; i < size; ++i) {
    state ^= bytes[i];
    state = (state >> 4) ^ crc32c_table.entry[state & 15u];
    state = (state >> 4) ^ crc32c_table.entry[state & 15u];
  }
  return state;
}

#ifdef BITFIT_CRC_TARGET
namespace {

// The instruction takes three cycles and one can start in each, so three stretches of a block are read side by side.
constexpr std::size_t stretch = 4096;

// What a stretch of zeros makes of each bit of the state. The state after zeros is linear in the state before.
using Shift = std::array<std::uint32_t, 32>;

std::uint32_t apply(const Shift& shift, std::uint32_t state) noexcept {
  std::uint32_t result = 0;
  for (unsigned bit = 0; bit < 32; ++bit) result ^= (state >> bit & 1u) != 0 ? shift[bit] : 0u;
  return result;
}

Shift make_shift() noexcept {
  const std::array<std::uint8_t, stretch> zeros = {};
  Shift shift;
  for (unsigned bit = 0; bit < 32; ++bit) {
    shift[bit] = crc32c_without_instruction(1u << bit, zeros.data(), zeros.size());
  }
  return shift;
}

inline std::uint64_t load(const std::uint8_t* bytes) noexcept {
  std::uint64_t value;
  std::memcpy(&value, bytes, sizeof value);
  return value;
}

BITFIT_CRC_TARGET std::uint32_t hardware(std::uint32_t state, const std::uint8_t* bytes, std::size_t size) noexcept {
  static const Shift shift = make_shift();
  for (; size >= 3 * stretch; bytes += 3 * stretch, size -= 3 * stretch) {
    std::uint32_t first = state, second = 0, third = 0;
    for (std::size_t i = 0; i < stretch; i += 8) {
      first = static_cast<std::uint32_t>(BITFIT_CRC_8(first, load(bytes + i)));
      second = static_cast<std::uint32_t>(BITFIT_CRC_8(second, load(bytes + stretch + i)));
      third = static_cast<std::uint32_t>(BITFIT_CRC_8(third, load(bytes + 2 * stretch + i)));
    }
    state = apply(shift, apply(shift, first) ^ second) ^ third;
  }
  for (; size >= 8; bytes += 8, size -= 8) state = static_cast<std::uint32_t>(BITFIT_CRC_8(state, load(bytes)));
  for (; size > 0; ++bytes, --size) state = static_cast<std::uint32_t>(BITFIT_CRC_1(state, *bytes));
  return state;
}

bool has_instruction() noexcept {
#if defined(__x86_64__) && defined(__GNUC__)
  return __builtin_cpu_supports("sse4.2") != 0;
#elif defined(_M_X64)
  int registers[4] = {};
  __cpuid(registers, 1);
  return (registers[2] >> 20 & 1) != 0;
#elif defined(__ARM_FEATURE_CRC32)
  return true;
#else
  return (getauxval(AT_HWCAP) & (1ul << 7)) != 0;  // HWCAP_CRC32
#endif
}

}  // namespace

Crc32cStep crc32c_with_instruction() noexcept { return is_little_endian() && has_instruction() ? hardware : nullptr; }

#else

Crc32cStep crc32c_with_instruction() noexcept { return nullptr; }

#endif

}  // namespace detail

void Crc32c::update(const void* data, std::size_t size) noexcept {
  static const detail::Crc32cStep fast = detail::crc32c_with_instruction();
  const auto step = fast != nullptr ? fast : detail::crc32c_without_instruction;
  state_ = step(state_, static_cast<const std::uint8_t*>(data), size);
}

}  // namespace bitfit
