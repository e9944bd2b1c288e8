// The plan of batches: which sequences a prediction runs together. conformance/batches has cases.

#ifndef BITFIT_SRC_BATCHES_H
#define BITFIT_SRC_BATCHES_H

#include <algorithm>
#include <cstddef>
#include <numeric>
#include <tuple>
#include <vector>

namespace bitfit {

// The items of each batch, by their places, such that neighbours in length run together.
//
// The items are sorted by group, then by length. A batch takes the next one while it is of the same group, and neither
// the number of items nor that of tokens, which is items times the longest length, goes beyond its limit. An item that
// alone has too many tokens is a batch of its own. `lengths` and `groups` have one entry per item.
template <class Group>
std::vector<std::vector<std::size_t>> plan_batches(const std::vector<std::size_t>& lengths,
                                                   const std::vector<Group>& groups, std::size_t batch_size,
                                                   std::size_t batch_tokens) {
  std::vector<std::size_t> order(lengths.size());
  std::iota(order.begin(), order.end(), std::size_t{0});
  std::stable_sort(order.begin(), order.end(), [&](std::size_t left, std::size_t right) {
    return std::tie(groups[left], lengths[left]) < std::tie(groups[right], lengths[right]);
  });
  std::vector<std::vector<std::size_t>> batches;
  for (const std::size_t place : order) {
    const bool fits = !batches.empty() && groups[batches.back()[0]] == groups[place] &&
                      batches.back().size() < batch_size &&
                      batches.back().size() < batch_tokens / std::max<std::size_t>(lengths[place], 1);
    if (!fits) batches.emplace_back();
    batches.back().push_back(place);
  }
  return batches;
}

}  // namespace bitfit

#endif  // BITFIT_SRC_BATCHES_H
