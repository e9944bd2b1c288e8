// What became of a call: the one way in which this library reports that something went wrong. No exception leaves it.

#ifndef BITFIT_STATUS_H
#define BITFIT_STATUS_H

#include <bitfit/bias_row.h>

#include <cstddef>
#include <string>

namespace bitfit {

// Who is at fault. The names are those of the Python package's errors.
enum class StatusCode : std::uint8_t {
  ok = 0,
  bundle_error = 1,  // a bundle, or a file of it, that is missing, damaged or made for another one
  row_error = 2,     // a bias row that is refused; Status::row_status says why
  input_error = 3,   // what the caller wants to run or to load: ids, texts, a task's name
  usage_error = 4,   // an option that cannot be
  failure = 5,       // anything else, such as memory that is not there
  signature_error = 6,  // a file that no trusted key has signed; Status::signature_fault says why
};

// Why a signature does not make a file trusted.
enum class SignatureFault : std::uint8_t {
  none = 0,
  missing = 1,    // there is none
  malformed = 2,  // it cannot be read, or is no signature
  untrusted = 3,  // it is by a key that is not trusted
  wrong = 4,      // it was made for other bytes
};

// A code, and for a person: what was found and what was expected, and what to do about it. Empty strings when ok.
struct [[nodiscard]] Status {
  static constexpr std::ptrdiff_t no_item = -1;

  StatusCode code = StatusCode::ok;
  std::string message = {};
  std::string hint = {};
  RowStatus row_status = RowStatus::ok;  // only a row_error has another one
  SignatureFault signature_fault = SignatureFault::none;  // only a signature_error has another one
  std::ptrdiff_t item = no_item;         // of a batch or a list of texts, where the message is about one of them

  bool ok() const noexcept { return code == StatusCode::ok; }

  // The whole message: with the item in front, where it is about one.
  std::string text() const { return item == no_item ? message : "item " + std::to_string(item) + " " + message; }
};

}  // namespace bitfit

#endif  // BITFIT_STATUS_H
