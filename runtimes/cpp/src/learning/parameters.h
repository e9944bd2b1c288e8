// A row that is learnt, as the programs' inputs and the gradients that they return.

#ifndef BITFIT_SRC_LEARNING_PARAMETERS_H
#define BITFIT_SRC_LEARNING_PARAMETERS_H

#include <bitfit/engine.h>

#include "learning/adamw.h"
#include "learning/numpy_random.h"
#include "manifest.h"
#include "row_writer.h"

#include <string>
#include <vector>

namespace bitfit {

// A row with the biases of another and a new head for so many labels. What the head reads stays as it is; weights are
// drawn from a normal distribution, biases are zero.
RowData with_new_head(const RowData& row, const Layout& layout, ProblemType type, std::uint32_t labels,
                      std::uint64_t seed);

// Not copied or moved: the programs read its values where they lie.
class RowParameters {
 public:
  // Fails with a usage_error for a layout in which nothing is learnt.
  RowParameters(RowData of, const Manifest& manifest);
  RowParameters(const RowParameters&) = delete;
  RowParameters& operator=(const RowParameters&) = delete;

  RowData row;  // a change of its values is seen by the inputs

  // The parts of row.values that are learnt: the biases and the layers of the head.
  const std::vector<Range>& learnt() const noexcept { return learnt_; }

  // The inputs that bring the row, and where the gradients of what is learnt go: `values` is laid out as row.values.
  std::vector<InputArray> inputs() const;
  std::vector<OutputArray> gradients(float* values) const;

 private:
  struct Input {
    std::string name, gradient;  // the latter is empty where nothing is learnt
    std::vector<std::int64_t> shape;
    std::size_t first;          // in row.values
    std::vector<float> absent;  // zeros, where the row lacks the tensor
  };

  std::vector<Input> inputs_;
  std::vector<Range> learnt_;
  std::int64_t slot_ = 0;
  bool in_table_;
};

}  // namespace bitfit

#endif  // BITFIT_SRC_LEARNING_PARAMETERS_H
