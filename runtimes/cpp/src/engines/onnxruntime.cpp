#include <bitfit/onnxruntime.h>

#include "environment.h"
#include "failure.h"
#include "providers.h"
#include "threads.h"

#include <onnxruntime_cxx_api.h>
#include <algorithm>
#include <utility>

namespace bitfit {
namespace {

// An older one would look for weights in the working folder: it has no option for another.
static_assert(ORT_API_VERSION >= 21, "needs ONNX Runtime 1.21 or later");

// ONNX Runtime's word for ordinary memory.
const OrtMemoryInfo* cpu_memory() {
  static const Ort::MemoryInfo memory = Ort::MemoryInfo::CreateCpu(OrtDeviceAllocator, OrtMemTypeCPU);
  return memory;
}

// A tensor over memory that stays where it is, so its size fits. ONNX Runtime does not write into an input.
Ort::Value tensor_over(const void* values, ElementType type, const std::int64_t* shape, std::size_t rank) {
  std::size_t bytes = type == ElementType::int64 ? sizeof(std::int64_t) : sizeof(float);
  for (std::size_t axis = 0; axis < rank; ++axis) bytes *= static_cast<std::size_t>(shape[axis]);
  return Ort::Value::CreateTensor(cpu_memory(), const_cast<void*>(values), bytes, shape, rank,
                                  static_cast<ONNXTensorElementDataType>(type));
}

// Tensors over arrays, or an adapter, which ONNX Runtime adds to a run by itself.
struct OrtBound final : Bound {
  std::vector<std::string> names;
  std::vector<Ort::Value> tensors;
  Ort::LoraAdapter adapter{nullptr};
  Ort::RunOptions options{nullptr};
};

// The lists that a run passes on. Between runs they are empty, and keep their memory.
struct OrtScratch final : Scratch {
  std::vector<const char*> names, output_names;
  std::vector<const OrtValue*> inputs;
  std::vector<OrtValue*> outputs;
  std::vector<Ort::Value> tensors;  // over the arrays of this run

  void clear() noexcept {
    names.clear();
    output_names.clear();
    inputs.clear();
    outputs.clear();
    tensors.clear();
  }
};

// Empties the lists when a run is over: the arrays are somebody else's.
struct Lists {
  explicit Lists(std::unique_ptr<Scratch>* scratch) : own(dynamic_cast<OrtScratch*>(scratch->get())) {
    if (own != nullptr) return;
    *scratch = std::make_unique<OrtScratch>();
    own = static_cast<OrtScratch*>(scratch->get());
  }
  ~Lists() { own->clear(); }
  Lists(const Lists&) = delete;
  Lists& operator=(const Lists&) = delete;

  OrtScratch* own;
};

TensorInfo info_of(const Ort::TypeInfo& info) {
  const auto tensor = info.GetTensorTypeAndShapeInfo();
  TensorInfo found{static_cast<ElementType>(tensor.GetElementType()), tensor.GetShape()};
  for (std::int64_t& dimension : found.shape) dimension = dimension < 0 ? TensorInfo::any : dimension;
  return found;
}

GraphInfo graph_of(const Ort::Session& session) {
  const Ort::AllocatorWithDefaultOptions allocator;
  GraphInfo graph;
  for (std::size_t i = 0; i < session.GetInputCount(); ++i) {
    graph.inputs[session.GetInputNameAllocated(i, allocator).get()] = info_of(session.GetInputTypeInfo(i));
  }
  for (std::size_t i = 0; i < session.GetOverridableInitializerCount(); ++i) {
    graph.defaults[session.GetOverridableInitializerNameAllocated(i, allocator).get()] =
        info_of(session.GetOverridableInitializerTypeInfo(i));
  }
  for (std::size_t i = 0; i < session.GetOutputCount(); ++i) {
    graph.outputs.emplace_back(session.GetOutputNameAllocated(i, allocator).get());
  }
  const Ort::ModelMetadata metadata = session.GetModelMetadata();
  for (const auto& key : metadata.GetCustomMetadataMapKeysAllocated(allocator)) {
    graph.metadata[key.get()] = metadata.LookupCustomMetadataMapAllocated(key.get(), allocator).get();
  }
  return graph;
}

class OrtProgram final : public Program {
 public:
  OrtProgram(std::shared_ptr<const Environment> environment, Ort::Session session)
      : environment_(std::move(environment)), session_(std::move(session)), graph_(graph_of(session_)) {}

  const GraphInfo& graph() const override { return graph_; }

  Status bind(const InputArray* arrays, std::size_t count, std::unique_ptr<Bound>* out) const override {
    return guard([&] {
      auto bound = std::make_unique<OrtBound>();
      for (std::size_t i = 0; i < count; ++i) {
        bound->names.emplace_back(arrays[i].name);
        bound->tensors.push_back(tensor_over(arrays[i].values, arrays[i].type, arrays[i].shape, arrays[i].rank));
      }
      *out = std::move(bound);
    });
  }

  Status bind_adapter(const void* data, std::size_t size, std::unique_ptr<Bound>* out) const override {
    return guard([&] {
      auto bound = std::make_unique<OrtBound>();
      bound->adapter = Ort::LoraAdapter::CreateLoraAdapterFromArray(data, size, nullptr);
      bound->options = Ort::RunOptions();
      bound->options.AddActiveLoraAdapter(bound->adapter);
      *out = std::move(bound);
    });
  }

  Status run(const Call& call) const override {
    return guard([&] {
      const Lists lists(call.scratch);
      OrtScratch& own = *lists.own;
      const auto& bound = static_cast<const OrtBound&>(*call.bound);
      for (std::size_t i = 0; i < call.input_count; ++i) {
        const InputArray& array = call.inputs[i];
        own.names.push_back(array.name);
        own.tensors.push_back(tensor_over(array.values, array.type, array.shape, array.rank));
        own.inputs.push_back(own.tensors.back());
      }
      for (std::size_t i = 0; i < bound.names.size(); ++i) {
        own.names.push_back(bound.names[i].c_str());
        own.inputs.push_back(bound.tensors[i]);
      }
      for (std::size_t i = 0; i < call.output_count; ++i) {
        const OutputArray& array = call.outputs[i];
        own.output_names.push_back(array.name);
        own.tensors.push_back(tensor_over(array.values, ElementType::float32, array.shape, array.rank));
        own.outputs.push_back(own.tensors.back());
      }
      execute(bound.options, &own);
    });
  }

 private:
  void execute(const OrtRunOptions* options, OrtScratch* lists) const {
    const OrtApi& api = Ort::GetApi();
    // The wrapper's Run takes values that it owns; these are shared with other runs. Running changes no session.
    auto* const session = const_cast<OrtSession*>(static_cast<const OrtSession*>(session_));
    const Ort::Status status(api.Run(session, options, lists->names.data(), lists->inputs.data(), lists->inputs.size(),
                                     lists->output_names.data(), lists->outputs.size(), lists->outputs.data()));
    if (status.IsOK()) return;
    const StatusCode code =
        status.GetErrorCode() == ORT_INVALID_ARGUMENT ? StatusCode::input_error : StatusCode::bundle_error;
    fail(code, text_of("the model can't run this batch: ", first_line(status.GetErrorMessage())));
  }

  std::shared_ptr<const Environment> environment_;
  Ort::Session session_;
  GraphInfo graph_;
};

// Of an optimised graph, what is left would fuse SkipLayerNormalization, which is slower. Float16 weights are widened
// once, by constant folding.
GraphOptimizationLevel optimization_of(LoadTime load_time) noexcept {
  if (load_time == LoadTime::nothing) return ORT_DISABLE_ALL;
  return load_time == LoadTime::fold_constants ? ORT_ENABLE_BASIC : ORT_ENABLE_ALL;
}

class OrtEngine final : public Engine {
 public:
  explicit OrtEngine(OnnxRuntimeOptions options) : options_(std::move(options)) {
    check_threads("inter_threads", options_.inter_threads);
    check_providers(options_.providers);
    environment_ = environment_for(options_);
  }

  const char* name() const override { return "onnxruntime"; }
  std::vector<std::string> targets() const override { return {"ort", "portable"}; }

  // The weights lie beside the model, and are found by their names.
  Status open(const ProgramFiles& files, int threads, std::unique_ptr<Program>* out) const override {
    return guard([&] {
      const Ort::SessionOptions options = session_options(files, threads);
      try {
        Ort::Session session(environment_->env, files.model, files.model_size, options);
        *out = std::make_unique<OrtProgram>(environment_, std::move(session));
      } catch (const Ort::Exception& error) {
        refuse_threads(error);
        fail(StatusCode::bundle_error,
             text_of("the model ", files.path, " cannot be loaded: ", first_line(error.what())), copy_again);
      }
    });
  }

 private:
  Ort::SessionOptions session_options(const ProgramFiles& files, int threads) const {
    Ort::SessionOptions options;
    options.SetGraphOptimizationLevel(optimization_of(files.load_time));
    if (!files.plans_memory) options.DisableMemPattern().DisableCpuMemArena();
    // Its failures are reported; what it would log besides is a repetition.
    options.SetLogSeverityLevel(ORT_LOGGING_LEVEL_FATAL);
    options.AddConfigEntry("session.load_model_format", "ONNX");
    options.AddConfigEntry("session.model_external_initializers_file_folder_path", files.folder.c_str());
    if (options_.inter_threads > 1) options.SetExecutionMode(ORT_PARALLEL);
    if (options_.share_threads) {
      if (threads != 0) {
        fail(StatusCode::usage_error,
             text_of("threads is ", threads, ", expected 0: the session shares the threads of its engine"));
      }
      options.DisablePerSessionThreads();
    } else {
      options.SetInterOpNumThreads(std::max(options_.inter_threads, 1));
      if (threads > 0) options.SetIntraOpNumThreads(threads);
    }
    for (const ExecutionProvider& provider : options_.providers) add_provider(provider, &options);
    return options;
  }

  // There are no threads to share where something else of the process has made the environment before.
  void refuse_threads(const Ort::Exception& error) const {
    const std::string_view message = error.what();
    if (!options_.share_threads || message.find("CreateEnvWithGlobalThreadPools") == message.npos) return;
    fail(StatusCode::usage_error, "ONNX Runtime's environment has no threads to share: it was made before, without",
         "make the engine that shares threads before any other session, or let CreateEnvWithGlobalThreadPools make the "
         "application's environment");
  }

  OnnxRuntimeOptions options_;
  std::shared_ptr<const Environment> environment_;
};

}  // namespace

Status make_onnxruntime_engine(const OnnxRuntimeOptions& options, std::shared_ptr<const Engine>* out) noexcept {
  return guard([&] { *out = std::make_shared<OrtEngine>(options); });
}

}  // namespace bitfit
