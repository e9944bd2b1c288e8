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
 * the last call. A workspace belongs to one thread at a time.
 *
 * The part for rows needs no heap, no I/O and no other part of the library. */

#ifndef BITFIT_BITFIT_H
#define BITFIT_BITFIT_H

#include "row_format.h"
#include <stddef.h>
#include <stdint.h>

#ifdef __cplusplus
extern "C" {
#endif

typedef enum bitfit_code {
  BITFIT_OK = 0,
  BITFIT_BUNDLE_ERROR = 1, /* a bundle or a file of it that can't be used */
  BITFIT_ROW_ERROR = 2,    /* a bias row that is refused */
  BITFIT_INPUT_ERROR = 3,  /* ids, texts or names that can't be run or loaded */
  BITFIT_USAGE_ERROR = 4,  /* an option or an argument that can't be */
  BITFIT_FAILURE = 5       /* anything else */
} bitfit_code;

typedef struct bitfit_error {
  bitfit_code code;
  char message[512]; /* what was found and what was expected; cut where it is longer */
  char hint[256];    /* what to do about it; may be empty */
} bitfit_error;

/* Rows. */

/* A row that was checked. It points into the caller's bytes, which must stay as they are while it is in use. */
typedef struct bitfit_row {
  uint32_t dtype;        /* of all values: a bitfit_dtype */
  uint32_t problem_type; /* a bitfit_problem_type */
  uint32_t labels;
  uint32_t task_version;
  uint32_t bias_count;
  uint32_t head_count;
  const char* task;
  const uint8_t* payload; /* the biases, then the head tensors */
  size_t payload_size;    /* in bytes */
  struct {
    uint32_t rank, dim[BITFIT_ROW_MAX_HEAD_RANK];
    size_t offset, size; /* in values from the start of the payload */
  } heads[BITFIT_ROW_MAX_HEAD_TENSORS];
} bitfit_row;

/* What bitfit_row_read returns where an argument is NULL. */
#define BITFIT_ROW_NULL_ARGUMENT (-1)

/* Check `size` bytes at `data`, and that the row is for the layout of this digest (32 bytes) with `bias_count` biases.
 * Returns BITFIT_ROW_OK, or the check that failed as a bitfit_row_fault, or BITFIT_ROW_NULL_ARGUMENT; `*row` is written
 * only when it is 0. `data` may be NULL when size is 0, and is then a truncated row. */
int bitfit_row_read(const void* data, size_t size, const uint8_t* layout_digest, uint32_t bias_count, bitfit_row* row);

/* A few words in English for such a number. They live as long as the program. */
const char* bitfit_row_status_text(int status);

/* Value i of the payload as a float; NaN where row is NULL. i must be below payload_size divided by the size of a
 * value. */
float bitfit_row_value(const bitfit_row* row, size_t i);

/* Sessions. */

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
