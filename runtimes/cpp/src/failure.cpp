#include "failure.h"

#include <exception>
#include <new>

namespace bitfit {

Status status_of_exception() noexcept {
  try {
    try {
      throw;
    } catch (Failure& failure) {
      return std::move(failure.status);
    } catch (const std::bad_alloc&) {
      return {StatusCode::failure, "out of memory"};  // short enough to need no heap
    } catch (const std::exception& error) {
      return {StatusCode::failure, shown(error.what(), longest_message)};
    }
  } catch (...) {
    return {StatusCode::failure};
  }
}

}  // namespace bitfit
