#include <onnxruntime_cxx_api.h>
#if ORT_API_VERSION >= 22

#include "qnn_library.h"

#include "failure.h"

#include <cstdint>
#include <filesystem>
#include <mutex>
#include <string_view>
#include <utility>

#if __has_include(<dlfcn.h>)
#include <dlfcn.h>
#endif

namespace bitfit {
namespace {

constexpr const char* provider_name = "QNNExecutionProvider";
constexpr const char* htp_name = "libQnnHtp.so";

[[noreturn]] void refuse_library(std::string_view path, std::string_view why) {
  fail(StatusCode::usage_error, text_of("the QNN library ", shown(path), " cannot be loaded: ", first_line(why)),
       "name libonnxruntime_providers_qnn.so of onnxruntime-qnn, with libQnnHtp.so beside it; it needs 64-bit Arm, or "
       "Linux x86-64 with glibc 2.35 or later");
}

#if __has_include(<dlfcn.h>)

// The start of QnnInterface_t of the QNN API's version 2: what tells of the library itself.
struct QnnInterface {
  std::uint32_t backend;
  const char* provider;
  std::uint32_t core_version[3], backend_version[3];
  void* others[4];
  std::uint64_t (*get_build_id)(const char** id);
};
using GetProviders = std::uint64_t (*)(const QnnInterface*** interfaces, std::uint32_t* count);

// A function of a library, which stays loaded: ONNX Runtime and the provider load it too.
void* function_of(const std::string& path, const char* name) {
  void* const library = dlopen(path.c_str(), RTLD_NOW | RTLD_LOCAL);
  void* const function = library == nullptr ? nullptr : dlsym(library, name);
  if (function == nullptr) refuse_library(path, dlerror());
  return function;
}

// Where the loader finds a library: ONNX Runtime looks for one without a folder beside its own.
std::string place_of(const std::string& path) {
  Dl_info found = {};
  const bool known = dladdr(function_of(path, "CreateEpFactories"), &found) != 0 && found.dli_fname != nullptr;
  return std::filesystem::absolute(known ? found.dli_fname : path).string();
}

// What the library says of its SDK: "v2.51.0.260929181845" is 2.51.0.
std::string sdk_of(const std::string& path) {
  const auto get_providers = reinterpret_cast<GetProviders>(function_of(path, "QnnInterface_getProviders"));
  const QnnInterface** interfaces = nullptr;
  std::uint32_t count = 0;
  const char* id = nullptr;
  if (get_providers(&interfaces, &count) != 0 || count == 0) return {};
  if (interfaces[0]->core_version[0] != 2 || interfaces[0]->get_build_id(&id) != 0 || id == nullptr) return {};
  const std::string_view name = *id == 'v' ? id + 1 : id;
  std::size_t end = name.find('.', name.find('.') + 1);
  if (end != name.npos) end = name.find('.', end + 1);
  return std::string(name.substr(0, end));
}

#else

std::string place_of(const std::string& path) { return std::filesystem::absolute(path).string(); }
std::string sdk_of(const std::string&) { return {}; }

#endif

}  // namespace

QnnLibrary::QnnLibrary(const std::string& path)
    : path_(path),
      htp_(std::filesystem::path(path).replace_filename(htp_name).string()),
      environment_(Ort::Env(ORT_LOGGING_LEVEL_FATAL, "bitfit")) {
  try {
    devices_ = find_devices();
    if (devices_.empty()) {  // else the application has registered it
      environment_.env.RegisterExecutionProviderLibrary(provider_name, std::filesystem::path(path).native());
      devices_ = find_devices();
    }
  } catch (const Ort::Exception& error) {
    refuse_library(path, error.what());
  }
  if (devices_.empty()) {
    fail(StatusCode::usage_error, "the QNN library finds no HTP on this machine, expected one or its emulator");
  }
  sdk_ = sdk_of(htp_);
  for (const Ort::ConstEpDevice& each : devices_) on_npu_ |= each.Device().Type() == OrtHardwareDeviceType_NPU;
}

std::vector<Ort::ConstEpDevice> QnnLibrary::find_devices() const {
  std::vector<Ort::ConstEpDevice> found;
  for (const Ort::ConstEpDevice& each : environment_.env.GetEpDevices()) {
    if (each.EpName() == std::string_view(provider_name)) found.push_back(each);
  }
  return found;
}

void QnnLibrary::add_to(Ort::SessionOptions* options, std::unordered_map<std::string, std::string> provider) const {
  provider["backend_path"] = htp_;
  options->AddConfigEntry("session.disable_cpu_ep_fallback", "1");
  options->AppendExecutionProvider_V2(environment_.env, devices_, provider);
}

const QnnLibrary& QnnLibrary::load(const std::string& name) {
  static std::mutex lock;
  static const QnnLibrary* loaded = nullptr;  // never unloaded: its threads would be in code that is gone
  const std::lock_guard<std::mutex> guard(lock);
  const std::string path = place_of(name);
  if (loaded == nullptr) loaded = new QnnLibrary(path);
  if (loaded->path_ != path) {
    fail(StatusCode::usage_error, text_of("the QNN library is ", shown(path), ", expected ", shown(loaded->path_),
                                          ", which this process has loaded"));
  }
  return *loaded;
}

}  // namespace bitfit

#endif
