#include "sha256.h"

#include <algorithm>
#include <cstring>

#if defined(__x86_64__) && defined(__GNUC__)
#include <cpuid.h>
#include <immintrin.h>
#define BITFIT_SHA_TARGET __attribute__((target("sha,sse4.1")))
#elif defined(_M_X64)
#include <immintrin.h>
#include <intrin.h>
#define BITFIT_SHA_TARGET
#endif

namespace bitfit {
namespace {

// The first 32 bits of the fractional parts of the cube roots of the first 64 primes.
constexpr std::uint32_t round_constants[64] = {
    0x428a2f98, 0x71374491, 0xb5c0fbcf, 0xe9b5dba5, 0x3956c25b, 0x59f111f1, 0x923f82a4, 0xab1c5ed5,
    0xd807aa98, 0x12835b01, 0x243185be, 0x550c7dc3, 0x72be5d74, 0x80deb1fe, 0x9bdc06a7, 0xc19bf174,
    0xe49b69c1, 0xefbe4786, 0x0fc19dc6, 0x240ca1cc, 0x2de92c6f, 0x4a7484aa, 0x5cb0a9dc, 0x76f988da,
    0x983e5152, 0xa831c66d, 0xb00327c8, 0xbf597fc7, 0xc6e00bf3, 0xd5a79147, 0x06ca6351, 0x14292967,
    0x27b70a85, 0x2e1b2138, 0x4d2c6dfc, 0x53380d13, 0x650a7354, 0x766a0abb, 0x81c2c92e, 0x92722c85,
    0xa2bfe8a1, 0xa81a664b, 0xc24b8b70, 0xc76c51a3, 0xd192e819, 0xd6990624, 0xf40e3585, 0x106aa070,
    0x19a4c116, 0x1e376c08, 0x2748774c, 0x34b0bcb5, 0x391c0cb3, 0x4ed8aa4a, 0x5b9cca4f, 0x682e6ff3,
    0x748f82ee, 0x78a5636f, 0x84c87814, 0x8cc70208, 0x90befffa, 0xa4506ceb, 0xbef9a3f7, 0xc67178f2};

std::uint32_t rotate(std::uint32_t word, int bits) noexcept { return (word >> bits) | (word << (32 - bits)); }

std::uint32_t word_at(const std::uint8_t* bytes) noexcept {
  return std::uint32_t{bytes[0]} << 24 | std::uint32_t{bytes[1]} << 16 | std::uint32_t{bytes[2]} << 8 | bytes[3];
}

}  // namespace

namespace detail {

void sha256_without_instructions(std::uint32_t* state, const std::uint8_t* bytes, std::size_t blocks) noexcept {
  for (; blocks > 0; --blocks, bytes += 64) {
    std::uint32_t w[64];
    for (int i = 0; i < 16; ++i) w[i] = word_at(bytes + 4 * i);
    for (int i = 16; i < 64; ++i) {
      const std::uint32_t s0 = rotate(w[i - 15], 7) ^ rotate(w[i - 15], 18) ^ (w[i - 15] >> 3);
      const std::uint32_t s1 = rotate(w[i - 2], 17) ^ rotate(w[i - 2], 19) ^ (w[i - 2] >> 10);
      w[i] = w[i - 16] + s0 + w[i - 7] + s1;
    }
    std::uint32_t a = state[0], b = state[1], c = state[2], d = state[3];
    std::uint32_t e = state[4], f = state[5], g = state[6], h = state[7];
    for (int i = 0; i < 64; ++i) {
      const std::uint32_t s1 = rotate(e, 6) ^ rotate(e, 11) ^ rotate(e, 25);
      const std::uint32_t t1 = h + s1 + ((e & f) ^ (~e & g)) + round_constants[i] + w[i];
      const std::uint32_t s0 = rotate(a, 2) ^ rotate(a, 13) ^ rotate(a, 22);
      const std::uint32_t t2 = s0 + ((a & b) ^ (a & c) ^ (b & c));
      h = g, g = f, f = e, e = d + t1;
      d = c, c = b, b = a, a = t1 + t2;
    }
    const std::uint32_t mixed[8] = {a, b, c, d, e, f, g, h};
    for (std::size_t i = 0; i < 8; ++i) state[i] += mixed[i];
  }
}

#ifdef BITFIT_SHA_TARGET
namespace {

// Names of vectors list their words from the highest to the lowest: the instructions want the state as (a, b, e, f)
// and (c, d, g, h), and do two rounds each.
BITFIT_SHA_TARGET void sha256_hardware(std::uint32_t* state, const std::uint8_t* bytes, std::size_t blocks) noexcept {
  const __m128i big_endian = _mm_set_epi64x(0x0c0d0e0f08090a0b, 0x0405060700010203);
  const auto vector = [](const void* from) BITFIT_SHA_TARGET {
    return _mm_loadu_si128(static_cast<const __m128i*>(from));
  };
  const __m128i cdab = _mm_shuffle_epi32(vector(state), 0xB1);
  const __m128i efgh = _mm_shuffle_epi32(vector(state + 4), 0x1B);
  __m128i abef = _mm_alignr_epi8(cdab, efgh, 8);
  __m128i cdgh = _mm_blend_epi16(efgh, cdab, 0xF0);
  for (; blocks > 0; --blocks, bytes += 64) {
    const __m128i abef_before = abef, cdgh_before = cdgh;
    __m128i w[4];  // the sixteen words of the schedule that the next rounds need
    for (int i = 0; i < 4; ++i) w[i] = _mm_shuffle_epi8(vector(bytes + 16 * i), big_endian);
    for (int i = 0; i < 16; ++i) {
      __m128i& words = w[i & 3];
      const __m128i sum = _mm_add_epi32(words, vector(round_constants + 4 * i));
      cdgh = _mm_sha256rnds2_epu32(cdgh, abef, sum);
      abef = _mm_sha256rnds2_epu32(abef, cdgh, _mm_shuffle_epi32(sum, 0x0E));
      if (i >= 12) continue;
      const __m128i last = w[(i + 3) & 3];
      words = _mm_sha256msg1_epu32(words, w[(i + 1) & 3]);
      words = _mm_add_epi32(words, _mm_alignr_epi8(last, w[(i + 2) & 3], 4));
      words = _mm_sha256msg2_epu32(words, last);
    }
    abef = _mm_add_epi32(abef, abef_before);
    cdgh = _mm_add_epi32(cdgh, cdgh_before);
  }
  const __m128i feba = _mm_shuffle_epi32(abef, 0x1B);
  const __m128i dchg = _mm_shuffle_epi32(cdgh, 0xB1);
  _mm_storeu_si128(reinterpret_cast<__m128i*>(state), _mm_blend_epi16(feba, dchg, 0xF0));
  _mm_storeu_si128(reinterpret_cast<__m128i*>(state + 4), _mm_alignr_epi8(dchg, feba, 8));
}

bool has_sha256() noexcept {
  constexpr unsigned sse4_1 = 1u << 19, sha = 1u << 29;
#if defined(_M_X64)
  int registers[4] = {};
  __cpuid(registers, 0);
  if (registers[0] < 7) return false;
  __cpuid(registers, 1);
  const auto features = static_cast<unsigned>(registers[2]);
  __cpuidex(registers, 7, 0);
  return (features & sse4_1) != 0 && (static_cast<unsigned>(registers[1]) & sha) != 0;
#else
  unsigned eax = 0, ebx = 0, features = 0, ecx = 0, edx = 0;
  if (__get_cpuid(1, &eax, &ebx, &features, &edx) == 0) return false;
  if (__get_cpuid_count(7, 0, &eax, &ebx, &ecx, &edx) == 0) return false;
  return (features & sse4_1) != 0 && (ebx & sha) != 0;
#endif
}

}  // namespace

Sha256Step sha256_with_instructions() noexcept { return has_sha256() ? sha256_hardware : nullptr; }

#else

Sha256Step sha256_with_instructions() noexcept { return nullptr; }

#endif

}  // namespace detail

Sha256::Sha256() noexcept {
  static const detail::Sha256Step fast = detail::sha256_with_instructions();
  step_ = fast != nullptr ? fast : detail::sha256_without_instructions;
}

void Sha256::update(const void* data, std::size_t size) noexcept {
  const auto* bytes = static_cast<const std::uint8_t*>(data);
  while (size > 0) {
    const std::size_t filled = size_ % block_.size();
    std::size_t taken = std::min(size, block_.size() - filled);
    if (taken == block_.size()) {
      taken = size - size % block_.size();
      step_(state_.data(), bytes, taken / block_.size());
    } else {
      std::memcpy(block_.data() + filled, bytes, taken);
      if (filled + taken == block_.size()) step_(state_.data(), block_.data(), 1);
    }
    bytes += taken;
    size -= taken;
    size_ += taken;
  }
}

std::array<std::uint8_t, 32> Sha256::finish() noexcept {
  const std::uint64_t bits = size_ * 8;
  const std::uint8_t one = 0x80, zero = 0;
  update(&one, 1);
  while (size_ % block_.size() != 56) update(&zero, 1);
  std::uint8_t length[8];
  for (int i = 0; i < 8; ++i) length[i] = static_cast<std::uint8_t>(bits >> (56 - 8 * i));
  update(length, sizeof length);
  std::array<std::uint8_t, 32> digest;
  for (std::size_t i = 0; i < digest.size(); ++i) {
    digest[i] = static_cast<std::uint8_t>(state_[i / 4] >> (24 - 8 * (i % 4)));
  }
  return digest;
}

std::string hex_of(const std::array<std::uint8_t, 32>& digest) {
  std::string digits;
  for (const std::uint8_t byte : digest) {
    digits += "0123456789abcdef"[byte >> 4];
    digits += "0123456789abcdef"[byte & 15];
  }
  return digits;
}

std::array<std::uint8_t, 32> bytes_of_hex(std::string_view digits) noexcept {
  const auto value = [](char digit) { return digit <= '9' ? digit - '0' : digit - 'a' + 10; };
  std::array<std::uint8_t, 32> bytes;
  for (std::size_t i = 0; i < bytes.size(); ++i) {
    bytes[i] = static_cast<std::uint8_t>(value(digits[2 * i]) * 16 + value(digits[2 * i + 1]));
  }
  return bytes;
}

}  // namespace bitfit
