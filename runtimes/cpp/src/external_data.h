// Where an ONNX model says that its weights lie. https://onnx.ai/onnx/repo-docs/ExternalData.html

#ifndef BITFIT_SRC_EXTERNAL_DATA_H
#define BITFIT_SRC_EXTERNAL_DATA_H

#include <set>
#include <string>
#include <string_view>

namespace bitfit {

// The files that tensors anywhere in the model have their data in, as the model names them.
//
// `model` are the bytes of an ONNX file. Fails with a bundle_error where they are not one; what a reader of ONNX does
// not know is skipped.
std::set<std::string> external_files(std::string_view model);

}  // namespace bitfit

#endif  // BITFIT_SRC_EXTERNAL_DATA_H
