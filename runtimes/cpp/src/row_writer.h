// A bias row in memory that can be changed, and its file. docs/bias_row.md.

#ifndef BITFIT_SRC_ROW_WRITER_H
#define BITFIT_SRC_ROW_WRITER_H

#include <bitfit/bias_row.h>

#include <array>
#include <cstdint>
#include <string>
#include <vector>

namespace bitfit {

struct RowData {
  std::string task;
  ProblemType problem_type = ProblemType::single_label;
  std::uint32_t labels = 0;
  std::uint32_t task_version = 1;
  std::array<std::uint8_t, layout_digest_size> layout_digest = {};
  std::uint32_t bias_count = 0;
  std::vector<std::vector<std::uint32_t>> head;  // the shape of each tensor
  std::vector<float> values;                     // as in a file: the biases, then the head tensors
};

// A copy of a row that was checked.
RowData copy_row(const BiasRowView& row);

// The row file's bytes, with values of this type. Fails with a row_error where a reader would refuse them, as where a
// value is not finite.
std::vector<std::uint8_t> encode_row(const RowData& row, Dtype dtype);

// The binary16 that is nearest, by its bits; of two, the even one.
std::uint16_t float16_of(float value) noexcept;

}  // namespace bitfit

#endif  // BITFIT_SRC_ROW_WRITER_H
