// Text from outside (names, paths, what another library says) as it may stand in a message: a terminal obeys none of
// it.

#ifndef BITFIT_SRC_SHOWN_H
#define BITFIT_SRC_SHOWN_H

#include <cstddef>
#include <string>
#include <string_view>

namespace bitfit {

// Where the UTF-8 character at `at` ends, and its code in `*code`; `at` where the bytes there are none.
std::size_t end_of_character(std::string_view text, std::size_t at, char32_t* code) noexcept;

// Whether it is one of C0, DEL, C1, U+2028 and U+2029, which no name may have.
bool is_control_character(char32_t code) noexcept;

// The text with escapes for control characters, for invisible ones that turn or hide others, and for bytes that are not
// UTF-8. It is cut after about `limit` characters, and its rest is then not looked at.
std::string shown(std::string_view text, std::size_t limit = 100);

// For a whole message, in which each name has been cut already.
inline constexpr std::size_t longest_message = 4000;

}  // namespace bitfit

#endif  // BITFIT_SRC_SHOWN_H
