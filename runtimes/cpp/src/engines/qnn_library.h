// onnxruntime-qnn as a provider of ONNX Runtime, which takes plugins since 1.22.

#ifndef BITFIT_SRC_ENGINES_QNN_LIBRARY_H
#define BITFIT_SRC_ENGINES_QNN_LIBRARY_H

#include "environment.h"

#include <onnxruntime_cxx_api.h>
#include <memory>
#include <string>
#include <unordered_map>
#include <vector>

namespace bitfit {

class QnnLibrary {
 public:
  // Returns the library of this process, loaded on first use: by its path, or by a name that the loader finds. Fails
  // with a usage_error where it cannot be loaded, finds no HTP, or another one has been loaded.
  static const QnnLibrary& load(const std::string& name);

  // The version of Qualcomm's SDK (QAIRT) that it says it has, such as 2.51.0; empty where it does not say.
  const std::string& sdk() const noexcept { return sdk_; }

  // Whether it emulates an HTP on this machine's processor, and does not run one.
  bool emulates() const noexcept { return !on_npu_; }

  // That it was registered in. It stays as long as the library.
  std::shared_ptr<const Environment> environment() const { return {std::shared_ptr<void>(), &environment_}; }

  // Give all nodes to the HTP; one that it refuses is an error. `provider` are options such as soc_model.
  void add_to(Ort::SessionOptions* options, std::unordered_map<std::string, std::string> provider) const;

 private:
  explicit QnnLibrary(const std::string& path);
  std::vector<Ort::ConstEpDevice> find_devices() const;

  std::string path_, htp_, sdk_;
  mutable Environment environment_;  // ONNX Runtime asks for one that is not const, and does not change it
  std::vector<Ort::ConstEpDevice> devices_;
  bool on_npu_ = false;
};

}  // namespace bitfit

#endif  // BITFIT_SRC_ENGINES_QNN_LIBRARY_H
