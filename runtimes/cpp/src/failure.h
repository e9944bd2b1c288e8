// Inside the library a failure is an exception. `guard` stands at every public function and makes it a Status.

#ifndef BITFIT_SRC_FAILURE_H
#define BITFIT_SRC_FAILURE_H

#include <bitfit/status.h>

#include "shown.h"

#include <cstdint>
#include <initializer_list>
#include <sstream>
#include <string>
#include <utility>

namespace bitfit {

struct Failure {
  Status status;
};

inline constexpr const char* copy_again = "copy the bundle again, or export it again";

// The parts, one after the other, as text.
template <class... Parts>
std::string text_of(const Parts&... parts) {
  std::ostringstream stream;
  (stream << ... << parts);
  return stream.str();
}

// No message has control characters, wherever its parts come from.
[[noreturn]] inline void fail(StatusCode code, const std::string& message, const std::string& hint = {}) {
  throw Failure{Status{code, shown(message, longest_message), shown(hint, longest_message)}};
}

// Of a bundle, or a file of it, that is not as it was written.
[[noreturn]] inline void refuse_bundle(const std::string& message) {
  fail(StatusCode::bundle_error, message, copy_again);
}

// About one item of a batch or one of several texts. The message continues after "item 3".
[[noreturn]] inline void fail_item(std::size_t item, const std::string& message, const std::string& hint = {}) {
  Status status{StatusCode::input_error, shown(message, longest_message), shown(hint, longest_message)};
  status.item = static_cast<std::ptrdiff_t>(item);
  throw Failure{std::move(status)};
}

// The product of sizes. Fails where std::size_t cannot hold it: no memory has room for so much.
inline std::size_t multiply(std::initializer_list<std::size_t> sizes) {
  std::size_t product = 1;
  for (const std::size_t size : sizes) {
    if (size != 0 && product > SIZE_MAX / size) fail(StatusCode::failure, "out of memory: a size is out of range");
    product *= size;
  }
  return product;
}

// Go on with the failure that a public function reported, if it did.
inline void check(Status status) {
  if (!status.ok()) throw Failure{std::move(status)};
}

// Of the exception that is being handled.
Status status_of_exception() noexcept;

template <class Work>
Status guard(Work&& work) noexcept {
  try {
    work();
    return {};
  } catch (...) {
    return status_of_exception();
  }
}

}  // namespace bitfit

#endif  // BITFIT_SRC_FAILURE_H
