// Qualcomm's HTP as the engine of sessions: bundles of `bitfit-export --target qnn`. A session that is opened on one
// without an engine has this engine without options.
//
//     bitfit::QnnOptions options;
//     options.library = "/opt/qnn/libonnxruntime_providers_qnn.so";
//     bitfit::SessionOptions on_npu;
//     bitfit::Status status = bitfit::make_qnn_engine(options, &on_npu.engine);
//     if (status.ok()) status = bitfit::Session::open("bundles/npu", on_npu, &session);
//     if (status.ok()) log("runs on " + session->device());
//
// On a device with an NPU it runs there; on Linux x86-64 the library emulates the HTP, which gives the NPU's answers
// and takes seconds for each. Session::device says which of the two it is. Opening a session compiles nothing, and
// loading a task or switching to another neither opens nor compiles.
//
// The library is onnxruntime-qnn's, a provider of ONNX Runtime, and needs ONNX Runtime 1.22 or later. It is loaded once
// in a process and stays to its end; with it stays ONNX Runtime's environment, so an engine that shares threads is made
// before. What Qualcomm's part of it has to say goes to stdout, which an application that answers there may want to
// direct elsewhere while it makes the engine and opens sessions.

#ifndef BITFIT_QNN_H
#define BITFIT_QNN_H

#include <bitfit/engine.h>
#include <bitfit/status.h>

#include <memory>
#include <string>

namespace bitfit {

struct QnnOptions {
  // The provider, with Qualcomm's libQnnHtp.so beside it: a path, or a name that the system's loader finds.
  std::string library = "libonnxruntime_providers_qnn.so";

  // The version of this device's HTP, such as 73: a program for another is refused before it is loaded. 0: not known.
  int htp_arch = 0;
};

// `*out` is written only when the status is ok. A usage_error: the library cannot be loaded, finds no HTP, or is not
// the one that the process has loaded; or a version of the HTP that is not known.
Status make_qnn_engine(const QnnOptions& options, std::shared_ptr<const Engine>* out) noexcept;

}  // namespace bitfit

#endif  // BITFIT_QNN_H
