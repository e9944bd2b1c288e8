// Examples to learn from: checked before anything is run, tokenised once, and put into batches.

#ifndef BITFIT_SRC_LEARNING_EXAMPLES_H
#define BITFIT_SRC_LEARNING_EXAMPLES_H

#include <bitfit/trainer.h>

#include "learning/numpy_random.h"
#include "padded.h"
#include "session_parts.h"

#include <cstddef>
#include <cstdint>
#include <vector>

namespace bitfit {

// Fails with a usage_error for a task that is not learnt here, or whose labels are not those of its type.
void check_task(const TaskToLearn& task);

// The number of outputs that a task's head has.
std::uint32_t label_count(const TaskToLearn& task) noexcept;

// Fails with an input_error where there is no example, or a label that the head lacks. `what` names them in messages.
void check_examples(const std::vector<LabelledText>& examples, const TaskToLearn& task, const char* what);

// Fails with an input_error where all examples have one class: a head would learn to answer that, whatever the text.
void check_varied(const std::vector<LabelledText>& examples, const TaskToLearn& task);

// Texts as ids, of which each takes eight bytes.
class TokenizedTexts {
 public:
  // Cut to `limit` tokens. Fails with an input_error for a text that the tokenizer or the model does not take.
  TokenizedTexts(const Session::Parts& session, const std::vector<LabelledText>& examples, std::size_t limit,
                 const char* what);

  std::size_t size() const noexcept { return lengths_.size(); }
  const std::vector<std::size_t>& lengths() const noexcept { return lengths_; }  // in tokens
  std::size_t bytes() const noexcept;

  // The texts at these places, as one batch.
  void pad(const std::vector<std::size_t>& places, Padded* padded) const;

 private:
  struct IdAndType {
    std::int32_t id, type;
  };

  std::vector<std::size_t> lengths_, starts_;
  std::vector<IdAndType> tokens_;
  std::int64_t pad_token_id_;
};

// The batches of one epoch, as places of examples: in random order, neighbours in length together.
std::vector<std::vector<std::size_t>> batches_of(const std::vector<std::size_t>& lengths, std::size_t batch_size,
                                                 NumpyRandom* random);

// What train_step takes as `targets`, [examples, label_count].
std::vector<float> targets_of(const std::vector<LabelledText>& examples, const TaskToLearn& task);

// The factor of each example's loss: 1, or, balanced, examples / (classes x examples of its class).
std::vector<float> weights_of(const std::vector<LabelledText>& examples, const TaskToLearn& task, bool balance);

}  // namespace bitfit

#endif  // BITFIT_SRC_LEARNING_EXAMPLES_H
