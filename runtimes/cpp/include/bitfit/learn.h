/* Learning on the device from C: the C++ trainer of trainer.h, without its types.
 *
 *     bitfit_trainer* trainer = bitfit_trainer_open(session, &error);
 *     bitfit_learning learning;
 *     memset(&learning, 0, sizeof learning);
 *     learning.size = sizeof learning;
 *     learning.task = "spam";
 *     ... labels, train and held_out ...
 *     bitfit_learned* learned = bitfit_learn(trainer, &learning, &error);
 *     if (learned == NULL) return report(error.message, error.hint);
 *     bitfit_learned_save(learned, "spam.bias", &error);
 *     bitfit_learned_free(learned);
 *     bitfit_trainer_free(trainer);
 *
 * The bundle was exported with --trainable. Sentence tasks alone are learnt. The session runs its tasks meanwhile, and
 * must outlive the trainer. A trainer can learn several tasks at once, each in a thread. */

#ifndef BITFIT_LEARN_H
#define BITFIT_LEARN_H

#include "bitfit.h"

#ifdef __cplusplus
extern "C" {
#endif

typedef struct bitfit_trainer bitfit_trainer;

/* NULL where that fails: a usage error where the bundle cannot learn. */
bitfit_trainer* bitfit_trainer_open(const bitfit_session* session, bitfit_error* error);
void bitfit_trainer_free(bitfit_trainer* trainer);

/* A text, or a pair where text_pair is not NULL, and what it stands for: one number, a label id (single_label) or a
 * value (regression), or a 0 or a 1 for each label (multi_label). */
typedef struct bitfit_example {
  const char* text;
  const char* text_pair;
  const double* label;
  size_t label_size;
} bitfit_example;

/* What learning will do, and what it needs. */
typedef struct bitfit_learning_plan {
  size_t values;                  /* of the row */
  size_t steps;                   /* of all epochs */
  size_t part_items, part_tokens; /* of the largest part of a batch: its shape */
  size_t peak_bytes;              /* the most memory of the process; 0 where the system does not say */
} bitfit_learning_plan;

/* What is learnt and how. Of a number that is 0 the text in brackets says what it means. All of it is only read, during
 * bitfit_learn. */
typedef struct bitfit_learning {
  size_t size; /* sizeof of this struct */
  const char* task;
  uint32_t problem_type;     /* a bitfit_problem_type of sentence tasks */
  const char* const* labels; /* names in id order; none for a regression */
  size_t label_count;
  const bitfit_example* train;
  size_t train_count;
  const bitfit_example* held_out; /* they choose the epoch */
  size_t held_out_count;

  double learning_rate;    /* the peak [4e-4] */
  size_t epochs;           /* [8] */
  size_t batch_size;       /* examples per step [16] */
  size_t part_size;        /* examples that are computed at once, which bounds the memory [a whole batch] */
  int constant;            /* not 0: the learning rate stays after the warm-up; else it falls to 0 */
  double warmup;           /* the share of all steps in which the learning rate rises from 0 [0.1]; negative for none */
  double weight_decay;     /* of AdamW */
  double epsilon;          /* of AdamW [1e-6] */
  double clip;             /* the largest norm of a gradient [1]; negative for any */
  size_t max_length;       /* tokens at which texts are cut [128] */
  uint64_t seed;           /* of a new head's values, and of the order of the examples */
  size_t patience;         /* epochs without a better score after which learning ends [never] */
  int balance;             /* not 0: weigh examples by the inverse frequency of their class */
  size_t checkpoint_steps; /* steps between two checkpoints [50] */

  const void* start; /* the bytes of a row to start from; NULL for the base model's */
  size_t start_size;
  const char* checkpoint; /* a file that is written on the way; where it is there, the run resumes; NULL for none */
  size_t memory_limit;    /* in bytes, for peak_bytes [none] */

  /* Called on the way, by the thread that learns, where they are not NULL. Learning ends with a BITFIT_FAILURE where
   * one returns another number than 0; its last checkpoint stays. `score` is the one by which the best
   * epoch is chosen, of the name `metric`; `loss` is the mean over its steps. */
  int (*on_plan)(void* context, const bitfit_learning_plan* plan);
  int (*on_step)(void* context, size_t step, size_t steps, double loss);
  int (*on_epoch)(void* context, size_t epoch, const char* metric, double score, double loss);
  void* context;

  const char* metric; /* the score by which the best epoch is chosen, as trainer.h names them [the first] */
} bitfit_learning;

/* The row of the best epoch, version 1 of its task. */
typedef struct bitfit_learned bitfit_learned;

/* Learn a task. The same arguments give the same row on the same machine, interrupted or not. NULL where that fails. */
bitfit_learned* bitfit_learn(const bitfit_trainer* trainer, const bitfit_learning* learning, bitfit_error* error);

/* The bytes of the row's file, for bitfit_load_task_bytes; they live until bitfit_learned_free. NULL for NULL. */
const void* bitfit_learned_row(const bitfit_learned* learned, size_t* size);
/* From 1; the first, where several are equal. 0 for NULL. */
size_t bitfit_learned_epoch(const bitfit_learned* learned);
/* Write the row's file. A file that is there is replaced in one step, or stays as it was. */
bitfit_code bitfit_learned_save(const bitfit_learned* learned, const char* path, bitfit_error* error);
void bitfit_learned_free(bitfit_learned* learned);

#ifdef __cplusplus
}
#endif

#endif /* BITFIT_LEARN_H */
