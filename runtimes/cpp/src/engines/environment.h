// ONNX Runtime's environment: its log, and the threads that sessions may share.

#ifndef BITFIT_SRC_ENGINES_ENVIRONMENT_H
#define BITFIT_SRC_ENGINES_ENVIRONMENT_H

#include <bitfit/onnxruntime.h>

#include <onnxruntime_cxx_api.h>
#include <memory>
#include <string>
#include <string_view>

namespace bitfit {

// A reference to the one environment of the process, or an application's, which is not counted.
struct Environment {
  explicit Environment(Ort::Env of, bool is_borrowed = false) : env(std::move(of)), borrowed(is_borrowed) {}
  ~Environment() {
    if (borrowed) env.release();
  }
  Environment(const Environment&) = delete;
  Environment& operator=(const Environment&) = delete;

  Ort::Env env;
  bool borrowed;
};

// The environment that an engine's sessions are made in. Fails with a usage_error.
std::shared_ptr<const Environment> environment_for(const OnnxRuntimeOptions& options);

// What ONNX Runtime says, which may quote the model.
std::string first_line(std::string_view message);

}  // namespace bitfit

#endif  // BITFIT_SRC_ENGINES_ENVIRONMENT_H
