// The frozen model: ONNX Runtime's session on model.onnx, compared with the manifest.

#ifndef BITFIT_SRC_MODEL_H
#define BITFIT_SRC_MODEL_H

#include <bitfit/session.h>

#include "manifest.h"
#include "read_file.h"

#include <onnxruntime_cxx_api.h>
#include <string>
#include <vector>

namespace bitfit {

// The inputs of one run by name. Names and values belong to somebody else.
struct Feeds {
  std::vector<const char*> names;
  std::vector<const OrtValue*> values;

  void add(const char* name, const OrtValue* value) {
    names.push_back(name);
    values.push_back(value);
  }
  void clear() noexcept {
    names.clear();
    values.clear();
  }
};

// ONNX Runtime's word for ordinary memory.
const OrtMemoryInfo* cpu_memory();

// A tensor over memory that stays where it is for as long as the tensor is used, and is not written to as an input.
template <class Value>
Ort::Value tensor_over(const Value* values, std::size_t count, const std::int64_t* shape, std::size_t rank) {
  const auto* const memory = cpu_memory();
  return Ort::Value::CreateTensor<Value>(memory, const_cast<Value*>(values), count, shape, rank);
}

class Model {
 public:
  // `bytes` are those of model.onnx in `folder`; its weights lie beside it. Fails with a bundle_error where the model
  // cannot be loaded or is not the one that the manifest describes.
  Model(const std::string& folder, const Bytes& bytes, const Manifest& manifest, int threads);

  // The number of labels that the head inputs have, where it is fixed; else 0.
  std::int64_t fixed_labels() const noexcept { return fixed_labels_; }

  // Run the model; its output `name` goes into `output`, a tensor of the right shape. An input_error where ONNX Runtime
  // refuses an input, a bundle_error for its other failures.
  void run(const OrtRunOptions* options, const Feeds& feeds, const char* name, OrtValue* output) const;

 private:
  Ort::Env env_;
  Ort::Session session_;
  std::int64_t fixed_labels_ = 0;
};

}  // namespace bitfit

#endif  // BITFIT_SRC_MODEL_H
