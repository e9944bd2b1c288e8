#include "ort_program.h"

#include "failure.h"

#include <string>
#include <utility>
#include <vector>

namespace bitfit {
namespace {

// ONNX Runtime's word for ordinary memory.
const OrtMemoryInfo* cpu_memory() {
  static const Ort::MemoryInfo memory = Ort::MemoryInfo::CreateCpu(OrtDeviceAllocator, OrtMemTypeCPU);
  return memory;
}

// A tensor over memory that stays where it is, so its size fits. ONNX Runtime does not write into an input.
Ort::Value tensor_over(const void* values, ElementType type, const std::int64_t* shape, std::size_t rank) {
  std::size_t bytes = type == ElementType::int64 ? sizeof(std::int64_t) : sizeof(float);  // int32 is as large as that
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
  OrtProgram(std::shared_ptr<const Environment> environment, Ort::Session session, const char* runner)
      : environment_(std::move(environment)),
        session_(std::move(session)),
        runner_(runner),
        graph_(graph_of(session_)) {}

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
    fail(code, text_of(runner_, " can't run this batch: ", first_line(status.GetErrorMessage())));
  }

  std::shared_ptr<const Environment> environment_;
  Ort::Session session_;
  const char* runner_;
  GraphInfo graph_;
};

}  // namespace

std::unique_ptr<Program> make_ort_program(std::shared_ptr<const Environment> environment, Ort::Session session,
                                          const char* runner) {
  return std::make_unique<OrtProgram>(std::move(environment), std::move(session), runner);
}

}  // namespace bitfit
