// The execution providers of ONNX Runtime, by name.

#ifndef BITFIT_SRC_ENGINES_PROVIDERS_H
#define BITFIT_SRC_ENGINES_PROVIDERS_H

#include <bitfit/onnxruntime.h>

#include <onnxruntime_cxx_api.h>
#include <vector>

namespace bitfit {

// Fails with a usage_error that lists the available providers where one is none of them.
void check_providers(const std::vector<ExecutionProvider>& providers);

// Add a provider that was checked. Fails with a usage_error where it refuses its options or cannot be loaded.
void add_provider(const ExecutionProvider& provider, Ort::SessionOptions* options);

}  // namespace bitfit

#endif  // BITFIT_SRC_ENGINES_PROVIDERS_H
