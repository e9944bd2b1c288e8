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
  BITFIT_FAILURE = 5       /* anything else */
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

/* As above, with all options; set those that you do not know to 0. */
typedef struct bitfit_options {
  int threads;      /* for one run, 0 for one per core */
  int check_hashes; /* not 0: compare SHA-256 of every file, which finds forgeries; damage is always looked for */
} bitfit_options;
bitfit_session* bitfit_open_with(const char* folder, const bitfit_options* options, bitfit_error* error);

void bitfit_close(bitfit_session* session);

/* Load a row file, or replace the loaded task of that name. name: NULL for the row's own. */
bitfit_code bitfit_load_task(bitfit_session* session, const char* path, const char* name, bitfit_error* error);
/* As above, from bytes that are only read during the call. */
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
} bitfit_task;

typedef struct bitfit_task_list {
  const bitfit_task* tasks;
  size_t count;
} bitfit_task_list;

/* NULL where that fails. */
bitfit_task_list* bitfit_list_tasks(const bitfit_session* session, bitfit_error* error);
void bitfit_task_list_free(bitfit_task_list* list);

/* The longest sequence that the model takes, in tokens; 0 where session is NULL. */
size_t bitfit_max_tokens(const bitfit_session* session);

/* What runs need besides the session; each thread has its own. NULL where memory is out. */
bitfit_workspace* bitfit_workspace_new(void);
void bitfit_workspace_free(bitfit_workspace* workspace);

/* A batch of ids, int64 [rows, tokens]. token_type_ids may be NULL: zeros. */
typedef struct bitfit_batch {
  const int64_t* input_ids;
  const int64_t* attention_mask;
  const int64_t* token_type_ids;
  size_t rows;
  size_t tokens;
} bitfit_batch;

/* The caller sets values and capacity (in values). A run sets the others: [rows, labels] for a sentence task, where
 * tokens is 0, or [rows, tokens, labels]. -infinity beyond a row's own labels. */
typedef struct bitfit_logits {
  float* values;
  size_t capacity;
  size_t rows;
  size_t tokens;
  size_t labels;
} bitfit_logits;

/* How many values a run of such a batch may need in `logits`, for the tasks that are loaded now; 0 where session is
 * NULL. */
size_t bitfit_logits_capacity(const bitfit_session* session, size_t rows, size_t tokens);

/* Run a batch. task_count is 1, one task for all rows, or batch->rows, one for each. */
bitfit_code bitfit_run(const bitfit_session* session, const char* const* tasks, size_t task_count,
                       const bitfit_batch* batch, bitfit_workspace* workspace, bitfit_logits* logits,
                       bitfit_error* error);

/* Answer one text, or a pair where text_pair is not NULL, for a sentence or span task. `label` gets the label, or the
 * answer of a span task, cut to `label_size` bytes with its NUL; a regression has none. */
bitfit_code bitfit_predict(const bitfit_session* session, const char* task, const char* text, const char* text_pair,
                           char* label, size_t label_size, double* score, bitfit_error* error);

#ifdef __cplusplus
}
#endif

#endif /* BITFIT_BITFIT_H */
