// JSON as both runtimes read it: RFC 8259 in UTF-8. docs/files.md says what is refused besides.

#ifndef BITFIT_SRC_JSON_H
#define BITFIT_SRC_JSON_H

#include <nlohmann/json_fwd.hpp>
#include <string>
#include <string_view>

namespace bitfit {

// Why a text is refused, as what follows the name of the file: "is not valid JSON ...".
struct JsonError {
  std::string message;
};

// Fails with a JsonError: text that is truncated, malformed, not UTF-8 or followed by more; a byte order mark; a
// repeated key; an integer that int64 cannot hold, or another number that a double cannot; more than 64 levels.
nlohmann::json parse_json(std::string_view text);

}  // namespace bitfit

#endif  // BITFIT_SRC_JSON_H
