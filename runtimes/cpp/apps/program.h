// What the programs have in common: errors that a person reads, and output that has arrived.

#ifndef BITFIT_APPS_PROGRAM_H
#define BITFIT_APPS_PROGRAM_H

#include <bitfit/status.h>

#include "shown.h"

#include <cerrno>
#include <charconv>
#include <cstring>
#include <exception>
#include <iostream>
#include <string>
#include <utility>

struct Error {
  std::string message;
  std::string hint = {};
};

[[noreturn]] inline void refuse(std::string message, std::string hint = {}) {
  throw Error{std::move(message), std::move(hint)};
}

inline void check(const bitfit::Status& status) {
  if (!status.ok()) refuse(status.text(), status.hint);
}

// The value of an option, from 1.
inline int number_of(const std::string& option, const std::string& word) {
  int number = 0;
  const auto [end, error] = std::from_chars(word.data(), word.data() + word.size(), number);
  if (error != std::errc() || end != word.data() + word.size() || number < 1) {
    refuse(option + " is " + bitfit::shown(word) + ", expected a whole number from 1");
  }
  return number;
}

// Fails with an Error where output cannot be written, as on a full disk.
inline void flush_output() {
  if (std::cout) errno = 0;  // else a long text has failed already, for that reason
  if (std::cout.flush()) return;
  const int reason = errno;
  refuse(std::string("the output cannot be written: ") + (reason != 0 ? std::strerror(reason) : "it was refused"));
}

// Run a program. Returns its exit status: 0, or 2 when stderr says what is wrong. 1 is for verifications that fail.
template <class Work>
int run_program(Work&& work) {
  const auto report = [](const std::string& message, const std::string& hint) {
    std::cout.flush();
    std::cerr << "error: " << bitfit::shown(message, bitfit::longest_message) << '\n';
    if (!hint.empty()) std::cerr << "hint: " << bitfit::shown(hint, bitfit::longest_message) << '\n';
    return 2;
  };
  try {
    work();
    flush_output();
    return 0;
  } catch (const Error& error) {
    return report(error.message, error.hint);
  } catch (const std::exception& error) {
    return report(error.what(), {});
  }
}

#endif  // BITFIT_APPS_PROGRAM_H
