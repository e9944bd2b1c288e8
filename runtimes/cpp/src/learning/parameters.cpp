#include "learning/parameters.h"

#include "failure.h"
#include "row_values.h"

#include <algorithm>

namespace bitfit {
namespace {

constexpr double head_deviation = 0.02;  // of a new head's weights: that of BERT, and of most encoders after it
constexpr std::int64_t one_slot[] = {1};

bool is_learnt(const std::string& name) noexcept { return name != head_pooling_input && name != head_choice_input; }

bool ends_with(const std::string& name, std::string_view end) noexcept {
  return name.size() >= end.size() && name.compare(name.size() - end.size(), end.size(), end) == 0;
}

std::size_t values_in(const std::vector<std::uint32_t>& shape) {
  std::size_t size = 1;
  for (const std::uint32_t dimension : shape) size = multiply({size, dimension});
  return size;
}

}  // namespace

RowData with_new_head(const RowData& row, const Layout& layout, ProblemType type, std::uint32_t labels,
                      std::uint64_t seed) {
  NumpyRandom random({seed});
  RowData made = row;
  made.problem_type = type;
  made.labels = labels;
  made.values.resize(row.bias_count);
  const float* old = row.values.data() + row.bias_count;
  for (std::size_t t = 0; t < layout.head.size(); ++t) {
    const HeadEntry& entry = layout.head[t];
    const std::size_t old_size = values_in(row.head[t]);
    for (std::size_t axis = 0; axis < entry.shape.size(); ++axis) {
      if (entry.shape[axis] == HeadEntry::labels) made.head[t][axis] = labels;
    }
    const std::size_t size = values_in(made.head[t]);
    if (!is_learnt(entry.name) || size == 0) {
      made.values.insert(made.values.end(), old, old + old_size);
    } else {
      const bool is_weight = ends_with(entry.name, ".weight");
      for (std::size_t i = 0; i < size; ++i) {
        made.values.push_back(is_weight ? static_cast<float>(head_deviation * random.standard_normal()) : 0.0f);
      }
    }
    old += old_size;
  }
  return made;
}

RowParameters::RowParameters(RowData of, const Manifest& manifest)
    : row(std::move(of)), in_table_(manifest.layout_kind == LayoutKind::table) {
  if (manifest.layout_kind == LayoutKind::named) {
    fail(StatusCode::usage_error, "the bundle has the layout named, expected table or packed to learn");
  }
  std::size_t first = 0;
  const auto add = [&](const std::string& name, std::vector<std::int64_t> shape, std::size_t size) {
    Input input{name, {}, std::move(shape), first, {}};
    if (size == 0) {
      input.absent.resize(product(input.shape));
    } else if (is_learnt(name)) {
      input.gradient = gradient_prefix + name;
      learnt_.push_back({first, size});
    }
    if (in_table_) input.shape.insert(input.shape.begin(), 1);
    inputs_.push_back(std::move(input));
    first += size;
  };
  add(in_table_ ? bias_table_input : packed_bias_input, {row.bias_count}, row.bias_count);
  for (std::size_t t = 0; t < manifest.layout.head.size(); ++t) {
    const HeadEntry& entry = manifest.layout.head[t];
    add(entry.name, entry.resolve(row.labels), values_in(row.head[t]));
  }
}

std::vector<InputArray> RowParameters::inputs() const {
  std::vector<InputArray> arrays;
  if (in_table_) arrays.push_back({task_ids_input, ElementType::int64, &slot_, one_slot, 1});
  for (const Input& input : inputs_) {
    const float* const values = input.absent.empty() ? row.values.data() + input.first : input.absent.data();
    arrays.push_back(floats_at(input.name.c_str(), values, input.shape));
  }
  return arrays;
}

std::vector<OutputArray> RowParameters::gradients(float* values) const {
  std::vector<OutputArray> arrays;
  for (const Input& input : inputs_) {
    if (input.gradient.empty()) continue;
    arrays.push_back({input.gradient.c_str(), values + input.first, input.shape.data(), input.shape.size()});
  }
  return arrays;
}

}  // namespace bitfit
