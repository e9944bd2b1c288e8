// A session of ONNX Runtime as a program, whichever provider runs it.

#ifndef BITFIT_SRC_ENGINES_ORT_PROGRAM_H
#define BITFIT_SRC_ENGINES_ORT_PROGRAM_H

#include <bitfit/engine.h>

#include "environment.h"

#include <onnxruntime_cxx_api.h>
#include <memory>

namespace bitfit {

// `runner` begins the message of a run that fails, such as "the model"; it stays the caller's.
std::unique_ptr<Program> make_ort_program(std::shared_ptr<const Environment> environment, Ort::Session session,
                                          const char* runner);

}  // namespace bitfit

#endif  // BITFIT_SRC_ENGINES_ORT_PROGRAM_H
