#include "adamw.h"

#include "failure.h"

#include <algorithm>
#include <cmath>

namespace bitfit {
namespace {

constexpr double beta1 = 0.9, beta2 = 0.999;
constexpr double clip_epsilon = 1e-6;  // what torch adds to a norm before it divides by it

void check_count(const char* name, std::size_t value) {
  if (value == 0) fail(StatusCode::usage_error, text_of(name, " is 0, expected 1 or more"));
}

void check_positive(const char* name, double value) {
  if (value > 0 && std::isfinite(value)) return;
  fail(StatusCode::usage_error, text_of(name, " is ", value, ", expected a number above 0"));
}

}  // namespace

void AdamW::step(const std::vector<Range>& ranges, const std::vector<float>& gradient, double rate,
                 std::vector<float>* values) {
  ++steps;
  const auto count = static_cast<double>(steps);
  const auto kept = static_cast<float>(1 - rate * weight_decay);
  const auto correction = static_cast<float>(std::sqrt(1 - std::pow(beta2, count)));
  const auto size = static_cast<float>(rate / (1 - std::pow(beta1, count)));
  const auto least = static_cast<float>(epsilon);
  for (const Range& range : ranges) {
    for (std::size_t i = range.first; i < range.first + range.size; ++i) {
      mean[i] += static_cast<float>(1 - beta1) * (gradient[i] - mean[i]);
      square[i] = square[i] * static_cast<float>(beta2) + static_cast<float>(1 - beta2) * gradient[i] * gradient[i];
      float& value = (*values)[i];
      value = value * kept - size * (mean[i] / (std::sqrt(square[i]) / correction + least));
    }
  }
}

void clip(double largest, std::vector<float>* gradient) {
  if (largest == 0) return;
  double sum = 0;
  for (const float value : *gradient) sum += static_cast<double>(value) * static_cast<double>(value);
  const double factor = largest / (std::sqrt(sum) + clip_epsilon);
  if (factor >= 1) return;
  for (float& value : *gradient) value *= static_cast<float>(factor);
}

void check_settings(const LearningSettings& settings) {
  check_count("epochs", settings.epochs);
  check_count("batch_size", settings.batch_size);
  check_count("max_length", settings.max_length);
  check_count("checkpoint_steps", settings.checkpoint_steps);
  check_positive("learning_rate", settings.learning_rate);
  check_positive("epsilon", settings.epsilon);
  if (settings.clip != 0) check_positive("clip", settings.clip);
  if (!(settings.weight_decay >= 0) || !std::isfinite(settings.weight_decay)) {
    fail(StatusCode::usage_error, text_of("weight_decay is ", settings.weight_decay, ", expected 0 or more"));
  }
  if (!(settings.warmup >= 0 && settings.warmup < 1)) {
    fail(StatusCode::usage_error, text_of("warmup is ", settings.warmup, ", expected at least 0 and below 1"));
  }
}

double rate_at(const LearningSettings& settings, std::size_t step, std::size_t steps) {
  const auto warmup = static_cast<std::size_t>(std::nearbyint(settings.warmup * static_cast<double>(steps)));
  if (step < warmup) return settings.learning_rate * static_cast<double>(step) / static_cast<double>(warmup);
  if (settings.schedule == Schedule::constant) return settings.learning_rate;
  const auto left = static_cast<double>(steps - step),
             all = static_cast<double>(std::max(steps - warmup, std::size_t{1}));
  return settings.learning_rate * (left / all);
}

}  // namespace bitfit
