// NumPy's default generator (SeedSequence and PCG64), so that a seed means the same order of examples and the same new
// head as in Python. https://numpy.org/doc/stable/reference/random/

#ifndef BITFIT_SRC_LEARNING_NUMPY_RANDOM_H
#define BITFIT_SRC_LEARNING_NUMPY_RANDOM_H

#include <cstddef>
#include <cstdint>
#include <vector>

namespace bitfit {

// An unsigned integer of 128 bits, as far as the generator needs one.
struct Uint128 {
  std::uint64_t high = 0, low = 0;
};

class NumpyRandom {
 public:
  // As numpy.random.default_rng(seed), where the seed is a list of integers, or one.
  explicit NumpyRandom(const std::vector<std::uint64_t>& seed);

  // The numbers from 0 to before `count`, as Generator.permutation(count) orders them.
  std::vector<std::size_t> permutation(std::size_t count);

  // As Generator.standard_normal().
  double standard_normal();

 private:
  void step() noexcept;
  std::uint64_t next64() noexcept;
  std::uint32_t next32() noexcept;
  double next_double() noexcept;
  std::uint64_t at_most(std::uint64_t largest) noexcept;
  double normal_tail(bool negative) noexcept;

  Uint128 state_, increment_;
  bool has_half_ = false;  // of a 64-bit number, of which 32 bits were taken
  std::uint32_t half_ = 0;
};

}  // namespace bitfit

#endif  // BITFIT_SRC_LEARNING_NUMPY_RANDOM_H
