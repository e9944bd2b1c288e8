// ONNX Runtime as the engine of sessions, with options. A session that is opened without an engine has it without any.
//
//     bitfit::OnnxRuntimeOptions options;
//     options.share_threads = true;
//     bitfit::SessionOptions both;
//     bitfit::Status status = bitfit::make_onnxruntime_engine(options, &both.engine);
//     if (status.ok()) status = bitfit::Session::open("bundles/reviews", both, &reviews);
//     if (status.ok()) status = bitfit::Session::open("bundles/mails", both, &mails);  // on the same threads
//
// ONNX Runtime has one environment per process, with its log and the threads that sessions may share. Who is first
// makes it, an application or this library, and it ends with the last session.

#ifndef BITFIT_ONNXRUNTIME_H
#define BITFIT_ONNXRUNTIME_H

#include <bitfit/engine.h>
#include <bitfit/status.h>

#include <map>
#include <memory>
#include <string>
#include <vector>

struct OrtEnv;  // of ONNX Runtime's C API

namespace bitfit {

// Where operators are executed, with options as ONNX Runtime documents them for each.
struct ExecutionProvider {
  std::string name;  // ONNX Runtime's own, such as CUDAExecutionProvider, or without its end: CUDA
  std::map<std::string, std::string> options;
};

struct OnnxRuntimeOptions {
  // The first that takes an operator executes it. The CPU takes what is left, and has no options.
  std::vector<ExecutionProvider> providers;

  // Threads for operators that do not wait for one another; 0 or 1: one operator at a time.
  int inter_threads = 0;

  // Run all sessions of the engine on the same threads, instead of on threads of each session's own. There are
  // `threads` of them for the work in an operator, at most 4 per core; 0: one per core. SessionOptions::threads is then
  // 0. All engines that share threads at one time share the same, and so have the same numbers.
  bool share_threads = false;
  int threads = 0;

  // The application's environment, which must outlive the sessions; null: the engine's. To share its threads,
  // CreateEnvWithGlobalThreadPools must have made it, and `threads` is 0.
  OrtEnv* environment = nullptr;
};

// `*out` is written only when the status is ok. A usage_error: a provider that is unknown or not available (the message
// lists those that are), or a number of threads that is out of range. A provider's options are read when a session is
// opened.
Status make_onnxruntime_engine(const OnnxRuntimeOptions& options, std::shared_ptr<const Engine>* out) noexcept;

}  // namespace bitfit

#endif  // BITFIT_ONNXRUNTIME_H
