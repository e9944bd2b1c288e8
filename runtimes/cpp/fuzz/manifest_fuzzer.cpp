// Any bytes are a manifest or a failure that says why.

#include "failure.h"
#include "manifest.h"

#include <cstdlib>

extern "C" int LLVMFuzzerTestOneInput(const std::uint8_t* data, std::size_t size) {
  const std::string_view bytes(reinterpret_cast<const char*>(data), size);
  const bitfit::Status status = bitfit::guard([bytes] {
    const bitfit::Manifest manifest = bitfit::parse_manifest(bytes, "manifest.json");
    if (manifest.layout.bias_count == 0) std::abort();
  });
  if (!status.ok() && (status.code != bitfit::StatusCode::bundle_error || status.message.empty())) std::abort();
  return 0;
}
