#include "task_store.h"

#include "failure.h"

#include <algorithm>

namespace bitfit {

void TaskStore::add_adapter(const void*, std::size_t, TaskInfo) {
  fail(StatusCode::usage_error, "the bundle's layout takes no adapters, expected the layout named",
       "load the task's row, or export the bundle with --layout named");
}

void TaskStore::remove(std::string_view name) {
  std::shared_ptr<const LoadedTask> removed;  // destroyed when the lock is free again: a slot's return takes a lock
  const std::lock_guard<std::mutex> guard(lock_);
  const auto found = entries_.find(name);
  if (found == entries_.end()) refuse_unknown(name);
  removed = std::move(found->second);
  entries_.erase(found);
}

void TaskStore::hold(const std::string_view* names, std::size_t count, Lease* lease) const {
  lease->clear();
  const std::lock_guard<std::mutex> guard(lock_);
  for (std::size_t i = 0; i < count; ++i) {
    const auto found = entries_.find(names[i]);
    if (found == entries_.end()) refuse_unknown(names[i]);
    lease->tasks.push_back(found->second);
  }
  lease->table = table();
}

std::vector<TaskInfo> TaskStore::tasks() const {
  std::vector<TaskInfo> infos;
  const std::lock_guard<std::mutex> guard(lock_);
  for (const auto& [name, task] : entries_) infos.push_back(task->info);
  return infos;
}

bool TaskStore::find(std::string_view name, TaskInfo* info) const {
  const std::lock_guard<std::mutex> guard(lock_);
  const auto found = entries_.find(name);
  if (found == entries_.end()) return false;
  *info = found->second->info;
  return true;
}

std::int64_t TaskStore::most_labels() const {
  std::int64_t labels = 1;
  const std::lock_guard<std::mutex> guard(lock_);
  for (const auto& [name, task] : entries_) labels = std::max<std::int64_t>(labels, task->info.label_count);
  return labels;
}

void TaskStore::refuse_older(const TaskInfo& info) const {
  const std::lock_guard<std::mutex> guard(lock_);
  const auto found = entries_.find(info.name);
  if (found == entries_.end() || info.task_version >= found->second->info.task_version) return;
  fail(StatusCode::input_error,
       text_of("the task ", info.name, " has version ", info.task_version, ", expected ",
               found->second->info.task_version, " or more, the version that is loaded"),
       "unload the task first to go back to an older version");
}

void TaskStore::put(std::shared_ptr<const LoadedTask> task) {
  std::string name = task->info.name;
  const std::lock_guard<std::mutex> guard(lock_);
  // What was there before is destroyed by the caller's argument, when the lock is free again.
  entries_[std::move(name)].swap(task);
}

void TaskStore::refuse_unknown(std::string_view name) const {
  constexpr std::size_t most = 10;  // of the names that are shown
  std::string names;
  std::size_t count = 0;
  for (const auto& [known, task] : entries_) {
    if (++count > most) break;
    names += (count > 1 ? ", " : "") + known;
  }
  const std::string missing = text_of("the task \"", shown(name), "\" is not loaded");
  if (entries_.empty()) fail(StatusCode::input_error, missing + ", and no other is");
  if (entries_.size() > most) names += text_of(" and ", entries_.size() - most, " more");
  fail(StatusCode::input_error, missing + ", expected one of " + names);
}

std::unique_ptr<TaskStore> make_store(const Manifest& manifest, const Model& model, std::size_t rows) {
  if (manifest.layout_kind == LayoutKind::table) return make_table_store(manifest.layout, model, rows);
  return make_own_store(manifest, model);
}

}  // namespace bitfit
