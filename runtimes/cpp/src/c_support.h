// What the parts of the C API share: codes, messages and options.

#ifndef BITFIT_SRC_C_SUPPORT_H
#define BITFIT_SRC_C_SUPPORT_H

#include <bitfit/bitfit.h>
#include <bitfit/session.h>

#include "failure.h"

#include <algorithm>
#include <cstring>
#include <memory>
#include <string>

struct bitfit_session {
  std::unique_ptr<bitfit::Session> session;
};

namespace bitfit {

// Cut where there is no room, but not within a character.
inline void copy_text(const std::string& text, char* out, size_t size) {
  if (out == nullptr || size == 0) return;
  size_t length = std::min(text.size(), size - 1);
  while (length < text.size() && length > 0 && (static_cast<unsigned char>(text[length]) & 0xC0) == 0x80) --length;
  std::copy_n(text.data(), length, out);
  out[length] = '\0';
}

inline bitfit_code report(const Status& status, bitfit_error* error) noexcept {
  const auto code = static_cast<bitfit_code>(status.code);
  if (error == nullptr) return code;
  error->code = code;
  error->message[0] = error->hint[0] = '\0';
  const Status copied = guard([&] {
    if (status.ok()) return;  // no allocation in a run that went well
    copy_text(status.text(), error->message, sizeof error->message);
    copy_text(status.hint, error->hint, sizeof error->hint);
  });
  return copied.ok() ? code : static_cast<bitfit_code>(copied.code);
}

inline void require(const void* argument, const char* name) {
  if (argument == nullptr) fail(StatusCode::usage_error, text_of(name, " is NULL, expected one"));
}

// Options as this release knows them: what an older caller's struct lacks is 0, and so must be what a newer one's has
// beyond.
template <class Options>
Options known(const Options* options) {
  require(options, "options");
  if (options->size < sizeof options->size) {
    fail(StatusCode::usage_error,
         text_of("the size of options is ", options->size, ", expected sizeof of their struct"));
  }
  const char* const bytes = reinterpret_cast<const char*>(options);
  Options copied = {};
  std::memcpy(&copied, bytes, std::min(options->size, sizeof copied));
  for (size_t at = sizeof copied; at < options->size; ++at) {
    if (bytes[at] == 0) continue;
    fail(StatusCode::usage_error, "options are set that this release of the library does not know",
         "use the library that the header came with");
  }
  return copied;
}

inline std::string text_or_empty(const char* text) { return text == nullptr ? std::string() : std::string(text); }

}  // namespace bitfit

#endif  // BITFIT_SRC_C_SUPPORT_H
