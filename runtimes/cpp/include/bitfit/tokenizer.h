// Text to token ids: the ids that Hugging Face's tokenizers gives, read from the same tokenizer.json.
//
// It reads BERT's WordPiece files (BertNormalizer, BertPreTokenizer) and the byte-level BPE files of GPT-2 and RoBERTa.
// Any other component is refused by name when the file is opened, so no text ever gets ids that are almost right.

#ifndef BITFIT_TOKENIZER_H
#define BITFIT_TOKENIZER_H

#include <bitfit/status.h>

#include <cstddef>
#include <cstdint>
#include <memory>
#include <optional>
#include <string>
#include <vector>

namespace bitfit {

// A text, a pair of texts, or a text as the list of its words. UTF-8.
struct Text {
  std::string first;
  std::optional<std::string> second = std::nullopt;
  std::vector<std::string> words = {};  // where there are any, `first` and `second` are not read
};

// A token, and the word that it comes from.
struct Token {
  static constexpr std::int32_t none = -1;

  std::int64_t id = 0;
  std::int32_t type_id = 0;
  std::int32_t side = none;  // 0 for the text, 1 for the second one of a pair, none for a token that the model wants
  std::int32_t word = none;  // the number of the word in its side
  // The characters of that word in its side, from start to before end, without spaces around it; none for a word that is
  // nothing but spaces. Words of a list count as if with a space between each two.
  std::uint32_t start = 0;
  std::uint32_t end = 0;

  bool has_text() const noexcept { return start < end; }
};

using Tokens = std::vector<Token>;

// Any number of threads may use one tokenizer.
class Tokenizer {
 public:
  // Reads `path`, a tokenizer.json. `*out` is written only when the status is ok; else it is a bundle_error.
  static Status open(const std::string& path, std::unique_ptr<Tokenizer>* out) noexcept;

  // As `open`, from the bytes of the file. `where` names them in messages.
  static Status parse(std::string_view bytes, const std::string& where, std::unique_ptr<Tokenizer>* out) noexcept;

  ~Tokenizer();
  Tokenizer(const Tokenizer&) = delete;
  Tokenizer& operator=(const Tokenizer&) = delete;

  // All tokens of a text, with the special ones, however long it is. An input_error where the text is not UTF-8, and a
  // usage_error where it is a list of words with a second text.
  Status encode(const Text& text, Tokens* out) const noexcept;

  // The largest id that `encode` can give.
  std::int64_t largest_id() const noexcept;

 private:
  struct Parts;
  explicit Tokenizer(std::unique_ptr<Parts> parts) noexcept;
  std::unique_ptr<Parts> parts_;
};

// Cut tokens to at most `limit`: the end of the longer side first, the special tokens stay. It is what the Python
// package does with truncate=True. A usage_error where there are more special tokens than that.
Status truncate(Tokens* tokens, std::size_t limit) noexcept;

// The windows in which a pair is read whose second text is too long: each has the first text, the special tokens and a
// stretch of the second text, `limit` tokens at most; neighbours share `overlap` of these where there is room. An
// input_error where the second text has no word, or no room.
Status cut_windows(const Tokens& pair, std::size_t limit, std::size_t overlap, std::vector<Tokens>* out) noexcept;

}  // namespace bitfit

#endif  // BITFIT_TOKENIZER_H
