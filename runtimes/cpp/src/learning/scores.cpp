#include "learning/scores.h"

#include <algorithm>
#include <cmath>
#include <numeric>

namespace bitfit {
namespace {

// What was predicted, what was expected, and both.
struct Counts {
  std::size_t predicted = 0, expected = 0, both = 0;

  void add(bool is_predicted, bool is_expected) noexcept {
    predicted += is_predicted;
    expected += is_expected;
    both += is_predicted && is_expected;
  }

  double f1() const noexcept {
    const std::size_t total = predicted + expected;
    return total == 0 ? 0 : 2 * static_cast<double>(both) / static_cast<double>(total);
  }
};

double mean_of(const std::vector<float>& values) noexcept {
  double sum = 0;
  for (const float value : values) sum += static_cast<double>(value);
  return sum / static_cast<double>(values.size());
}

double pearson(const std::vector<float>& first, const std::vector<float>& second) noexcept {
  const double first_mean = mean_of(first), second_mean = mean_of(second);
  double product = 0, first_square = 0, second_square = 0;
  for (std::size_t i = 0; i < first.size(); ++i) {
    const double left = static_cast<double>(first[i]) - first_mean,
                 right = static_cast<double>(second[i]) - second_mean;
    product += left * right;
    first_square += left * left;
    second_square += right * right;
  }
  const double size = std::sqrt(first_square) * std::sqrt(second_square);
  return size == 0 ? 0 : product / size;
}

// The rank of each value from 1; values that are equal share the mean of theirs.
std::vector<float> ranks_of(const std::vector<float>& values) {
  std::vector<std::size_t> order(values.size());
  std::iota(order.begin(), order.end(), std::size_t{0});
  std::sort(order.begin(), order.end(), [&](std::size_t one, std::size_t other) { return values[one] < values[other]; });
  std::vector<float> ranks(values.size());
  for (std::size_t first = 0, end = 0; first < order.size(); first = end) {
    while (end < order.size() && !(values[order[first]] < values[order[end]])) ++end;
    for (std::size_t i = first; i < end; ++i) ranks[order[i]] = static_cast<float>(first + end + 1) / 2;
  }
  return ranks;
}

Scores classification(std::size_t labels, const std::vector<float>& logits, const std::vector<float>& targets) {
  std::size_t right = 0;
  Counts second;
  std::vector<float> predictions, expectations;  // whether it is the second
  const std::size_t examples = logits.size() / labels;
  const auto place_of_largest = [&](const std::vector<float>& values, std::size_t example) {
    const auto first = values.begin() + static_cast<std::ptrdiff_t>(example * labels);
    return std::max_element(first, first + static_cast<std::ptrdiff_t>(labels)) - first;
  };
  for (std::size_t example = 0; example < examples; ++example) {
    const auto predicted = place_of_largest(logits, example), expected = place_of_largest(targets, example);
    right += predicted == expected;
    second.add(predicted == 1, expected == 1);
    predictions.push_back(predicted == 1);
    expectations.push_back(expected == 1);
  }
  Scores scores{{"accuracy", static_cast<double>(right) / static_cast<double>(examples)}};
  if (labels != 2) return scores;
  scores.emplace_back("f1", second.f1());
  scores.emplace_back("matthews_correlation", pearson(predictions, expectations));
  return scores;
}

}  // namespace

Scores scores_of(ProblemType type, std::size_t labels, const std::vector<float>& logits,
                 const std::vector<float>& targets) {
  if (type == ProblemType::regression) {
    return {{"spearman", pearson(ranks_of(logits), ranks_of(targets))}, {"pearson", pearson(logits, targets)}};
  }
  if (type == ProblemType::single_label) return classification(labels, logits, targets);
  Counts counts;
  for (std::size_t i = 0; i < logits.size(); ++i) counts.add(logits[i] > 0, targets[i] == 1);
  return {{"micro_f1", counts.f1()}};
}

}  // namespace bitfit
