/* The plain C API, for other languages and for C itself. It is the C++ API without its types.
 *
 *     bitfit_error error;
 *     bitfit_session* session = bitfit_open("bundles/minilm-l6", 1, &error);
 *     if (session == NULL) return report(error.message, error.hint);
 *     char label[64];
 *     double score;
 *     bitfit_predict(session, "sst2", "A warm, funny film.", NULL, label, sizeof label, &score, &error);
 *     bitfit_close(session);
 *
 * Strings are UTF-8 and end with a NUL. Functions that can fail return a bitfit_code, and fill in `error` where it is
 * not NULL: its strings are empty when all went well. Any number of threads may use one session; bitfit_close must be
 * the last call. A workspace belongs to one thread at a time. Rows alone, without sessions, are in row.h. */

#ifndef BITFIT_BITFIT_H
#define BITFIT_BITFIT_H

#include <stddef.h>
#include <stdint.h>
#include "row.h"

#ifdef __cplusplus
extern "C" {
#endif

typedef enum bitfit_code {
  BITFIT_OK = 0,
  BITFIT_BUNDLE_ERROR = 1, /* a bundle or a file of it that cannot be used */
  BITFIT_ROW_ERROR = 2,    /* a bias row that is refused */
  BITFIT_INPUT_ERROR = 3,  /* ids, texts or names that cannot be run or loaded */
  BITFIT_USAGE_ERROR = 4,  /* an option or an argument that cannot be */
  BITFIT_FAILURE = 5,      /* anything else */
  BITFIT_SIGNATURE_ERROR = 6 /* a manifest or a row that no trusted key has signed */
} bitfit_code;

typedef struct bitfit_error {
  bitfit_code code;
  char message[512]; /* what was found and what was expected; cut where it is longer */
  char hint[256];    /* what to do about it; may be empty */
} bitfit_error;

typedef struct bitfit_session bitfit_session;
typedef struct bitfit_workspace bitfit_workspace;

/* Open a bundle with all of its tasks. threads: for one run, 0 for one per core. NULL where that fails. */
bitfit_session* bitfit_open(const char* folder, int threads, bitfit_error* error);

/* Structs of options begin with their size, so that later releases can add to them. Set `size` to sizeof of the struct
 * and everything that you do not know to 0. */

/* Where ONNX Runtime executes operators, by its own name, such as CUDAExecutionProvider, or without its end: CUDA.
 * Options are as ONNX Runtime documents them; keys and values may be NULL where count is 0. */
typedef struct bitfit_provider {
  const char* name;
  const char* const* keys;
  const char* const* values;
  size_t count; /* of keys, and of values */
} bitfit_provider;

struct OrtEnv;

/* Options of ONNX Runtime, explained in onnxruntime.h. */
typedef struct bitfit_onnxruntime_options {
  size_t size;
  const bitfit_provider* providers; /* the first that takes an operator executes it; the CPU takes what is left */
  size_t provider_count;
  int inter_threads;          /* for operators that do not wait for one another; 0 or 1: one operator at a time */
  int share_threads;          /* not 0: all sessions of the engine run on the same threads */
  int threads;                /* the number of these; 0 for one per core */
  struct OrtEnv* environment; /* the application's, which must outlive the sessions; NULL for the engine's */
} bitfit_onnxruntime_options;

/* What runs models. Sessions can share one, and keep it for as long as they need it. */
typedef struct bitfit_engine bitfit_engine;

/* NULL where that fails. */
bitfit_engine* bitfit_onnxruntime_new(const bitfit_onnxruntime_options* options, bitfit_error* error);

/* Qualcomm's HTP, explained in qnn.h. */
typedef struct bitfit_qnn_options {
  size_t size;
  const char* library; /* the provider's file; NULL for libonnxruntime_providers_qnn.so where the loader finds it */
  int htp_arch;        /* of this device, such as 73; 0: not known */
} bitfit_qnn_options;

/* NULL where that fails. */
bitfit_engine* bitfit_qnn_new(const bitfit_qnn_options* options, bitfit_error* error);
void bitfit_engine_free(bitfit_engine* engine);

/* As bitfit_open, with all options. */
typedef struct bitfit_options {
  size_t size;
  int threads;      /* for one run, 0 for one per core */
  int check_hashes; /* not 0: compare SHA-256 of every file, which finds forgeries; damage is always looked for */
  const bitfit_engine* engine; /* NULL: ONNX Runtime as it is, and Qualcomm's HTP for the target qnn */
  /* Public keys, each as 64 hexadecimal digits or as the path of a file that has these. Unless this is NULL, the manifest
   * and every row must be signed by one of them, and check_hashes is on; a list without a key is refused. */
  const char* const* trusted_keys;
  size_t trusted_key_count;
  const char* state; /* a file of the versions that were used, so that older rows are refused; NULL for none */
} bitfit_options;
bitfit_session* bitfit_open_with(const char* folder, const bitfit_options* options, bitfit_error* error);

void bitfit_close(bitfit_session* session);

/* Load a row file, or replace the loaded task of that name. name: NULL for the row's own. */
bitfit_code bitfit_load_task(bitfit_session* session, const char* path, const char* name, bitfit_error* error);
/* As above, from bytes that are only read during the call, of a session without trusted keys. */
bitfit_code bitfit_load_task_bytes(bitfit_session* session, const void* data, size_t size, const char* name,
                                   bitfit_error* error);
bitfit_code bitfit_unload_task(bitfit_session* session, const char* name, bitfit_error* error);

/* The tasks that were loaded when it was made, by name. All of it is constant until bitfit_task_list_free. */
typedef struct bitfit_task {
  const char* name;
  const char* const* labels; /* label_count of them in id order; NULL for a regression */
  uint32_t problem_type;     /* a bitfit_problem_type */
  uint32_t label_count;      /* the number of head outputs */
  uint32_t task_version;
  const char* warning; /* what to know of its row, which runs all the same; empty: nothing */
} bitfit_task;

typedef struct bitfit_task_list {
  const bitfit_task* tasks;
  size_t count;
} bitfit_task_list;

/* NULL where that fails. */
bitfit_task_list* bitfit_list_tasks(const bitfit_session* session, bitfit_error* error);
void bitfit_task_list_free(bitfit_task_list* list);

/* What runs the model, in words, cut to `size` bytes with its NUL: this machine's processor, an accelerator, or an
 * emulator of one, which takes seconds for a run. */
void bitfit_device(const bitfit_session* session, char* device, size_t size);

/* The longest sequence that the model takes, in tokens; 0 where session is NULL. */
size_t bitfit_max_tokens(const bitfit_session* session);

/* What runs need besides the session; each thread has its own. NULL where memory is out. */
bitfit_workspace* bitfit_workspace_new(void);
void bitfit_workspace_free(bitfit_workspace* workspace);

/* A batch of ids, int64 [items, tokens]. token_type_ids may be NULL: zeros. */
typedef struct bitfit_batch {
  const int64_t* input_ids;
  const int64_t* attention_mask;
  const int64_t* token_type_ids;
  size_t items;
  size_t tokens;
} bitfit_batch;

/* The caller sets values and capacity (in values). A run sets the others: [items, labels] for a sentence task, where
 * tokens is 0, or [items, tokens, labels]. -infinity beyond an item's own labels. */
typedef struct bitfit_logits {
  float* values;
  size_t capacity;
  size_t items;
  size_t tokens;
  size_t labels;
} bitfit_logits;

/* How many values a run of such a batch may need in `logits`, for the tasks that are loaded now; 0 where session is
 * NULL. */
size_t bitfit_logits_capacity(const bitfit_session* session, size_t items, size_t tokens);

/* Run a batch. task_count is 1, one task for all items, or batch->items, one for each. */
bitfit_code bitfit_run(const bitfit_session* session, const char* const* tasks, size_t task_count,
                       const bitfit_batch* batch, bitfit_workspace* workspace, bitfit_logits* logits,
                       bitfit_error* error);

/* The names of the outputs that the model has, for index 0, 1, ..., then NULL: logits and, where the bundle was made
 * with token or span tasks, token_logits. They live as long as the session. */
const char* bitfit_output_name(const bitfit_session* session, size_t index);

/* As bitfit_logits_capacity, for one output; 0 where the model does not have it. */
size_t bitfit_output_capacity(const bitfit_session* session, const char* name, size_t items, size_t tokens);

/* An output that a run is asked for. The caller sets the name, and of the logits values and capacity. */
typedef struct bitfit_output {
  const char* name;
  bitfit_logits logits;
} bitfit_output;

/* As bitfit_run, for any mix of sentence, token and span tasks: `output_count` outputs, each named once. A sentence
 * task's item means nothing in token_logits, nor does a token or span task's item in logits. */
bitfit_code bitfit_run_outputs(const bitfit_session* session, const char* const* tasks, size_t task_count,
                               const bitfit_batch* batch, bitfit_workspace* workspace, bitfit_output* outputs,
                               size_t output_count, bitfit_error* error);

/* Answer one text, or a pair where text_pair is not NULL, for a sentence or span task. `label` gets the label, or the
 * answer of a span task, cut to `label_size` bytes with its NUL; a regression has none. */
bitfit_code bitfit_predict(const bitfit_session* session, const char* task, const char* text, const char* text_pair,
                           char* label, size_t label_size, double* score, bitfit_error* error);

#ifdef __cplusplus
}
#endif

#endif /* BITFIT_BITFIT_H */
