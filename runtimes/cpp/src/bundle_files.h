// The files of a bundle but its manifest and its rows, compared with the manifest.

#ifndef BITFIT_SRC_BUNDLE_FILES_H
#define BITFIT_SRC_BUNDLE_FILES_H

#include "manifest.h"
#include "read_file.h"

#include <map>
#include <string>
#include <vector>

namespace bitfit {

// What was checked. One program and the tokenizer are kept as they were read, to be used; the other files are read in
// passing.
class BundleFiles {
 public:
  // Compares every file that the manifest names with its size and CRC-32C, and its SHA-256 where `check_hashes` is set;
  // and the files of the weights of `program`, one of the manifest's, with the names there. Fails with a bundle_error.
  BundleFiles(const std::string& folder, const Manifest& manifest, const ProgramRecord& program, bool check_hashes);

  Bytes model;  // of the program
  Bytes tokenizer;

  // Fails with a bundle_error where a file that was read in passing is not what it was: ONNX Runtime opens the files of
  // weights by name, after they were checked.
  void check_unchanged() const;

 private:
  std::string folder_;
  std::map<std::string, std::vector<std::uint64_t>> identities_;  // by path in the bundle
};

}  // namespace bitfit

#endif  // BITFIT_SRC_BUNDLE_FILES_H
