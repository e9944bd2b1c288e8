// Inside the library a failure is an exception. `guard` stands at every public function and makes it a Status.

#ifndef BITFIT_SRC_FAILURE_H
#define BITFIT_SRC_FAILURE_H

#include <bitfit/status.h>

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

[[noreturn]] inline void fail(StatusCode code, std::string message, std::string hint = {}) {
  throw Failure{Status{code, std::move(message), std::move(hint)}};
}

// About one row of a batch or one of several texts. The message goes on after "row 3".
[[noreturn]] inline void fail_row(std::size_t row, std::string message, std::string hint = {}) {
  Status status{StatusCode::input_error, std::move(message), std::move(hint)};
  status.row = static_cast<std::ptrdiff_t>(row);
  throw Failure{std::move(status)};
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
