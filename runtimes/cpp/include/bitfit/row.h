/* Bias rows for C, without the rest of the library: it needs no heap and no I/O. src/c_row.cpp is all that it is built
 * from.
 *
 *     bitfit_row row;
 *     int status = bitfit_row_read(data, size, layout_digest, bias_count, &row);
 *     if (status != BITFIT_ROW_OK) return refuse(bitfit_row_status_text(status));
 *     for (uint32_t i = 0; i < row.bias_count; ++i) biases[i] = bitfit_row_value(&row, i);
 */

#ifndef BITFIT_ROW_H
#define BITFIT_ROW_H

#include <stddef.h>
#include <stdint.h>
#include "row_format.h"

#ifdef __cplusplus
extern "C" {
#endif

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

#ifdef __cplusplus
}
#endif

#endif /* BITFIT_ROW_H */
