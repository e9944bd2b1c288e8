// The program train_step of a bundle, opened by the engine of a session. docs/learning.md.

#ifndef BITFIT_SRC_LEARNING_TRAIN_STEP_H
#define BITFIT_SRC_LEARNING_TRAIN_STEP_H

#include <bitfit/engine.h>

#include "learning/parameters.h"
#include "padded.h"
#include "session_parts.h"

#include <memory>
#include <vector>

namespace bitfit {

// The inputs that a text becomes, of those that a program has. They point into `padded`, and to `shape`, which has its
// two dimensions.
std::vector<InputArray> text_inputs_of(const Padded& padded, const ProgramRecord& program, std::int64_t* shape);

class TrainStep {
 public:
  // Fails with a usage_error where the bundle has no such program, and a bundle_error where it cannot be loaded or has
  // inputs that this runtime does not know.
  explicit TrainStep(const Session::Parts& session);

  std::unique_ptr<const Bound> bind(const RowParameters& parameters) const;

  // What a run needs beside the row.
  struct Items {
    const Padded& text;
    const std::vector<float>& targets;  // [items, labels]
    const std::vector<float>& weights;  // the factor of each item's loss
  };

  // Returns the loss of a batch of one sentence task, and writes its gradient, laid out as the row's values. What is
  // not learnt stays as it is.
  float run(const RowParameters& parameters, const Bound& bound, const Items& items, std::unique_ptr<Scratch>* scratch,
            std::vector<float>* gradient) const;

 private:
  ProgramRecord record_;
  std::unique_ptr<const Program> program_;
  bool reads_tokens_ = false;
};

}  // namespace bitfit

#endif  // BITFIT_SRC_LEARNING_TRAIN_STEP_H
