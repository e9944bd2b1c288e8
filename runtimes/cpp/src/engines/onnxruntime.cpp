#include <bitfit/onnxruntime.h>

#include "environment.h"
#include "failure.h"
#include "ort_program.h"
#include "providers.h"
#include "threads.h"

#include <onnxruntime_cxx_api.h>
#include <algorithm>
#include <utility>

namespace bitfit {
namespace {

// An older one would look for weights in the working folder: it has no option for another.
static_assert(ORT_API_VERSION >= 21, "needs ONNX Runtime 1.21 or later");

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
        *out = make_ort_program(environment_, std::move(session), "the model");
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
