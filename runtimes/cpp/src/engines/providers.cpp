#include "providers.h"

#include "environment.h"
#include "failure.h"

#include <algorithm>

namespace bitfit {
namespace {

constexpr std::string_view name_end = "ExecutionProvider";

std::string_view short_name(std::string_view name) {
  const std::size_t rest = name.size() - std::min(name.size(), name_end.size());
  return name.substr(rest) == name_end ? name.substr(0, rest) : name;
}

char lower(char letter) noexcept { return letter >= 'A' && letter <= 'Z' ? static_cast<char>(letter + 32) : letter; }

// In any case, for ONNX Runtime itself spells a provider XNNPACK and XnnpackExecutionProvider.
bool is_same(std::string_view left, std::string_view right) {
  left = short_name(left);
  right = short_name(right);
  const auto same = [](char a, char b) { return lower(a) == lower(b); };
  return std::equal(left.begin(), left.end(), right.begin(), right.end(), same);
}

// ONNX Runtime's own name; empty where it has no such provider.
std::string full_name(std::string_view name) {
  for (const std::string& available : Ort::GetAvailableProviders()) {
    if (is_same(available, name)) return available;
  }
  return {};
}

struct Options {
  explicit Options(const ExecutionProvider& provider) {
    for (const auto& [key, value] : provider.options) {
      keys.push_back(key.c_str());
      values.push_back(value.c_str());
    }
  }

  std::vector<const char*> keys, values;
};

// These two have functions of their own.
OrtStatus* add_cuda(const Options& from, OrtSessionOptions* options) {
  const OrtApi& api = Ort::GetApi();
  OrtCUDAProviderOptionsV2* made = nullptr;
  OrtStatus* status = api.CreateCUDAProviderOptions(&made);
  if (status != nullptr) return status;
  status = api.UpdateCUDAProviderOptions(made, from.keys.data(), from.values.data(), from.keys.size());
  if (status == nullptr) status = api.SessionOptionsAppendExecutionProvider_CUDA_V2(options, made);
  api.ReleaseCUDAProviderOptions(made);
  return status;
}

OrtStatus* add_tensorrt(const Options& from, OrtSessionOptions* options) {
  const OrtApi& api = Ort::GetApi();
  OrtTensorRTProviderOptionsV2* made = nullptr;
  OrtStatus* status = api.CreateTensorRTProviderOptions(&made);
  if (status != nullptr) return status;
  status = api.UpdateTensorRTProviderOptions(made, from.keys.data(), from.values.data(), from.keys.size());
  if (status == nullptr) status = api.SessionOptionsAppendExecutionProvider_TensorRT_V2(options, made);
  api.ReleaseTensorRTProviderOptions(made);
  return status;
}

OrtStatus* add_by_name(const char* name, const Options& from, OrtSessionOptions* options) {
  return Ort::GetApi().SessionOptionsAppendExecutionProvider(options, name, from.keys.data(), from.values.data(),
                                                             from.keys.size());
}

}  // namespace

void check_providers(const std::vector<ExecutionProvider>& providers) {
  bool cpu_before = false;
  for (const ExecutionProvider& provider : providers) {
    if (cpu_before) {
      fail(StatusCode::usage_error, text_of("the execution provider CPU is before ", shown(provider.name),
                                            ", expected it last: it takes every operator"));
    }
    if (full_name(provider.name).empty()) {
      std::string available;
      for (const std::string& each : Ort::GetAvailableProviders()) {
        available += (available.empty() ? "" : ", ") + std::string(short_name(each));
      }
      fail(StatusCode::usage_error, text_of("the execution provider \"", shown(provider.name),
                                            "\" is not available, expected one of ", available));
    }
    cpu_before = is_same(provider.name, "CPU");
    if (cpu_before && !provider.options.empty()) {
      fail(StatusCode::usage_error, "the execution provider CPU has options, expected none");
    }
  }
}

void add_provider(const ExecutionProvider& provider, Ort::SessionOptions* options) {
  const std::string name = full_name(provider.name);
  const Options from(provider);
  Ort::Status status(nullptr);
  if (is_same(name, "CPU")) return;  // it is always there, after all others
  if (is_same(name, "CUDA")) {
    status = Ort::Status(add_cuda(from, *options));
  } else if (is_same(name, "Tensorrt")) {
    status = Ort::Status(add_tensorrt(from, *options));
  } else {
    status = Ort::Status(add_by_name(name.c_str(), from, *options));
    // Older releases know a provider by a short name alone, which is the caller's.
    if (!status.IsOK()) status = Ort::Status(add_by_name(provider.name.c_str(), from, *options));
  }
  if (status.IsOK()) return;
  fail(StatusCode::usage_error,
       text_of("the execution provider ", short_name(name), " cannot be used: ", first_line(status.GetErrorMessage())));
}

}  // namespace bitfit
