#include "unicode.h"

#include "failure.h"

#include <algorithm>
#include <iterator>
#include <vector>

namespace bitfit {
namespace {

struct Range {
  char32_t first, last;
};

struct Shift {
  char32_t first, last;
  std::int32_t delta;
};

struct Decomposition {
  char32_t code;
  std::uint16_t start, count;  // in `decomposed`
};

struct CombiningClass {
  char32_t first, last;
  std::uint8_t value;
};

#include "unicode_tables.inc"

// The entry whose range has the code, or null.
template <class Entry, std::size_t size>
const Entry* find(const Entry (&table)[size], char32_t code) noexcept {
  const auto after = [](char32_t wanted, const Entry& entry) { return wanted < entry.first; };
  const Entry* const next = std::upper_bound(std::begin(table), std::end(table), code, after);
  if (next == std::begin(table) || code > std::prev(next)->last) return nullptr;
  return std::prev(next);
}

const Decomposition* find_decomposition(char32_t code) noexcept {
  const auto before = [](const Decomposition& entry, char32_t wanted) { return entry.code < wanted; };
  const Decomposition* const found =
      std::lower_bound(std::begin(decompositions), std::end(decompositions), code, before);
  return found != std::end(decompositions) && found->code == code ? found : nullptr;
}

std::uint8_t combining_class(char32_t code) noexcept {
  if (code < std::begin(combining_classes)->first) return 0;
  const CombiningClass* const entry = find(combining_classes, code);
  return entry == nullptr ? std::uint8_t{0} : entry->value;
}

// Hangul syllables decompose by a formula: The Unicode Standard, section 3.12.
constexpr char32_t first_syllable = 0xAC00, syllables = 11172, leads = 0x1100, vowels = 0x1161, trails = 0x11A7;
constexpr char32_t vowel_count = 21, trail_count = 28;

void append_syllable(const Character& character, Characters* out) {
  const char32_t index = character.code - first_syllable;
  const char32_t trail = index % trail_count;
  out->push_back({leads + index / (vowel_count * trail_count), character.origin});
  out->push_back({vowels + index / trail_count % vowel_count, character.origin});
  if (trail != 0) out->push_back({trails + trail, character.origin});
}

// Canonical order: marks in a row are sorted by their classes, equal ones stay in order. Origins stay where they are, as
// in the library, for which the n-th mark comes from the n-th place.
void sort_marks(Characters* text) {
  const auto is_starter = [](const Character& each) { return combining_class(each.code) == 0; };
  const auto by_class = [](char32_t left, char32_t right) { return combining_class(left) < combining_class(right); };
  std::vector<char32_t> codes;
  for (auto start = text->begin(); start != text->end();) {
    const auto first = std::find_if_not(start, text->end(), is_starter);
    start = std::find_if(first, text->end(), is_starter);
    if (start - first < 2) continue;
    codes.clear();
    std::transform(first, start, std::back_inserter(codes), [](const Character& each) { return each.code; });
    std::stable_sort(codes.begin(), codes.end(), by_class);
    std::transform(codes.begin(), codes.end(), first, first, [](char32_t code, const Character& place) {
      return Character{code, place.origin};
    });
  }
}

// The length of a sequence that starts with this byte, and the payload bits of the byte; 0 where none starts so.
int sequence_length(std::uint8_t byte, char32_t* bits) noexcept {
  if (byte < 0x80) return *bits = byte, 1;
  if (byte < 0xC2) return 0;
  if (byte < 0xE0) return *bits = byte & 0x1F, 2;
  if (byte < 0xF0) return *bits = byte & 0x0F, 3;
  if (byte < 0xF5) return *bits = byte & 0x07, 4;
  return 0;
}

bool is_scalar(char32_t code, int length) noexcept {
  constexpr char32_t least[] = {0, 0, 0x80, 0x800, 0x10000};  // a longer sequence than needed is no UTF-8
  return code >= least[length] && code <= 0x10FFFF && (code < 0xD800 || code > 0xDFFF);
}

}  // namespace

namespace unicode {

bool is_control(char32_t code) noexcept { return find(controls, code) != nullptr; }
bool is_space(char32_t code) noexcept { return find(spaces, code) != nullptr; }
bool is_punctuation(char32_t code) noexcept { return find(punctuation, code) != nullptr; }
bool is_nonspacing_mark(char32_t code) noexcept { return find(nonspacing_marks, code) != nullptr; }
bool is_letter(char32_t code) noexcept { return find(letters, code) != nullptr; }
bool is_number(char32_t code) noexcept { return find(numbers, code) != nullptr; }
bool is_regex_space(char32_t code) noexcept { return find(regex_spaces, code) != nullptr; }

// The ranges are BERT's, which leave some newer blocks out.
bool is_chinese(char32_t code) noexcept {
  return (code >= 0x4E00 && code <= 0x9FFF) || (code >= 0x3400 && code <= 0x4DBF) ||
         (code >= 0x20000 && code <= 0x2A6DF) || (code >= 0x2A700 && code <= 0x2B73F) ||
         (code >= 0x2B740 && code <= 0x2B81F) || (code >= 0x2B920 && code <= 0x2CEAF) ||
         (code >= 0xF900 && code <= 0xFAFF) || (code >= 0x2F800 && code <= 0x2FA1F);
}

Characters decompose(const Characters& text) {
  Characters parts;
  parts.reserve(text.size());
  for (const Character& each : text) {
    if (each.code < 0xC0) {  // Latin-1's first letters are the lowest that decompose
      parts.push_back(each);
    } else if (each.code >= first_syllable && each.code < first_syllable + syllables) {
      append_syllable(each, &parts);
    } else if (const Decomposition* const found = find_decomposition(each.code)) {
      for (std::size_t i = 0; i < found->count; ++i) parts.push_back({decomposed[found->start + i], each.origin});
    } else {
      parts.push_back(each);
    }
  }
  sort_marks(&parts);
  return parts;
}

Characters lower(const Characters& text) {
  Characters result;
  result.reserve(text.size());
  for (const Character& each : text) {
    if (each.code == 0x130) {  // the one character that becomes two: a capital I with a dot
      result.push_back({U'i', each.origin});
      result.push_back({0x307, each.origin});
      continue;
    }
    const Shift* const shift = find(lowercase, each.code);
    const std::int64_t delta = shift == nullptr ? 0 : shift->delta;
    result.push_back({static_cast<char32_t>(std::int64_t{each.code} + delta), each.origin});
  }
  return result;
}

}  // namespace unicode

Characters decode_utf8(std::string_view bytes, std::uint32_t origin) {
  if (bytes.size() > UINT32_MAX - origin) fail(StatusCode::input_error, "the text has 4 GB or more, expected less");
  Characters text;
  text.reserve(bytes.size());
  for (std::size_t at = 0; at < bytes.size();) {
    char32_t code = 0;
    const int length = sequence_length(static_cast<std::uint8_t>(bytes[at]), &code);
    bool good = length > 0 && static_cast<std::size_t>(length) <= bytes.size() - at;
    for (int i = 1; good && i < length; ++i) {
      const auto byte = static_cast<std::uint8_t>(bytes[at + static_cast<std::size_t>(i)]);
      good = (byte & 0xC0) == 0x80;
      code = (code << 6) | (byte & 0x3F);
    }
    if (!good || !is_scalar(code, length)) {
      fail(StatusCode::input_error, text_of("the text has no character at byte ", at, ", expected UTF-8"));
    }
    text.push_back({code, origin++});
    at += static_cast<std::size_t>(length);
  }
  return text;
}

void append_utf8(char32_t code, std::string* out) {
  const auto put = [out](char32_t byte) { out->push_back(static_cast<char>(static_cast<unsigned char>(byte))); };
  if (code < 0x80) return put(code);
  if (code < 0x800) {
    put(0xC0 | (code >> 6));
  } else if (code < 0x10000) {
    put(0xE0 | (code >> 12));
    put(0x80 | ((code >> 6) & 0x3F));
  } else {
    put(0xF0 | (code >> 18));
    put(0x80 | ((code >> 12) & 0x3F));
    put(0x80 | ((code >> 6) & 0x3F));
  }
  put(0x80 | (code & 0x3F));
}

}  // namespace bitfit
