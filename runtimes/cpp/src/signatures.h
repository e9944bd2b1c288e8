// Who made a file: detached Ed25519 signatures, FILE.sig. docs/files.md specifies them.

#ifndef BITFIT_SRC_SIGNATURES_H
#define BITFIT_SRC_SIGNATURES_H

#include "read_file.h"

#include <array>
#include <cstdint>
#include <string>
#include <vector>

namespace bitfit {

using PublicKey = std::array<std::uint8_t, 32>;

// The keys whose signatures a host accepts.
class TrustedKeys {
 public:
  // Of each key its 64 hexadecimal digits, or the path of a file that has these. Fails with a usage_error: there
  // is none, one is no public key, or this library was built without signatures.
  explicit TrustedKeys(const std::vector<std::string>& keys);

  // Looks at the signature beside `path`, of the bytes that were read from there. Fails with a signature_error.
  void check(const Bytes& data, const std::string& path) const;

 private:
  std::vector<PublicKey> keys_;
};

}  // namespace bitfit

#endif  // BITFIT_SRC_SIGNATURES_H
