// AdamW as torch.optim.AdamW computes it (Loshchilov and Hutter, 2019), and the settings that it follows.

#ifndef BITFIT_SRC_LEARNING_ADAMW_H
#define BITFIT_SRC_LEARNING_ADAMW_H

#include <bitfit/trainer.h>

#include <cstddef>
#include <vector>

namespace bitfit {

// A part of a vector: what lies from `first` on.
struct Range {
  std::size_t first = 0, size = 0;
};

// The optimiser's state: running means of the gradient and of its square, as long as the vector that it changes.
struct AdamW {
  AdamW(std::size_t size, double epsilon_, double weight_decay_)
      : epsilon(epsilon_), weight_decay(weight_decay_), mean(size), square(size) {}

  // Change the values in these ranges by one gradient.
  void step(const std::vector<Range>& ranges, const std::vector<float>& gradient, double rate,
            std::vector<float>* values);

  double epsilon, weight_decay;
  std::size_t steps = 0;
  std::vector<float> mean, square;
};

// Scale a gradient to a Euclidean norm of at most `largest`, as torch.nn.utils.clip_grad_norm_ does; 0: any norm.
void clip(double largest, std::vector<float>* gradient);

// Fails with a usage_error where a setting is out of its range.
void check_settings(const LearningSettings& settings);

// The learning rate of a step, from 0, of this many; as transformers' schedules have it.
double rate_at(const LearningSettings& settings, std::size_t step, std::size_t steps);

}  // namespace bitfit

#endif  // BITFIT_SRC_LEARNING_ADAMW_H
