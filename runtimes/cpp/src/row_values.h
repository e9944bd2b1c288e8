// A row's values where the model's inputs want them.

#ifndef BITFIT_SRC_ROW_VALUES_H
#define BITFIT_SRC_ROW_VALUES_H

#include "bitfit/bias_row.h"
#include "bitfit/engine.h"
#include "manifest.h"

#include <cstddef>
#include <cstdint>
#include <vector>

namespace bitfit {

// The number of values of a shape. Fails where std::size_t cannot hold it, before anything of that size is made.
std::size_t product(const std::vector<std::int64_t>& shape);

// Copy what two tensors of one rank have in common, from the start of each dimension from `axis` on.
void copy_common(const float* from, const std::vector<std::int64_t>& from_shape, float* to,
                 const std::vector<std::int64_t>& to_shape, std::size_t axis = 0);

// A row's values, as the model's inputs want them: the biases, then each head tensor in the shape for this many labels.
// What the row's head lacks of these shapes is zero.
void write_row(const BiasRowView& row, const Layout& layout, std::int64_t labels, float* biases,
               const std::vector<float*>& head);

// Biases as int32: round(value / scale) for each scale, saturating. Returns the number of values that saturate.
std::size_t to_integers(const float* values, const std::vector<float>& scales, std::int32_t* integers);

// An input of floats; name, values and shape stay the caller's.
InputArray floats_at(const char* name, const float* values, const std::vector<std::int64_t>& shape);

}  // namespace bitfit

#endif  // BITFIT_SRC_ROW_VALUES_H
