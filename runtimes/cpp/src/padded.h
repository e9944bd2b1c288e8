// Sequences of tokens as one batch, padded to the longest.

#ifndef BITFIT_SRC_PADDED_H
#define BITFIT_SRC_PADDED_H

#include <bitfit/session.h>

#include <cstddef>
#include <cstdint>
#include <vector>

namespace bitfit {

struct Padded {
  std::vector<std::int64_t> ids, mask, types;
  Batch batch;

  // Room for sequences of at most `longest` tokens, all of it padding.
  void assign(std::size_t items, std::size_t longest, std::int64_t pad_token_id) {
    const std::size_t count = items * longest;
    ids.assign(count, pad_token_id);
    mask.assign(count, 0);
    types.assign(count, 0);
    batch = {ids.data(), mask.data(), types.data(), items, longest};
  }

  void set(std::size_t item, std::size_t place, std::int64_t id, std::int64_t type) noexcept {
    const std::size_t at = item * batch.tokens + place;
    ids[at] = id;
    mask[at] = 1;
    types[at] = type;
  }
};

}  // namespace bitfit

#endif  // BITFIT_SRC_PADDED_H
