// How a tokenizer turns a stretch of text into ids: in three steps, the same ones in each scheme.

#ifndef BITFIT_SRC_SCHEME_H
#define BITFIT_SRC_SCHEME_H

#include "record.h"
#include "unicode.h"

#include <cstdint>
#include <memory>
#include <vector>

namespace bitfit {

// A part of a Characters.
struct Stretch {
  const Character* first;
  const Character* last;  // one beyond

  std::size_t size() const noexcept { return static_cast<std::size_t>(last - first); }
  bool empty() const noexcept { return first == last; }
};

inline Stretch stretch_of(const Characters& text) noexcept { return {text.data(), text.data() + text.size()}; }

class Scheme {
 public:
  virtual ~Scheme() = default;

  // The text as the model knows it.
  virtual Characters normalize(Stretch text) const = 0;

  // Cut normalised text into words. Each is part of `text`, which the scheme may change before. `in_list` says that the
  // text is a word of a list, or a part of one.
  virtual std::vector<Stretch> split(Characters* text, bool in_list) const = 0;

  // Append the ids of one word.
  virtual void append_ids(Stretch word, std::vector<std::int64_t>* ids) const = 0;

  virtual std::int64_t largest_id() const noexcept = 0;
};

// These fail with a bundle_error that names the component that they don't know. `file` is the whole tokenizer.json.
std::unique_ptr<Scheme> make_wordpiece(const Record& file);
std::unique_ptr<Scheme> make_byte_level(const Record& file);

}  // namespace bitfit

#endif  // BITFIT_SRC_SCHEME_H
