// One run of learning: everything that stays, and the state that changes.

#ifndef BITFIT_SRC_LEARNING_RUN_H
#define BITFIT_SRC_LEARNING_RUN_H

#include <bitfit/trainer.h>

#include "learning/checkpoint.h"
#include "learning/examples.h"
#include "learning/scores.h"
#include "learning/train_step.h"

#include <array>
#include <memory>
#include <vector>

namespace bitfit {

class LearningRun {
 public:
  // Tokenises the examples, and reads the checkpoint where there is one. `first` is the row to start from, with a head
  // that fits the task.
  LearningRun(const Session::Parts& session, const TrainStep& step, const Learning& learning, RowData first);

  // Run the largest batches once, and tell what learning needs. Fails with a usage_error where that is beyond the
  // limit.
  void prepare();

  // Do the steps that are left. Returns the row of the best epoch.
  LearnedRow finish();

 private:
  using Places = std::vector<std::size_t>;

  std::array<std::uint8_t, 32> digest_of(const RowData& first) const;
  std::size_t part_items(std::size_t batch) const noexcept;
  void learn_epoch(std::size_t number);
  void learn(const Places& batch);
  float add_part(const Places& part, const std::vector<float>& weights, std::vector<float>* gradient);
  void end_epoch();
  void evaluate(const Places& places, float* logits);
  Scores evaluate_all();
  Scores scores(const std::vector<float>& logits) const;
  std::size_t best_epoch() const noexcept;  // from 1
  bool is_enough() const noexcept;
  Epoch epoch(std::size_t number) const;
  void save() const;

  const Session::Parts& session_;
  const TrainStep& step_;
  const Learning& learning_;
  const LearningSettings& settings_;
  TokenizedTexts train_, held_out_;
  std::vector<float> targets_, held_out_targets_, weights_;
  RowParameters parameters_;
  AdamW optimiser_;
  std::unique_ptr<const Bound> bound_, evaluation_bound_;
  std::unique_ptr<Scratch> scratch_, evaluation_scratch_;
  std::size_t epoch_steps_, steps_;
  std::array<std::uint8_t, 32> digest_;
  std::vector<std::string> score_names_;
  std::vector<float> gradient_, part_gradient_, part_targets_;
  Padded padded_;

  std::vector<float> best_values_;
  LearningState state_;  // its vectors are the row's, best_values_ and the optimiser's
};

}  // namespace bitfit

#endif  // BITFIT_SRC_LEARNING_RUN_H
