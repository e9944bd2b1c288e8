// The state of learning in one file, so that a run that was killed resumes where it was, to the bit.

#ifndef BITFIT_SRC_LEARNING_CHECKPOINT_H
#define BITFIT_SRC_LEARNING_CHECKPOINT_H

#include <bitfit/trainer.h>

#include <array>
#include <cstdint>
#include <string>
#include <vector>

namespace bitfit {

struct LearningState {
  std::uint64_t step = 0;                    // the number of steps done
  double loss = 0;                           // the sum of the losses of the steps of this epoch
  std::vector<std::vector<double>> history;  // the scores of each epoch that is over, and its mean loss

  // Where these are, all of one size: the values of the row and of the best one so far, and the optimiser's two.
  std::array<std::vector<float>*, 4> vectors = {};
};

// `run` is a digest of all that the run depends on. Fails where the file cannot be written, as write_file does.
void save_state(const std::string& path, const std::array<std::uint8_t, 32>& run, const LearningState& state);

// False where there is no file. Fails with an input_error where it is damaged, or of another run; nothing is changed
// then. `scores` is the number of those of an epoch.
bool load_state(const std::string& path, const std::array<std::uint8_t, 32>& run, std::size_t scores,
                LearningState* state);

}  // namespace bitfit

#endif  // BITFIT_SRC_LEARNING_CHECKPOINT_H
