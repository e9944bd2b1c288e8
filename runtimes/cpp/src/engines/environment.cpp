#include "environment.h"

#include "failure.h"
#include "threads.h"

#include <mutex>

namespace bitfit {
namespace {

constexpr const char* log_name = "bitfit";

// An environment with threads, and how many: ONNX Runtime does not say.
struct SharedThreads {
  Environment environment;
  int threads, inter_threads;
};

Ort::Env make_env(int threads, int inter_threads) {
  Ort::ThreadingOptions options;
  options.SetGlobalIntraOpNumThreads(threads);
  options.SetGlobalInterOpNumThreads(std::max(inter_threads, 1));
  return Ort::Env(options, ORT_LOGGING_LEVEL_FATAL, log_name);
}

// The environment of all engines that share threads now.
std::shared_ptr<const Environment> shared_environment(int threads, int inter_threads) {
  static std::mutex lock;
  static std::weak_ptr<const SharedThreads> current;
  const std::lock_guard<std::mutex> guard(lock);
  std::shared_ptr<const SharedThreads> shared = current.lock();
  if (shared == nullptr) {
    shared.reset(new SharedThreads{Environment(make_env(threads, inter_threads)), threads, inter_threads});
    current = shared;
  } else if (shared->threads != threads || shared->inter_threads != inter_threads) {
    fail(StatusCode::usage_error,
         text_of("threads is ", threads, " and inter_threads ", inter_threads, ", expected ", shared->threads, " and ",
                 shared->inter_threads, ", the threads that other engines of the process share"));
  }
  return {shared, &shared->environment};
}

}  // namespace

std::shared_ptr<const Environment> environment_for(const OnnxRuntimeOptions& options) {
  check_threads("threads", options.threads);
  if (options.threads != 0 && (!options.share_threads || options.environment != nullptr)) {
    fail(StatusCode::usage_error,
         text_of("threads is ", options.threads, ", expected 0: the engine makes no threads to share"),
         "set share_threads without an environment, or the threads of each session in its own options");
  }
  if (options.environment != nullptr) {
    return std::make_shared<const Environment>(Ort::Env(options.environment), true);
  }
  if (options.share_threads) return shared_environment(options.threads, options.inter_threads);
  return std::make_shared<const Environment>(Ort::Env(ORT_LOGGING_LEVEL_FATAL, log_name));
}

std::string first_line(std::string_view message) {
  constexpr std::size_t longest = 300;
  return shown(message.substr(0, message.find('\n')), longest);
}

}  // namespace bitfit
