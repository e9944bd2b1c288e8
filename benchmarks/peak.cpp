// What one core can do: multiply-adds in registers, without memory. Prints one line of JSON, operations a second in 1e9; a
// multiply-add counts as two. A kind of arithmetic that the compiler's target lacks is left out.

#include <immintrin.h>

#include <algorithm>
#include <cstdio>
#include <ctime>
#include <utility>

namespace {

// Independent sums: more than two multiply-adds at a time take to give one, and few enough for the 16 registers of
// AVX2, which hold both factors too, and what is between the steps of a sum.
constexpr int kChains = 12;
constexpr int kChainsOfSteps = 6;
constexpr long kRounds = 1000000;
constexpr int kRepeats = 50;

// The shortest of some repeats, in seconds of the processor.
template <typename Work>
double shortest(Work work) {
  double best = 1e9;
  for (int repeat = 0; repeat < kRepeats; ++repeat) {
    const std::clock_t started = std::clock();
    work();
    best = std::min(best, double(std::clock() - started) / CLOCKS_PER_SEC);
  }
  return best;
}

// Keeps a value in a register, and the compiler from knowing it.
template <typename Vector>
inline void opaque(Vector& value) {
  asm volatile("" : "+v"(value));
}

// The body of `chains`. Its indices are constants, so that the compiler keeps the sums in registers.
template <typename Vector, typename Step, std::size_t... chain>
inline void multiply_add(Step step, Vector left, Vector right, std::index_sequence<chain...>) {
  Vector sums[sizeof...(chain)] = {};
  (opaque(sums[chain]), ...);  // equal sums would be computed once
  for (long round = 0; round < kRounds; ++round) {
    ((sums[chain] = step(sums[chain], left, right)), ...);
  }
  (opaque(sums[chain]), ...);
}

// Operations a second in 1e9, of so many a step.
template <int count = kChains, typename Vector, typename Step>
double chains(Step step, Vector zero, int operations) {
  Vector left = zero;
  Vector right = zero;
  opaque(left);
  opaque(right);
  const double seconds = shortest([&] { multiply_add(step, left, right, std::make_index_sequence<count>()); });
  return double(operations) * count * kRounds / seconds / 1e9;
}

void print(const char* name, double found) {
  static bool first = true;
  std::printf("%s\"%s\": %.1f", first ? "{" : ", ", name, found);
  first = false;
}

}  // namespace

int main() {
#if defined(__AVX512F__)
  print("fp32", chains([](__m512 s, __m512 a, __m512 b) { return _mm512_fmadd_ps(a, b, s); }, _mm512_setzero_ps(), 32));
#elif defined(__FMA__)
  print("fp32", chains([](__m256 s, __m256 a, __m256 b) { return _mm256_fmadd_ps(a, b, s); }, _mm256_setzero_ps(), 16));
#endif
#if defined(__AVX512VNNI__)
  const auto dot = [](__m512i s, __m512i a, __m512i b) { return _mm512_dpbusd_epi32(s, a, b); };
  print("int8", chains(dot, _mm512_setzero_si512(), 128));
#elif defined(__AVXVNNI__)
  const auto dot = [](__m256i s, __m256i a, __m256i b) { return _mm256_dpbusd_avx_epi32(s, a, b); };
  print("int8", chains(dot, _mm256_setzero_si256(), 64));
#elif defined(__AVX2__)
  // Without an instruction for it: products to 16 bits, which may saturate, these to 32, and a sum.
  const auto dot = [ones = _mm256_set1_epi16(1)](__m256i s, __m256i a, __m256i b) {
    opaque(a);  // equal products would be computed once
    return _mm256_add_epi32(s, _mm256_madd_epi16(_mm256_maddubs_epi16(a, b), ones));
  };
  print("int8", chains<kChainsOfSteps>(dot, _mm256_setzero_si256(), 64));
#endif
  std::puts("}");
}
