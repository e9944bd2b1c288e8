// How many threads a caller may ask for.

#ifndef BITFIT_SRC_THREADS_H
#define BITFIT_SRC_THREADS_H

#include "failure.h"

#include <algorithm>
#include <thread>

namespace bitfit {

// A usage_error that names the option. More threads than a few per core only wait for each other, and ask the system
// for what it may not have.
inline void check_threads(const char* option, int threads) {
  constexpr unsigned per_core = 4;
  const unsigned most = per_core * std::max(std::thread::hardware_concurrency(), 1u);
  if (threads < 0) fail(StatusCode::usage_error, text_of(option, " is ", threads, ", expected 0 or more"));
  if (static_cast<unsigned>(threads) <= most) return;
  fail(StatusCode::usage_error,
       text_of(option, " is ", threads, ", expected at most ", most, ", ", per_core, " per core of this machine"),
       "pass one thread per core; more are rarely faster");
}

}  // namespace bitfit

#endif  // BITFIT_SRC_THREADS_H
