#include <bitfit/session.h>

#include "failure.h"
#include "session_parts.h"
#include "sha256.h"

#include <algorithm>

namespace bitfit {
namespace {

// Hold the tasks for as long as the work takes.
template <class Work>
Status with_tasks(const Session::Parts& session, const std::string_view* tasks, std::size_t task_count,
                  const Batch& batch, Workspace::Parts* workspace, Work&& work) noexcept {
  Status status = guard([&] {
    if (task_count != 1 && task_count != batch.items) {
      fail(StatusCode::input_error, text_of("there are ", task_count, " tasks for ", batch.items,
                                            " items, expected one task, or one for each item"));
    }
    session.store->hold(tasks, task_count, &workspace->lease);
    work(workspace);
  });
  workspace->lease.clear();
  return status;
}

}  // namespace

Workspace::Workspace() : parts_(std::make_unique<Parts>()) {}
Workspace::~Workspace() = default;
Workspace::Workspace(Workspace&&) noexcept = default;
Workspace& Workspace::operator=(Workspace&&) noexcept = default;

Session::Session(std::unique_ptr<Parts> parts) noexcept : parts_(std::move(parts)) {}
Session::~Session() = default;

Status Session::open(const std::string& folder, const SessionOptions& options, std::unique_ptr<Session>* out) noexcept {
  return guard([&] { out->reset(new Session(std::make_unique<Parts>(folder, options))); });
}

std::string Session::device() const { return parts_->model.device(); }
bool Session::emulated() const { return parts_->model.emulated(); }

Status Session::tasks(std::vector<TaskInfo>* out) const noexcept {
  return guard([&] { *out = parts_->store->tasks(); });
}

Status Session::find_task(std::string_view name, TaskInfo* out) const noexcept {
  return guard([&] {
    if (parts_->store->find(name, out)) return;
    Lease lease;
    parts_->store->hold(&name, 1, &lease);  // fails, with the names that there are
    *out = lease.tasks.front()->info;
  });
}

Status Session::load_task(const std::string& path, std::string_view name,
                          const std::vector<std::string>& labels) noexcept {
  return guard([&] {
    const Bytes file = parts_->read_row_file(path);
    parts_->load(read_row(file.data(), file.size(), parts_->manifest.layout, path), name, labels);
  });
}

Status Session::load_task(const void* data, std::size_t size, std::string_view name,
                          const std::vector<std::string>& labels) noexcept {
  return guard([&] {
    if (parts_->trusted != nullptr) {
      fail(StatusCode::usage_error, "the session has trusted keys, and a row in memory has no signature",
           "load it from a file with its signature beside it");
    }
    parts_->load(read_row(data, size, parts_->manifest.layout, "in memory"), name, labels);
  });
}

Status Session::load_adapter(const std::string& name) noexcept {
  return guard([&] {
    const auto record = parts_->manifest.tasks.find(name);
    const std::string path = "tasks/" + name + ".onnx_adapter";
    const auto file = parts_->manifest.files.find(path);
    if (record == parts_->manifest.tasks.end() || file == parts_->manifest.files.end()) {
      fail(StatusCode::input_error, text_of("the bundle has no adapter for the task \"", shown(name), '"'),
           "load the task's row, or export the bundle with adapters");
    }
    const Bytes bytes =
        read_file(parts_->folder + "/" + path, std::min<std::uint64_t>(file->second.size, max_row_size));
    if (sha256_of(bytes.data(), bytes.size()) != file->second.sha256) {
      fail(StatusCode::bundle_error, text_of(path, " has another sha256 than the manifest says"), copy_again);
    }
    const TaskRecord& task = record->second;
    if (parts_->seen != nullptr) parts_->seen->take({{name, task.task_version}});
    TaskInfo info{name, task.problem_type, task.labels, task.label_count(), task.task_version, {}};
    parts_->store->add_adapter(bytes.data(), bytes.size(), std::move(info));
  });
}

Status Session::unload_task(std::string_view name) noexcept {
  return guard([&] { parts_->store->remove(name); });
}

std::size_t Session::max_tokens() const noexcept { return parts_->max_tokens(); }

std::size_t Session::logits_capacity(std::size_t items, std::size_t tokens) const noexcept {
  std::size_t capacity = 0;
  const Status status = guard([&] {
    for (const TaskInfo& task : parts_->store->tasks()) {
      capacity = std::max(capacity, multiply({items, is_token_task(task) ? tokens : 1, task.label_count}));
    }
  });
  return status.ok() ? capacity : 0;
}

const std::vector<std::string>& Session::outputs() const noexcept { return parts_->outputs; }

std::size_t Session::output_capacity(std::string_view name, std::size_t items, std::size_t tokens) const noexcept {
  std::size_t capacity = 0;
  const Status status = guard([&] {
    if (std::find(parts_->outputs.begin(), parts_->outputs.end(), name) == parts_->outputs.end()) return;
    for (const TaskInfo& task : parts_->store->tasks()) {
      capacity = std::max(capacity, multiply({items, name == token_logits_output ? tokens : 1, task.label_count}));
    }
  });
  return status.ok() ? capacity : 0;
}

Status Session::run(std::string_view task, const Batch& batch, Workspace* workspace, Logits* logits) const noexcept {
  return run(&task, 1, batch, workspace, logits);
}

Status Session::run(const std::string_view* tasks, std::size_t task_count, const Batch& batch, Workspace* workspace,
                    Logits* logits) const noexcept {
  return with_tasks(*parts_, tasks, task_count, batch, workspace->parts_.get(),
                    [&](Workspace::Parts* parts) { parts_->run(batch, parts, logits); });
}

Status Session::run_outputs(const std::string_view* tasks, std::size_t task_count, const Batch& batch,
                            Workspace* workspace, Output* outputs, std::size_t output_count) const noexcept {
  return with_tasks(*parts_, tasks, task_count, batch, workspace->parts_.get(),
                    [&](Workspace::Parts* parts) { parts_->run_outputs(batch, parts, outputs, output_count); });
}

const Tokenizer* Session::tokenizer(Status* why) const noexcept {
  if (why != nullptr) *why = parts_->tokenizer_status;
  return parts_->tokenizer.get();
}

}  // namespace bitfit
