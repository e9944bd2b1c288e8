// Learning on the device: a task's row from labelled texts, by the program train_step of a bundle that was exported
// with --trainable. It is the counterpart of Python's BiasTrainer, and learns the same row from the same data up to
// rounding. docs/learning.md.
//
//     std::unique_ptr<bitfit::Trainer> trainer;
//     bitfit::Status status = bitfit::Trainer::open(*session, &trainer);
//     bitfit::TaskToLearn task{"spam", bitfit::ProblemType::single_label, {"ham", "spam"}};
//     bitfit::LearnedRow learned;
//     if (status.ok()) status = trainer->learn({task, train, held_out}, &learned);
//     if (status.ok()) status = session->load_task(learned.bytes.data(), learned.bytes.size(), "spam", learned.labels);
//
// Memory. Learning needs six floats for each value of the row, eight bytes for each token of the examples, and what the
// engine needs to run its largest part of a batch. It runs one such part first, so `Learning::on_plan` can say how much
// that is before anything is learnt, and `Learning::memory_limit` can refuse it.
//
// Threads. The session runs its tasks meanwhile. A trainer can learn several tasks at once, each in a thread.

#ifndef BITFIT_TRAINER_H
#define BITFIT_TRAINER_H

#include <bitfit/session.h>

#include <cstddef>
#include <cstdint>
#include <functional>
#include <memory>
#include <string>
#include <utility>
#include <vector>

namespace bitfit {

// What the learning rate does after the warm-up: it stays, or falls to 0.
enum class Schedule : std::uint8_t { constant, linear };

// How a row is learnt. The defaults are Python's.
struct LearningSettings {
  double learning_rate = 4e-4;  // the peak, after the warm-up
  std::size_t epochs = 8;
  std::size_t batch_size = 16;  // examples per step
  std::size_t part_size = 0;    // examples that are computed at once; gradients are added up; 0: the whole batch
  Schedule schedule = Schedule::linear;
  double warmup = 0.1;                // the share of all steps in which the learning rate rises from 0, below 1
  double weight_decay = 0;            // of AdamW
  double epsilon = 1e-6;              // of AdamW
  double clip = 1;                    // the largest norm of a gradient; a larger one is scaled down to it; 0: any
  std::size_t max_length = 128;       // tokens at which texts are cut
  std::uint64_t seed = 0;             // of a new head's values, and of the order of the examples
  std::size_t patience = 0;           // epochs without a better score after which learning ends; 0: never
  bool balance = false;               // weigh examples by the inverse frequency of their class
  std::size_t checkpoint_steps = 50;  // steps between two checkpoints
  // The score by which the best epoch is chosen. single_label: accuracy, and for two labels f1 or matthews_correlation;
  // multi_label: micro_f1; regression: spearman or pearson. Empty: the first of these.
  std::string metric = {};
};

// A text, or a pair, and what it stands for: a label id (single_label), a 0 or a 1 for each label (multi_label), or a
// number (regression).
struct LabelledText {
  Text text;
  std::vector<double> label = {};
};

struct TaskToLearn {
  std::string name;
  ProblemType problem_type = ProblemType::single_label;  // or multi_label, or regression
  std::vector<std::string> labels = {};                  // in id order; none for a regression
};

// What learning will do, and what it needs.
struct LearningPlan {
  std::size_t values = 0;                       // of the row
  std::size_t steps = 0;                        // of all epochs
  std::size_t part_items = 0, part_tokens = 0;  // of the largest part: its shape
  std::size_t own_bytes = 0;                    // of the row's values, the optimiser's state and the examples' tokens
  // Of the process: the largest memory so far, when the largest batches were run, and what of the mapped weights is not
  // read yet. 0 where the system does not say.
  std::size_t peak_bytes = 0;
};

// An epoch that is over.
struct Epoch {
  std::size_t number = 0;                              // from 1
  std::vector<std::pair<std::string, double>> scores;  // on the held-out examples, that which chooses first; `loss` last
  bool is_best = false;                                // whether no epoch before it had as good a first score
};

struct Learning {
  TaskToLearn task;
  const std::vector<LabelledText>& train;
  const std::vector<LabelledText>& held_out;  // chooses the epoch
  LearningSettings settings = {};

  // The bytes of a row to start from, by default the base model's. Its head is kept if it is of the same problem type
  // and number of labels; else the head is new.
  const void* start = nullptr;
  std::size_t start_size = 0;

  std::string checkpoint = {};   // a file that is written on the way; where it is there, the run resumes
  std::size_t memory_limit = 0;  // in bytes, for LearningPlan::peak_bytes; 0: none

  // Called on the way, by the thread that learns. An exception ends learning.
  std::function<void(const LearningPlan&)> on_plan = {};                               // before the first step
  std::function<void(std::size_t step, std::size_t steps, double loss)> on_step = {};  // after it, from 1
  std::function<void(const Epoch&)> on_epoch = {};
};

// The row of the best epoch, version 1 of its task.
struct LearnedRow {
  std::vector<std::uint8_t> bytes;  // of the row file
  std::vector<std::string> labels;
  std::size_t best_epoch = 0;  // from 1; the first, where several are equal
  std::vector<Epoch> epochs;

  // Write the row's file. A file that is there is replaced in one step, or stays as it was.
  Status save(const std::string& path) const noexcept;
};

class Trainer {
 public:
  // Open the program train_step of the session's bundle, with the session's engine and threads. The session must
  // outlive the trainer. A usage_error: the bundle has no such program. A bundle_error: it cannot be loaded.
  static Status open(const Session& session, std::unique_ptr<Trainer>* out) noexcept;

  ~Trainer();
  Trainer(const Trainer&) = delete;
  Trainer& operator=(const Trainer&) = delete;

  // Learn a task. The same arguments give the same row on the same machine, interrupted or not.
  //
  // An input_error: examples that cannot be learnt from, or a checkpoint that does not fit. A row_error: a start row
  // that is refused. A usage_error: a setting out of its range, a loss that is not a number, or more memory than the
  // limit. A failure: the checkpoint cannot be written. `*out` is written only when the status is ok.
  Status learn(const Learning& learning, LearnedRow* out) const noexcept;

  struct Parts;  // the library's own

 private:
  explicit Trainer(std::unique_ptr<Parts> parts) noexcept;
  std::unique_ptr<Parts> parts_;
};

}  // namespace bitfit

#endif  // BITFIT_TRAINER_H
