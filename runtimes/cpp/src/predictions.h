// Logits to what a Hugging Face pipeline says.

#ifndef BITFIT_SRC_PREDICTIONS_H
#define BITFIT_SRC_PREDICTIONS_H

#include <bitfit/session.h>

#include <vector>

namespace bitfit {

// The labels of a sentence task with their scores, best first, by its logits: softmax for single_label, sigmoid for
// multi_label, the one value for a regression. Equal scores keep the order of the labels.
Result rank_labels(const TaskInfo& task, const float* logits);

// Each word with the label of its first token. `logits` are [tokens, row_labels], of which the task's come first.
Result label_words(const TaskInfo& task, const float* logits, std::size_t row_labels, const Tokens& tokens,
                   const Text& text);

// The most likely answers in one window, best first, at most `count` different ones. A score is the product of two
// probabilities: that the first token starts the answer and that the last one ends it, both among the context's tokens
// and the first special one, which stands for "no answer".
Result find_answers(const float* logits, std::size_t row_labels, const Tokens& window, const std::string& context,
                    std::size_t max_tokens, std::size_t count);

// Add an answer, of another window too, if it is among the `count` best. The same characters count once. Equal scores
// are in the order of start, then of end.
void add_answer(Prediction answer, std::size_t count, Result* answers);

}  // namespace bitfit

#endif  // BITFIT_SRC_PREDICTIONS_H
