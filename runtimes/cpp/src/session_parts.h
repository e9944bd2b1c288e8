// What a session and a workspace are made of.

#ifndef BITFIT_SRC_SESSION_PARTS_H
#define BITFIT_SRC_SESSION_PARTS_H

#include <bitfit/session.h>

#include "bundle_files.h"
#include "manifest.h"
#include "model.h"
#include "read_file.h"
#include "seen_versions.h"
#include "signatures.h"
#include "task_store.h"

#include <memory>
#include <string>
#include <string_view>
#include <vector>

namespace bitfit {

// An output that a run is asked for, and where it goes.
struct Wanted {
  bool by_token = false;  // token_logits, or else logits
  Logits* logits = nullptr;
};

constexpr std::size_t most_outputs = 2;

struct Workspace::Parts {
  Lease lease;  // of the run: the task of all items, or one per item
  std::unique_ptr<Scratch> scratch;
  std::vector<std::int64_t> zeros;  // token types where the caller has none
  std::vector<std::int64_t> slots;
  std::vector<std::int64_t> ids, mask, types;  // a batch of the model's own shape
  std::vector<float> whole[most_outputs];      // the model's outputs, where they are wider than what is asked for
};

inline bool is_token_task(const TaskInfo& task) noexcept {
  return task.problem_type == ProblemType::token || task.problem_type == ProblemType::span;
}

// Everything here fails by a Failure.
struct Session::Parts {
  Parts(const std::string& bundle, const SessionOptions& options);

  // The bytes of a row file that this session may use.
  Bytes read_row_file(const std::string& path) const;

  // Load a row that was compared with the layout; see Session::load_task.
  void load(const BiasRowView& row, std::string_view name, const std::vector<std::string>& labels);

  // The longest sequence that the model takes.
  std::size_t max_tokens() const noexcept;

  // Check a batch, then run it for the tasks in the workspace's lease: the one output that all of these have their
  // answers in, or those that are named.
  void run(const Batch& batch, Workspace::Parts* workspace, Logits* logits) const;
  void run_outputs(const Batch& batch, Workspace::Parts* workspace, Output* outputs, std::size_t count) const;

  std::string folder;
  std::unique_ptr<const TrustedKeys> trusted;  // null: nothing has to be signed
  std::unique_ptr<SeenVersions> seen;          // null: no version is kept
  Manifest manifest;
  int threads;                       // for one run; 0: the engine's choice
  std::vector<std::string> outputs;  // that can be asked for

 private:
  std::unique_ptr<BundleFiles> files_;  // while the bundle is opened

 public:
  Model model;
  std::unique_ptr<TaskStore> store;
  std::unique_ptr<Tokenizer> tokenizer;  // null where it cannot be read, for the reason in the status
  Status tokenizer_status;

 private:
  // Load a row of the bundle, which must be the one that the manifest records.
  void load_recorded(const std::string& name);
  // Look for the rows that are not loaded, and compare their SHA-256 where that is asked for.
  void check_others(const SessionOptions& options) const;
  // The task that a row becomes, if the model can run it.
  TaskInfo check_task(const BiasRowView& row, std::string_view name, const std::vector<std::string>& labels) const;
  TaskInfo describe_task(const BiasRowView& row, std::string_view name, const std::vector<std::string>& labels) const;
  std::vector<std::string> default_labels(const TaskInfo& task) const;

  void check_batch(const Batch& batch) const;
  void check_item(const Batch& batch, std::size_t item) const;
  void check_mix(const Lease& lease, bool one_output) const;
  void run_wanted(const Batch& batch, Workspace::Parts* workspace, const Wanted* wanted, std::size_t count) const;
  void run_whole(const Batch& batch, Workspace::Parts* workspace, const Wanted* wanted, std::size_t count) const;
  void run_parts(const Batch& batch, Workspace::Parts* workspace, const Wanted* wanted, std::size_t count) const;
  void run_model(const Batch& batch, std::int64_t labels, Workspace::Parts* workspace, const Wanted* wanted,
                 float* const* values, std::size_t count) const;

  bool has_token_types_;
};

// Read a row and compare it with the layout. `where` names it in messages.
BiasRowView read_row(const void* data, std::size_t size, const Layout& layout, const std::string& where);

}  // namespace bitfit

#endif  // BITFIT_SRC_SESSION_PARTS_H
