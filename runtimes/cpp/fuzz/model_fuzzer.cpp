// Any bytes are an ONNX model, of which the files that it names are found, or a failure that says why.

#include "external_data.h"
#include "failure.h"

#include <cstdint>
#include <cstdlib>

extern "C" int LLVMFuzzerTestOneInput(const std::uint8_t* data, std::size_t size) {
  const std::string_view bytes(reinterpret_cast<const char*>(data), size);
  const bitfit::Status status = bitfit::guard([bytes] {
    const bitfit::ExternalFiles found = bitfit::external_files(bytes);
    for (const std::string& file : found.weights) {
      if (file.size() > bytes.size()) std::abort();
    }
    for (const std::string& file : found.binaries) {
      if (file.size() > bytes.size()) std::abort();
    }
  });
  if (!status.ok() && (status.code != bitfit::StatusCode::bundle_error || status.message.empty())) std::abort();
  return 0;
}
