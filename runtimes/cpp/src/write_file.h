// Files that nobody meets half of.

#ifndef BITFIT_SRC_WRITE_FILE_H
#define BITFIT_SRC_WRITE_FILE_H

#include <cstddef>
#include <string>

namespace bitfit {

// Write a file in one step: under the name `.<name>.bitfit-new` beside it, synced, and renamed. What is at `path` is
// replaced, or stays as it was where that fails, which is a failure that names the reason. One writer at a time.
void write_file(const std::string& path, const void* data, std::size_t size);

}  // namespace bitfit

#endif  // BITFIT_SRC_WRITE_FILE_H
