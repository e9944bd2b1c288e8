/* Firmware: it has a row in flash and the digest of its frozen model compiled in, and gives the biases to an
 * accelerator. It needs no operating system, no heap and no other library; compile it with c_row.cpp. */

#include <bitfit/row.h>

/* Placed by the linker script. */
extern const uint8_t row_in_flash[];
extern const uint32_t row_in_flash_size;

/* From the bundle's manifest: layout_digest, and the number of bias values. */
extern const uint8_t frozen_layout_digest[32];
extern const uint32_t frozen_bias_count;

/* The accelerator's bias memory. */
extern volatile float bias_memory[];

/* 0, or the number of the check that the row failed; the old biases stay then. */
int load_biases(void) {
  bitfit_row row;
  uint32_t i;
  int status = bitfit_row_read(row_in_flash, row_in_flash_size, frozen_layout_digest, frozen_bias_count, &row);
  if (status != 0) return status;
  for (i = 0; i < row.bias_count; ++i) bias_memory[i] = bitfit_row_value(&row, i);
  return 0;
}
