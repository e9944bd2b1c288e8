// The frozen model: the program `infer` of a bundle, on whichever engine.

#ifndef BITFIT_SRC_MODEL_H
#define BITFIT_SRC_MODEL_H

#include <bitfit/engine.h>
#include <bitfit/session.h>

#include "manifest.h"
#include "read_file.h"

#include <memory>
#include <string>
#include <vector>

namespace bitfit {

// Go on with what an engine reports, whose words are somebody else's.
void check_engine(const Status& status);

// Open a program of a bundle by the bytes of its file. Fails where the engine cannot, or opens none.
std::unique_ptr<const Program> open_program(const Engine& engine, const std::string& folder,
                                            const ProgramRecord& record, const Bytes& bytes, int threads,
                                            bool plans_memory = true, const Accelerator* accelerator = nullptr);

// Everything here fails by a Failure.
class Model {
 public:
  // `bytes` are those of the model's file in `folder`; its weights lie beside it. A bundle_error where the engine does
  // not run bundles of this target, or cannot load the model, or it is not the one that the manifest describes.
  Model(const std::string& folder, const Bytes& bytes, const Manifest& manifest, const SessionOptions& options);

  // The number of labels that the head inputs have, where it is fixed; else 0.
  std::int64_t fixed_labels() const noexcept { return fixed_labels_; }

  const Engine& engine() const noexcept { return *engine_; }

  // What runs it: see Program.
  std::string device() const { return program_->device(); }
  bool emulated() const { return program_->emulated(); }

  // Hold arrays of rows for many runs, as Program::bind does, or the tensors of an adapter.
  std::unique_ptr<const Bound> bind(const std::vector<InputArray>& arrays) const;
  std::unique_ptr<const Bound> bind_adapter(const void* data, std::size_t size) const;

  // An input_error where the model refuses an input, a bundle_error for other failures.
  void run(const Call& call) const;

 private:
  std::shared_ptr<const Engine> engine_;
  std::unique_ptr<const Program> program_;
  std::int64_t fixed_labels_ = 0;
};

}  // namespace bitfit

#endif  // BITFIT_SRC_MODEL_H
