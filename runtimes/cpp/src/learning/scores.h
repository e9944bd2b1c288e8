// Scores of logits. Higher is better.

#ifndef BITFIT_SRC_LEARNING_SCORES_H
#define BITFIT_SRC_LEARNING_SCORES_H

#include <bitfit/trainer.h>

#include <string>
#include <utility>
#include <vector>

namespace bitfit {

using Scores = std::vector<std::pair<std::string, double>>;

// single_label: `accuracy`, and for two labels `f1` of the second and `matthews_correlation`; multi_label: `micro_f1`;
// regression: `spearman` and `pearson`. A correlation is 0 where it is not defined. The first one decides which epoch is
// the best where no other is named. Logits and targets are [examples, labels], the latter as train_step takes them.
Scores scores_of(ProblemType type, std::size_t labels, const std::vector<float>& logits,
                 const std::vector<float>& targets);

}  // namespace bitfit

#endif  // BITFIT_SRC_LEARNING_SCORES_H
