// Logits to what a Hugging Face pipeline says.

#ifndef BITFIT_SRC_PREDICTIONS_H
#define BITFIT_SRC_PREDICTIONS_H

#include <bitfit/session.h>

#include <vector>

namespace bitfit {

// The best label of a sentence task, by its logits: softmax for single_label, sigmoid for multi_label, the value itself
// for a regression.
Prediction best_label(const TaskInfo& task, const float* logits);

// Each word with the label of its first token. `logits` are [tokens, row_labels], of which the task's come first.
Result label_words(const TaskInfo& task, const float* logits, std::size_t row_labels, const Tokens& tokens,
                   const Text& text);

// The best answer in one window. A score is the product of two probabilities: that the first token starts the answer
// and that the last one ends it, both among the context's tokens and the first special one, which stands for "no
// answer".
Prediction find_answer(const float* logits, std::size_t row_labels, const Tokens& window, const std::string& context,
                       std::size_t max_tokens);

// Whether the answer of another window is better.
bool is_better(const Prediction& answer, const Prediction& than) noexcept;

}  // namespace bitfit

#endif  // BITFIT_SRC_PREDICTIONS_H
