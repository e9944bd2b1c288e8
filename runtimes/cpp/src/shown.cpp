#include "shown.h"

#include <cstdio>

namespace bitfit {
namespace {

bool is_between(char32_t code, char32_t first, char32_t last) noexcept { return code >= first && code <= last; }

bool is_invisible(char32_t code) noexcept {
  return is_control_character(code) || is_between(code, 0x200B, 0x200F) || is_between(code, 0x202A, 0x202E) ||
         is_between(code, 0x2060, 0x206F) || code == 0xFEFF;
}

std::string escape(char32_t code) {
  char text[16];
  std::snprintf(text, sizeof text, code < 0x100 ? "\\x%02x" : "\\u%04x", static_cast<unsigned>(code));
  return text;
}

}  // namespace

std::size_t end_of_character(std::string_view text, std::size_t at, char32_t* code) noexcept {
  const auto byte = [&](std::size_t place) { return static_cast<unsigned char>(text[place]); };
  const unsigned char first = byte(at);
  *code = first;
  if (first < 0x80) return at + 1;
  const std::size_t size = first >= 0xF0 ? 4 : first >= 0xE0 ? 3 : 2;
  if (first < 0xC2 || first > 0xF4 || text.size() - at < size) return at;
  *code = first & (0x7Fu >> size);
  for (std::size_t i = 1; i < size; ++i) {
    if ((byte(at + i) & 0xC0u) != 0x80) return at;
    *code = *code << 6 | (byte(at + i) & 0x3Fu);
  }
  constexpr char32_t least[] = {0, 0, 0x80, 0x800, 0x10000};
  const bool valid = *code >= least[size] && *code <= 0x10FFFF && !is_between(*code, 0xD800, 0xDFFF);
  return valid ? at + size : at;
}

bool is_control_character(char32_t code) noexcept {
  return code < 0x20 || is_between(code, 0x7F, 0x9F) || code == 0x2028 || code == 0x2029;
}

std::string shown(std::string_view text, std::size_t limit) {
  std::string out;
  std::size_t count = 0;
  for (std::size_t at = 0; at < text.size();) {
    if (count >= limit) return out + "...";
    char32_t code = 0;
    const std::size_t end = end_of_character(text, at, &code);
    if (end == at) {
      out += escape(static_cast<unsigned char>(text[at]));
    } else if (is_invisible(code)) {
      out += escape(code);
    } else {
      out += text.substr(at, end - at);
    }
    count += end == at || is_invisible(code) ? 4u : 1u;
    at = end == at ? at + 1 : end;
  }
  return out;
}

}  // namespace bitfit
