#include "numpy_random.h"

#include <array>
#include <cmath>
#include <numeric>
#include <utility>

namespace bitfit {
namespace {

Uint128 add(Uint128 left, Uint128 right) noexcept {
  const std::uint64_t low = left.low + right.low;
  return {left.high + right.high + (low < left.low ? 1 : 0), low};
}

Uint128 multiply_64(std::uint64_t left, std::uint64_t right) noexcept {
  constexpr std::uint64_t half = 0xFFFFFFFFu;
  const std::uint64_t low = (left & half) * (right & half);
  const std::uint64_t middle = (left >> 32) * (right & half) + (low >> 32);
  const std::uint64_t other = (left & half) * (right >> 32) + (middle & half);
  return {(left >> 32) * (right >> 32) + (middle >> 32) + (other >> 32), (other << 32) | (low & half)};
}

Uint128 multiply_128(Uint128 left, Uint128 right) noexcept {
  Uint128 product = multiply_64(left.low, right.low);
  product.high += left.high * right.low + left.low * right.high;
  return product;
}

// SeedSequence: entropy of any length, mixed into a pool of four words.
class SeedSequence {
 public:
  explicit SeedSequence(const std::vector<std::uint64_t>& seed) {
    std::vector<std::uint32_t> entropy;
    for (std::uint64_t each : seed) {
      do entropy.push_back(static_cast<std::uint32_t>(each));
      while ((each >>= 32) != 0);
    }
    std::uint32_t constant = 0x43B0D7E5u;
    const auto hash = [&](std::uint32_t value) {
      value ^= constant;
      constant *= 0x931E8875u;
      value *= constant;
      return value ^ (value >> 16);
    };
    for (std::size_t i = 0; i < pool_.size(); ++i) pool_[i] = hash(i < entropy.size() ? entropy[i] : 0);
    for (std::size_t from = 0; from < pool_.size(); ++from) {
      for (std::size_t to = 0; to < pool_.size(); ++to) {
        if (from != to) pool_[to] = mix(pool_[to], hash(pool_[from]));
      }
    }
    for (std::size_t from = pool_.size(); from < entropy.size(); ++from) {
      for (std::uint32_t& to : pool_) to = mix(to, hash(entropy[from]));
    }
  }

  std::array<std::uint64_t, 4> generate() const noexcept {
    std::array<std::uint32_t, 8> words = {};
    std::uint32_t constant = 0x8B51F9DDu;
    for (std::size_t i = 0; i < words.size(); ++i) {
      std::uint32_t value = pool_[i % pool_.size()] ^ constant;
      constant *= 0x58F38DEDu;
      value *= constant;
      words[i] = value ^ (value >> 16);
    }
    std::array<std::uint64_t, 4> found = {};
    for (std::size_t i = 0; i < found.size(); ++i) found[i] = words[2 * i] | (std::uint64_t{words[2 * i + 1]} << 32);
    return found;
  }

 private:
  static std::uint32_t mix(std::uint32_t left, std::uint32_t right) noexcept {
    const std::uint32_t value = 0xCA01F9DDu * left - 0x4973F715u * right;
    return value ^ (value >> 16);
  }

  std::array<std::uint32_t, 4> pool_ = {};
};

// The ziggurat of Marsaglia and Tsang (2000) for the normal distribution, with 256 layers of equal area.
struct Ziggurat {
  static constexpr double edge = 3.6541528853610088;  // where the lowest layer's tail begins
  std::array<double, 256> width = {}, height = {};
  std::array<std::uint64_t, 256> inside = {};  // below it, a number lies in the layer for certain

  Ziggurat() {
    constexpr double scale = 4503599627370496.0;  // 2^52
    const auto density = [](double x) { return std::exp(-0.5 * x * x); };
    const double area = edge * density(edge) + std::sqrt(std::acos(-1.0) / 2) * std::erfc(edge / std::sqrt(2.0));
    double x = edge, outer = area / density(edge);
    inside[0] = static_cast<std::uint64_t>(edge / outer * scale);
    width[0] = outer / scale;
    height[0] = 1;
    for (std::size_t layer = 255; layer >= 1; --layer) {
      width[layer] = x / scale;
      height[layer] = density(x);
      const double inner = layer > 1 ? std::sqrt(-2 * std::log(area / x + density(x))) : 0;
      inside[layer] = static_cast<std::uint64_t>(inner / x * scale);
      x = inner;
    }
  }
};

}  // namespace

NumpyRandom::NumpyRandom(const std::vector<std::uint64_t>& seed) {
  const auto words = SeedSequence(seed).generate();
  increment_ = {(words[2] << 1) | (words[3] >> 63), (words[3] << 1) | 1};
  step();
  state_ = add(state_, {words[0], words[1]});
  step();
}

void NumpyRandom::step() noexcept {
  state_ = add(multiply_128(state_, {2549297995355413924u, 4865540595714422341u}), increment_);
}

std::uint64_t NumpyRandom::next64() noexcept {
  step();
  const std::uint64_t mixed = state_.high ^ state_.low;
  const unsigned turn = static_cast<unsigned>(state_.high >> 58);
  return (mixed >> turn) | (mixed << ((64 - turn) & 63));
}

std::uint32_t NumpyRandom::next32() noexcept {
  if (std::exchange(has_half_, false)) return half_;
  const std::uint64_t number = next64();
  has_half_ = true;
  half_ = static_cast<std::uint32_t>(number >> 32);
  return static_cast<std::uint32_t>(number);
}

double NumpyRandom::next_double() noexcept { return static_cast<double>(next64() >> 11) / 9007199254740992.0; }

// By throwing away what is too large: NumPy's random_interval, with which it shuffles.
std::uint64_t NumpyRandom::at_most(std::uint64_t largest) noexcept {
  std::uint64_t mask = largest;
  for (unsigned shift = 1; shift < 64; shift *= 2) mask |= mask >> shift;
  std::uint64_t value = largest + 1;
  while (value > largest) value = (largest <= 0xFFFFFFFFu ? next32() : next64()) & mask;
  return value;
}

std::vector<std::size_t> NumpyRandom::permutation(std::size_t count) {
  std::vector<std::size_t> order(count);
  std::iota(order.begin(), order.end(), std::size_t{0});
  for (std::size_t last = count; last-- > 1;) std::swap(order[last], order[static_cast<std::size_t>(at_most(last))]);
  return order;
}

double NumpyRandom::standard_normal() {
  static const Ziggurat layers;
  while (true) {
    const std::uint64_t number = next64();
    const auto layer = static_cast<std::size_t>(number & 0xFF);
    const bool negative = ((number >> 8) & 1) != 0;
    const std::uint64_t size = (number >> 9) & 0x000FFFFFFFFFFFFFu;
    const double x = static_cast<double>(size) * layers.width[layer];
    if (size < layers.inside[layer]) return negative ? -x : x;
    if (layer == 0) return normal_tail(((size >> 8) & 1) != 0);
    const double height = (layers.height[layer - 1] - layers.height[layer]) * next_double() + layers.height[layer];
    if (height < std::exp(-0.5 * x * x)) return negative ? -x : x;
  }
}

double NumpyRandom::normal_tail(bool negative) noexcept {
  while (true) {
    const double x = -std::log1p(-next_double()) / Ziggurat::edge;
    const double y = -std::log1p(-next_double());
    if (y + y > x * x) return negative ? -(Ziggurat::edge + x) : Ziggurat::edge + x;
  }
}

}  // namespace bitfit
