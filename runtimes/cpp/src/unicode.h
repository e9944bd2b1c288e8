// What the tokenizers know of characters. The tables are those of Hugging Face's library: tools/make_unicode_tables.py.

#ifndef BITFIT_SRC_UNICODE_H
#define BITFIT_SRC_UNICODE_H

#include <cstddef>
#include <cstdint>
#include <string>
#include <string_view>
#include <vector>

namespace bitfit {

// A character of a text that is being changed step by step, and the place in the original that it comes from.
struct Character {
  char32_t code;
  std::uint32_t origin;
};

using Characters = std::vector<Character>;

namespace unicode {

bool is_control(char32_t code) noexcept;          // clean_text removes it
bool is_space(char32_t code) noexcept;            // it separates words
bool is_punctuation(char32_t code) noexcept;      // it is a word of its own
bool is_chinese(char32_t code) noexcept;          // handle_chinese_chars puts spaces around it
bool is_nonspacing_mark(char32_t code) noexcept;  // strip_accents removes it
bool is_letter(char32_t code) noexcept;           // \p{L}
bool is_number(char32_t code) noexcept;           // \p{N}
bool is_regex_space(char32_t code) noexcept;      // \s

// Canonical decomposition, NFD.
Characters decompose(const Characters& text);

Characters lower(const Characters& text);

}  // namespace unicode

// Fails with an input_error where the bytes are not UTF-8. Places count characters from `origin`.
Characters decode_utf8(std::string_view bytes, std::uint32_t origin = 0);

void append_utf8(char32_t code, std::string* out);

}  // namespace bitfit

#endif  // BITFIT_SRC_UNICODE_H
