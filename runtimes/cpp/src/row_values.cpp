#include "row_values.h"

#include "failure.h"

#include <algorithm>
#include <cmath>
#include <limits>

namespace bitfit {

namespace {

std::size_t stride_of(const std::vector<std::int64_t>& shape, std::size_t axis) {
  return product({shape.begin() + static_cast<std::ptrdiff_t>(axis) + 1, shape.end()});
}

}  // namespace

std::size_t product(const std::vector<std::int64_t>& shape) {
  std::size_t size = 1;
  for (const std::int64_t dimension : shape) size = multiply({size, static_cast<std::size_t>(dimension)});
  return size;
}

void copy_common(const float* from, const std::vector<std::int64_t>& from_shape, float* to,
                 const std::vector<std::int64_t>& to_shape, std::size_t axis) {
  const auto common = static_cast<std::size_t>(std::min(from_shape[axis], to_shape[axis]));
  if (axis + 1 == to_shape.size()) {
    std::copy_n(from, common, to);
    return;
  }
  const std::size_t from_stride = stride_of(from_shape, axis), to_stride = stride_of(to_shape, axis);
  for (std::size_t i = 0; i < common; ++i) {
    copy_common(from + i * from_stride, from_shape, to + i * to_stride, to_shape, axis + 1);
  }
}

void write_row(const BiasRowView& row, const Layout& layout, std::int64_t labels, float* biases,
               const std::vector<float*>& head) {
  if (const float* const values = row.floats()) {
    std::copy_n(values, row.bias_count, biases);
  } else {
    for (std::uint32_t i = 0; i < row.bias_count; ++i) biases[i] = row.bias(i);
  }
  std::vector<float> values;  // where the row has no floats
  for (std::size_t t = 0; t < layout.head.size(); ++t) {
    const std::vector<std::int64_t> shape = layout.head[t].resolve(labels);
    std::fill_n(head[t], product(shape), 0.0f);
    const HeadTensor& tensor = row.heads[t];
    if (tensor.size == 0) continue;
    const float* from = row.floats() ? row.floats() + tensor.offset : nullptr;
    if (from == nullptr) {
      values.resize(tensor.size);
      for (std::size_t i = 0; i < tensor.size; ++i) values[i] = row.head(t, i);
      from = values.data();
    }
    copy_common(from, {tensor.dim, tensor.dim + tensor.rank}, head[t], shape);
  }
}

std::size_t to_integers(const float* values, const std::vector<float>& scales, std::int32_t* integers) {
  constexpr double least = std::numeric_limits<std::int32_t>::min(), most = std::numeric_limits<std::int32_t>::max();
  std::size_t saturated = 0;
  for (std::size_t i = 0; i < scales.size(); ++i) {
    const double steps = std::nearbyint(double{values[i]} / double{scales[i]});
    saturated += steps < least || steps > most ? 1 : 0;
    integers[i] = static_cast<std::int32_t>(std::clamp(steps, least, most));
  }
  return saturated;
}

InputArray floats_at(const char* name, const float* values, const std::vector<std::int64_t>& shape) {
  return {name, ElementType::float32, values, shape.data(), shape.size()};
}

}  // namespace bitfit
