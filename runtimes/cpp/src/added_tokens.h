// Tokens that are found in a text as they are, such as [SEP] or <mask>, before anything else cuts it.

#ifndef BITFIT_SRC_ADDED_TOKENS_H
#define BITFIT_SRC_ADDED_TOKENS_H

#include "scheme.h"

#include <string>

namespace bitfit {

class AddedTokens {
 public:
  // From added_tokens of a tokenizer file. `scheme` normalises those that are looked for in normalised text.
  AddedTokens(const Record& file, const Scheme& scheme);

  // A part of a text: an added token, or ordinary text, which has no id.
  struct Part {
    static constexpr std::int64_t no_id = -1;
    Stretch text;
    std::int64_t id;
  };

  // Cut text by the tokens that are looked for in it as it is, or normalised. No part is empty.
  std::vector<Part> cut(Stretch text, bool normalized) const;

  std::int64_t largest_id() const noexcept { return largest_id_; }

 private:
  struct Entry {
    std::u32string content;
    std::int64_t id;
    bool normalized, strip_left, strip_right;
  };

  // The longest entry that the text begins with at `at`, or null.
  const Entry* match(const Character* at, const Character* end, bool normalized) const noexcept;

  std::vector<Entry> entries_;  // the longest first
  std::int64_t largest_id_ = 0;
};

}  // namespace bitfit

#endif  // BITFIT_SRC_ADDED_TOKENS_H
