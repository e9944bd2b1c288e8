#include "model.h"

#include "failure.h"

#include <algorithm>
#include <map>

namespace bitfit {
namespace {

// An older one would look for weights in the working folder: it has no option for another.
static_assert(ORT_API_VERSION >= 21, "needs ONNX Runtime 1.21 or later");

// A graph input's type and shape; a dimension that is not fixed is `any`.
struct Signature {
  static constexpr std::int64_t any = -1;

  ONNXTensorElementDataType type = ONNX_TENSOR_ELEMENT_DATA_TYPE_UNDEFINED;
  std::vector<std::int64_t> shape;

  bool operator==(const Signature& other) const { return type == other.type && shape == other.shape; }
};

using Signatures = std::map<std::string, Signature>;

Signature signature_of(const Ort::TypeInfo& info) {
  const auto tensor = info.GetTensorTypeAndShapeInfo();
  Signature signature{tensor.GetElementType(), tensor.GetShape()};
  for (std::int64_t& dimension : signature.shape) dimension = dimension < 0 ? Signature::any : dimension;
  return signature;
}

std::string described(const Signature& signature) {
  std::string text = signature.type == ONNX_TENSOR_ELEMENT_DATA_TYPE_INT64   ? "int64"
                     : signature.type == ONNX_TENSOR_ELEMENT_DATA_TYPE_FLOAT ? "float32"
                                                                             : "another type";
  text += " [";
  for (std::size_t axis = 0; axis < signature.shape.size(); ++axis) {
    if (axis > 0) text += ", ";
    text += signature.shape[axis] == Signature::any ? "any" : std::to_string(signature.shape[axis]);
  }
  return text + "]";
}

// The inputs that a text becomes. The model may lack token_type_ids.
Signatures text_inputs(const Manifest& manifest) {
  std::vector<std::int64_t> shape(2, Signature::any);
  if (manifest.static_shape) shape.assign(manifest.static_shape->begin(), manifest.static_shape->end());
  Signatures inputs;
  for (const char* name : {input_ids_input, attention_mask_input, token_type_ids_input}) {
    if (manifest.has_input(name)) inputs[name] = {ONNX_TENSOR_ELEMENT_DATA_TYPE_INT64, shape};
  }
  return inputs;
}

// The inputs that bring biases and heads.
Signatures row_inputs(const Manifest& manifest, std::int64_t labels) {
  const Layout& layout = manifest.layout;
  const auto floats = [](std::vector<std::int64_t> shape) {
    return Signature{ONNX_TENSOR_ELEMENT_DATA_TYPE_FLOAT, std::move(shape)};
  };
  Signatures inputs;
  const bool table = manifest.layout_kind == LayoutKind::table;
  if (table) {
    inputs[task_ids_input] = {ONNX_TENSOR_ELEMENT_DATA_TYPE_INT64, {Signature::any}};
    inputs[bias_table_input] = floats({Signature::any, layout.bias_count});
  } else if (manifest.layout_kind == LayoutKind::packed) {
    inputs[packed_bias_input] = floats({layout.bias_count});
  } else {
    for (const BiasEntry& entry : layout.biases) inputs[entry.name] = floats(entry.shape);
  }
  for (const HeadEntry& entry : layout.head) {
    std::vector<std::int64_t> shape = entry.resolve(labels > 0 ? labels : Signature::any);
    if (table) shape.insert(shape.begin(), Signature::any);
    inputs[entry.name] = floats(std::move(shape));
  }
  return inputs;
}

class InterfaceCheck {
 public:
  InterfaceCheck(const std::string& path, const Ort::Session& session, const Manifest& manifest)
      : path_(path), session_(session), manifest_(manifest) {}

  // Gives the number of labels that the head inputs have, where it is fixed; else 0.
  std::int64_t run() {
    check_digest();
    const Ort::AllocatorWithDefaultOptions allocator;
    Signatures inputs, defaults;
    for (std::size_t i = 0; i < session_.GetInputCount(); ++i) {
      inputs[session_.GetInputNameAllocated(i, allocator).get()] = signature_of(session_.GetInputTypeInfo(i));
    }
    for (std::size_t i = 0; i < session_.GetOverridableInitializerCount(); ++i) {
      defaults[session_.GetOverridableInitializerNameAllocated(i, allocator).get()] =
          signature_of(session_.GetOverridableInitializerTypeInfo(i));
    }
    std::vector<std::string> outputs;
    for (std::size_t i = 0; i < session_.GetOutputCount(); ++i) {
      outputs.emplace_back(session_.GetOutputNameAllocated(i, allocator).get());
    }
    const std::int64_t labels = fixed_labels(inputs, defaults);
    if (labels > max_labels) refuse(text_of("has heads of ", labels, " labels, expected at most ", max_labels));
    Signatures text = text_inputs(manifest_), rows = row_inputs(manifest_, labels);
    if (!manifest_.overridable) text.merge(rows), rows.clear();
    compare("input", inputs, text);
    compare("overridable input", defaults, rows);
    check_outputs(std::move(outputs));
    return labels;
  }

 private:
  [[noreturn]] void refuse(const std::string& what) const {
    fail(StatusCode::bundle_error, text_of("the model ", path_, ' ', what), copy_again);
  }

  // A model and a manifest of two bundles may have the same interface; only the digest tells them apart.
  void check_digest() const {
    const Ort::AllocatorWithDefaultOptions allocator;
    const auto found = session_.GetModelMetadata().LookupCustomMetadataMapAllocated(layout_digest_key, allocator);
    if (found == nullptr) refuse("has no layout digest");
    if (manifest_.layout.digest != found.get()) {
      refuse(text_of("has layout digest ", shown(found.get(), 12), ", expected ", manifest_.layout.digest.substr(0, 12),
                     " as in the manifest"));
    }
  }

  std::int64_t fixed_labels(const Signatures& inputs, const Signatures& defaults) const {
    if (!manifest_.static_shape) return 0;
    for (const HeadEntry& entry : manifest_.layout.head) {
      const auto axis = std::find(entry.shape.begin(), entry.shape.end(), HeadEntry::labels) - entry.shape.begin();
      for (const Signatures* found : {&inputs, &defaults}) {
        const auto input = found->find(entry.name);
        if (input == found->end() || static_cast<std::size_t>(axis) >= input->second.shape.size()) continue;
        if (static_cast<std::size_t>(axis) < entry.shape.size()) {
          return std::max<std::int64_t>(input->second.shape[static_cast<std::size_t>(axis)], 0);
        }
      }
    }
    return 0;
  }

  void compare(const char* what, const Signatures& found, const Signatures& expected) const {
    for (const auto& [name, signature] : found) {
      if (expected.count(name) == 0) refuse(text_of("has the ", what, ' ', shown(name), ", which the manifest lacks"));
    }
    for (const auto& [name, signature] : expected) {
      const auto input = found.find(name);
      if (input == found.end()) refuse(text_of("lacks the ", what, ' ', shown(name)));
      if (!(input->second == signature)) {
        refuse(text_of("has the ", what, ' ', shown(name), ' ', described(input->second), ", expected ",
                       described(signature)));
      }
    }
    if (manifest_.infer().inputs.size() != text_inputs(manifest_).size() + row_inputs(manifest_, 0).size()) {
      refuse("has other inputs than the manifest names");
    }
  }

  void check_outputs(std::vector<std::string> outputs) const {
    std::vector<std::string> expected = manifest_.infer().outputs;
    std::sort(expected.begin(), expected.end());
    std::sort(outputs.begin(), outputs.end());
    if (outputs != expected) refuse("has other outputs than the manifest names");
    if (!manifest_.has_output(logits_output)) refuse(text_of("has no output ", logits_output));
  }

  const std::string& path_;
  const Ort::Session& session_;
  const Manifest& manifest_;
};

// What ONNX Runtime says, which may quote the model.
std::string first_line(std::string_view message) {
  constexpr std::size_t longest = 300;
  return shown(message.substr(0, message.find('\n')), longest);
}

// Of an optimised graph, what is left would fuse SkipLayerNormalization, which is slower. Float16 weights are widened
// once, by constant folding.
GraphOptimizationLevel optimization_of(LoadTime load_time) noexcept {
  if (load_time == LoadTime::nothing) return ORT_DISABLE_ALL;
  return load_time == LoadTime::fold_constants ? ORT_ENABLE_BASIC : ORT_ENABLE_ALL;
}

// The weights lie beside the model, and are found by their names.
Ort::Session open_session(const Ort::Env& env, const std::string& folder, const Bytes& bytes, const Manifest& manifest,
                          int threads) {
  Ort::SessionOptions options;
  options.SetGraphOptimizationLevel(optimization_of(manifest.infer().load_time));
  // Its failures are reported; what it would log besides is a repetition.
  options.SetLogSeverityLevel(ORT_LOGGING_LEVEL_FATAL);
  options.SetInterOpNumThreads(1);
  options.AddConfigEntry("session.load_model_format", "ONNX");
  options.AddConfigEntry("session.model_external_initializers_file_folder_path", folder.c_str());
  if (threads > 0) options.SetIntraOpNumThreads(threads);
  try {
    return Ort::Session(env, bytes.data(), bytes.size(), options);
  } catch (const Ort::Exception& error) {
    fail(StatusCode::bundle_error,
         text_of("the model ", folder, '/', manifest.infer().file, " cannot be loaded: ", first_line(error.what())),
         copy_again);
  }
}

}  // namespace

const OrtMemoryInfo* cpu_memory() {
  static const Ort::MemoryInfo memory = Ort::MemoryInfo::CreateCpu(OrtDeviceAllocator, OrtMemTypeCPU);
  return memory;
}

Model::Model(const std::string& folder, const Bytes& bytes, const Manifest& manifest, int threads)
    : env_(ORT_LOGGING_LEVEL_FATAL, "bitfit"), session_(open_session(env_, folder, bytes, manifest, threads)) {
  try {
    fixed_labels_ = InterfaceCheck(folder + "/" + manifest.infer().file, session_, manifest).run();
  } catch (const Ort::Exception& error) {
    fail(StatusCode::bundle_error, text_of("the model cannot be examined: ", first_line(error.what())), copy_again);
  }
}

void Model::run(const OrtRunOptions* options, const Feeds& feeds, const char* name, OrtValue* output) const {
  const OrtApi& api = Ort::GetApi();
  // The wrapper's Run takes values that it owns; these are shared with other runs. Running changes no session.
  auto* const session = const_cast<OrtSession*>(static_cast<const OrtSession*>(session_));
  const Ort::Status status(
      api.Run(session, options, feeds.names.data(), feeds.values.data(), feeds.values.size(), &name, 1, &output));
  if (status.IsOK()) return;
  const StatusCode code =
      status.GetErrorCode() == ORT_INVALID_ARGUMENT ? StatusCode::input_error : StatusCode::bundle_error;
  fail(code, text_of("the model can't run this batch: ", first_line(status.GetErrorMessage().c_str())));
}

}  // namespace bitfit
