// An engine executes the program of a bundle: it runs a graph on arrays. This library has ONNX Runtime (onnxruntime.h)
// and Qualcomm's HTP (qnn.h); an application can write its own, and open sessions with it by SessionOptions::engine. An
// engine knows arrays and names, and neither tasks nor texts.
//
//     class MyEngine : public bitfit::Engine { ... };
//     bitfit::SessionOptions options;
//     options.engine = std::make_shared<MyEngine>();
//
// Failures. Every function returns a Status: a bundle_error where the program cannot be loaded or run, an input_error
// where it is an input that the program refuses, a usage_error for an option. An exception counts as a failure.
//
// Threads. Any number of threads call a const function at once.

#ifndef BITFIT_ENGINE_H
#define BITFIT_ENGINE_H

#include <bitfit/status.h>

#include <cstddef>
#include <cstdint>
#include <map>
#include <memory>
#include <string>
#include <vector>

namespace bitfit {

// The numbers are those of ONNX's TensorProto.DataType, which a type that is not named here has as well.
enum class ElementType : std::uint32_t { float32 = 1, int32 = 6, int64 = 7 };

// How much is left to optimise in a graph when it is loaded. The compiler has optimised one for ONNX Runtime already.
enum class LoadTime : std::uint8_t { nothing, fold_constants, optimize };

// An input of a graph.
struct TensorInfo {
  static constexpr std::int64_t any = -1;  // a dimension that is not fixed

  ElementType type = ElementType::float32;
  std::vector<std::int64_t> shape;

  bool operator==(const TensorInfo& other) const { return type == other.type && shape == other.shape; }
};

// What a program takes and returns, by name.
struct GraphInfo {
  std::map<std::string, TensorInfo> inputs;    // what a run must be fed
  std::map<std::string, TensorInfo> defaults;  // what a run may be fed: inputs that have a default
  std::vector<std::string> outputs;
  std::map<std::string, std::string> metadata;  // the model's own
};

// Values of an input, in C order. All that it points to is somebody else's.
struct InputArray {
  const char* name = nullptr;
  ElementType type = ElementType::float32;
  const void* values = nullptr;
  const std::int64_t* shape = nullptr;
  std::size_t rank = 0;
};

// Room for the float32 values of an output, in C order.
struct OutputArray {
  const char* name = nullptr;
  float* values = nullptr;
  const std::int64_t* shape = nullptr;
  std::size_t rank = 0;
};

// What an engine makes of arrays that stay for many runs. Nobody else looks into it. It goes before its program does.
class Bound {
 public:
  virtual ~Bound() = default;
};

// What an engine keeps from one run of a thread to the next, to allocate nothing. Nobody else looks into it. It may
// outlive the program.
class Scratch {
 public:
  virtual ~Scratch() = default;
};

// One run. What it points to is the session's, and stays as it is until the run is over.
struct Call {
  const InputArray* inputs = nullptr;  // that are new in this run
  std::size_t input_count = 0;
  const Bound* bound = nullptr;  // the others; never null
  const OutputArray* outputs = nullptr;
  std::size_t output_count = 0;
  // `*scratch` is null, or what an earlier run left there, which may be another engine's: look before use.
  std::unique_ptr<Scratch>* scratch = nullptr;
};

// What runs a program that no accelerator runs.
inline constexpr const char* this_processor = "this machine's processor";

// A program that an engine has opened.
class Program {
 public:
  virtual ~Program() = default;

  virtual const GraphInfo& graph() const = 0;

  // What runs it, in words, and whether that is an emulator, which takes seconds for a run.
  virtual std::string device() const { return this_processor; }
  virtual bool emulated() const { return false; }

  // Hold arrays for many runs. The values stay where they are for as long as `*out` is in use, and may change between
  // runs: read them where they lie. Names and shapes are to be copied.
  virtual Status bind(const InputArray* arrays, std::size_t count, std::unique_ptr<Bound>* out) const = 0;

  // Hold the tensors of a file `.onnx_adapter`, given by its bytes and their number, which are read during the call. A
  // usage_error where the engine takes none, as most do.
  virtual Status bind_adapter(const void*, std::size_t, std::unique_ptr<Bound>*) const {
    return {StatusCode::usage_error, "the engine takes no adapters, expected a row", "load the task's row"};
  }

  // Run the program once. Its outputs go where the call says.
  virtual Status run(const Call& call) const = 0;
};

// How a program was compiled ahead of time for an accelerator. docs/files.md.
struct Accelerator {
  std::string binary;  // the path in the bundle of what the accelerator loads; the program names no other
  std::string sdk;     // the version of the maker's SDK that made it
  std::string soc;     // the chip, by name or number
  std::uint32_t soc_model = 0;
  std::uint32_t arch = 0;  // the version of the accelerator's architecture
};

// A program as it was read and checked. The strings and bytes are the session's, for the time of the call.
struct ProgramFiles {
  const std::string& path;  // of the model's file, for messages
  const void* model;        // its bytes
  std::size_t model_size;
  const std::string& folder;  // where its weights lie
  LoadTime load_time;
  // Whether to plan the memory of a run ahead, by its shapes. Batches of many shapes need less memory without it.
  bool plans_memory = true;
  const Accelerator* accelerator = nullptr;  // how it was compiled ahead of time; null where it was not
};

class Engine {
 public:
  virtual ~Engine() = default;

  virtual const char* name() const = 0;

  // The targets whose bundles it runs, as `bitfit-export --target` names them.
  virtual std::vector<std::string> targets() const = 0;

  // Open a program. `threads` are those for one run; 0: the engine's choice. A session keeps its engine for as long as
  // it lives.
  virtual Status open(const ProgramFiles& files, int threads, std::unique_ptr<Program>* out) const = 0;
};

}  // namespace bitfit

#endif  // BITFIT_ENGINE_H
