// The files that an ONNX model names: of its weights, https://onnx.ai/onnx/repo-docs/ExternalData.html, and of what was
// compiled for an accelerator.

#ifndef BITFIT_SRC_EXTERNAL_DATA_H
#define BITFIT_SRC_EXTERNAL_DATA_H

#include <set>
#include <string>
#include <string_view>
#include <vector>

namespace bitfit {

// As the model names them.
struct ExternalFiles {
  std::set<std::string> weights;      // that tensors anywhere in the model have their data in
  std::vector<std::string> binaries;  // that its nodes load as context binaries: their attribute ep_cache_context
};

// `model` are the bytes of an ONNX file. Fails with a bundle_error where they are not one; what a reader of ONNX does
// not know is skipped.
ExternalFiles external_files(std::string_view model);

}  // namespace bitfit

#endif  // BITFIT_SRC_EXTERNAL_DATA_H
