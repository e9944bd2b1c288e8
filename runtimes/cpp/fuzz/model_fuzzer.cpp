// Any bytes are an ONNX model, of which the files of its weights are found, or a failure that says why.

#include "external_data.h"
#include "failure.h"

#include <cstdint>
#include <cstdlib>

extern "C" int LLVMFuzzerTestOneInput(const std::uint8_t* data, std::size_t size) {
  const std::string_view bytes(reinterpret_cast<const char*>(data), size);
  const bitfit::Status status = bitfit::guard([bytes] {
    for (const std::string& file : bitfit::external_files(bytes)) {
      if (file.size() > bytes.size()) std::abort();
    }
  });
  if (!status.ok() && (status.code != bitfit::StatusCode::bundle_error || status.message.empty())) std::abort();
  return 0;
}
