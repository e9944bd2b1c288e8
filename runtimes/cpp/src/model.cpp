#include "model.h"

#include <bitfit/onnxruntime.h>
#include <bitfit/qnn.h>

#include "failure.h"

#include <algorithm>
#include <map>

namespace bitfit {
namespace {

using TensorInfos = std::map<std::string, TensorInfo>;

std::string described(const TensorInfo& tensor) {
  std::string text = tensor.type == ElementType::int64     ? "int64"
                     : tensor.type == ElementType::int32   ? "int32"
                     : tensor.type == ElementType::float32 ? "float32"
                                                           : "another type";
  text += " [";
  for (std::size_t axis = 0; axis < tensor.shape.size(); ++axis) {
    if (axis > 0) text += ", ";
    text += tensor.shape[axis] == TensorInfo::any ? "any" : std::to_string(tensor.shape[axis]);
  }
  return text + "]";
}

// The inputs that a text becomes. The model may lack token_type_ids.
TensorInfos text_inputs(const Manifest& manifest) {
  std::vector<std::int64_t> shape(2, TensorInfo::any);
  if (manifest.static_shape) shape.assign(manifest.static_shape->begin(), manifest.static_shape->end());
  TensorInfos inputs;
  for (const char* name : {input_ids_input, attention_mask_input, token_type_ids_input}) {
    if (manifest.has_input(name)) inputs[name] = {ElementType::int64, shape};
  }
  return inputs;
}

// The inputs that bring biases and heads.
TensorInfos row_inputs(const Manifest& manifest, std::int64_t labels) {
  const Layout& layout = manifest.layout;
  const auto floats = [](std::vector<std::int64_t> shape) {
    return TensorInfo{ElementType::float32, std::move(shape)};
  };
  TensorInfos inputs;
  const bool table = manifest.layout_kind == LayoutKind::table;
  if (table) {
    inputs[task_ids_input] = {ElementType::int64, {TensorInfo::any}};
    inputs[bias_table_input] = floats({TensorInfo::any, layout.bias_count});
  } else if (manifest.layout_kind == LayoutKind::packed) {
    inputs[packed_bias_input] = floats({layout.bias_count});
  } else {
    for (const BiasEntry& entry : layout.biases) {
      const bool in_integers = manifest.bias_scales.count(entry.name) > 0;
      inputs[entry.name] = {in_integers ? ElementType::int32 : ElementType::float32, entry.shape};
    }
  }
  for (const HeadEntry& entry : layout.head) {
    std::vector<std::int64_t> shape = entry.resolve(labels > 0 ? labels : TensorInfo::any);
    if (table) shape.insert(shape.begin(), TensorInfo::any);
    inputs[entry.name] = floats(std::move(shape));
  }
  return inputs;
}

class GraphCheck {
 public:
  GraphCheck(const std::string& path, const GraphInfo& graph, const Manifest& manifest)
      : path_(path), graph_(graph), manifest_(manifest) {}

  // Gives the number of labels that the head inputs have, where it is fixed; else 0.
  std::int64_t run() {
    check_digest();
    const std::int64_t labels = fixed_labels();
    if (labels > max_labels) refuse(text_of("has heads of ", labels, " labels, expected at most ", max_labels));
    TensorInfos text = text_inputs(manifest_), rows = row_inputs(manifest_, labels);
    if (!manifest_.overridable) text.merge(rows), rows.clear();
    compare("input", graph_.inputs, text);
    compare("overridable input", graph_.defaults, rows);
    check_outputs(graph_.outputs);
    return labels;
  }

 private:
  [[noreturn]] void refuse(const std::string& what) const {
    fail(StatusCode::bundle_error, text_of("the model ", path_, ' ', what), copy_again);
  }

  // A model and a manifest of two bundles may have the same interface; only the digest tells them apart.
  void check_digest() const {
    const auto found = graph_.metadata.find(layout_digest_key);
    if (found == graph_.metadata.end()) refuse("has no layout digest");
    if (manifest_.layout.digest != found->second) {
      refuse(text_of("has layout digest ", shown(found->second, 12), ", expected ",
                     manifest_.layout.digest.substr(0, 12), " as in the manifest"));
    }
  }

  std::int64_t fixed_labels() const {
    if (!manifest_.static_shape) return 0;
    for (const HeadEntry& entry : manifest_.layout.head) {
      const auto axis = std::find(entry.shape.begin(), entry.shape.end(), HeadEntry::labels) - entry.shape.begin();
      for (const TensorInfos* found : {&graph_.inputs, &graph_.defaults}) {
        const auto input = found->find(entry.name);
        if (input == found->end() || static_cast<std::size_t>(axis) >= input->second.shape.size()) continue;
        if (static_cast<std::size_t>(axis) < entry.shape.size()) {
          return std::max<std::int64_t>(input->second.shape[static_cast<std::size_t>(axis)], 0);
        }
      }
    }
    return 0;
  }

  void compare(const char* what, const TensorInfos& found, const TensorInfos& expected) const {
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
  const GraphInfo& graph_;
  const Manifest& manifest_;
};

std::shared_ptr<const Engine> engine_of(const SessionOptions& options, const std::string& target) {
  if (options.engine != nullptr) return options.engine;
  std::shared_ptr<const Engine> engine;
  check(target == "qnn" ? make_qnn_engine({}, &engine) : make_onnxruntime_engine({}, &engine));
  return engine;
}

void check_target(const Engine& engine, const std::string& target) {
  const std::vector<std::string> targets = engine.targets();
  if (std::find(targets.begin(), targets.end(), target) != targets.end()) return;
  std::string names;
  for (const std::string& each : targets) names += (names.empty() ? "" : ", ") + each;
  fail(StatusCode::bundle_error,
       text_of("the bundle is for the target ", target, ", which the engine does not run (", engine.name(), " runs ",
               names, ')'),
       "export the bundle for another --target, or open it with another engine");
}

}  // namespace

void check_engine(const Status& status) {
  if (!status.ok()) fail(status.code, status.message, status.hint);
}

std::unique_ptr<const Program> open_program(const Engine& engine, const std::string& folder,
                                            const ProgramRecord& record, const Bytes& bytes, int threads,
                                            bool plans_memory, const Accelerator* accelerator) {
  std::unique_ptr<Program> program;
  const std::string path = folder + "/" + record.file;
  check_engine(engine.open({path, bytes.data(), bytes.size(), folder, record.load_time, plans_memory, accelerator},
                           threads, &program));
  if (program == nullptr) fail(StatusCode::failure, text_of("the engine ", engine.name(), " opened no program"));
  return program;
}

Model::Model(const std::string& folder, const Bytes& bytes, const Manifest& manifest, const SessionOptions& options)
    : engine_(engine_of(options, manifest.target)) {
  check_target(*engine_, manifest.target);
  program_ = open_program(*engine_, folder, manifest.infer(), bytes, options.threads, true,
                          manifest.accelerator ? &*manifest.accelerator : nullptr);
  fixed_labels_ = GraphCheck(folder + "/" + manifest.infer().file, program_->graph(), manifest).run();
}

std::unique_ptr<const Bound> Model::bind(const std::vector<InputArray>& arrays) const {
  std::unique_ptr<Bound> bound;
  check_engine(program_->bind(arrays.data(), arrays.size(), &bound));
  return bound;
}

std::unique_ptr<const Bound> Model::bind_adapter(const void* data, std::size_t size) const {
  std::unique_ptr<Bound> bound;
  check_engine(program_->bind_adapter(data, size, &bound));
  return bound;
}

void Model::run(const Call& call) const { check_engine(program_->run(call)); }

}  // namespace bitfit
