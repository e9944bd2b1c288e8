// The loaded tasks. Rows come and go while other threads run the model, and no run may see half of one. So a run takes
// a lease, which holds the tasks of its rows as they are at one moment, and what a lease holds never changes:
//
// - in the layout table, a row is written into a slot of the table that nothing reads, and only then becomes the task's
//   slot; a slot is free again when its task has left it and no lease holds it; a table that is too small, or too wide
//   for all tasks, is replaced by another one, and leases keep the old one;
// - in the layouts packed and named, a task has memory of its own.

#ifndef BITFIT_SRC_TASK_STORE_H
#define BITFIT_SRC_TASK_STORE_H

#include "model.h"

#include <map>
#include <memory>
#include <mutex>
#include <string>
#include <string_view>
#include <vector>

namespace bitfit {

// A task whose values are where runs can read them.
struct LoadedTask {
  explicit LoadedTask(TaskInfo of) : info(std::move(of)) {}
  virtual ~LoadedTask() = default;

  // Of the table: where the row is.
  virtual std::int64_t slot() const noexcept { return 0; }
  // Of the other layouts: the task's inputs. Null in the table.
  virtual const Bound* bound() const noexcept { return nullptr; }

  TaskInfo info;
};

// The table that slots are in.
class Table {
 public:
  virtual ~Table() = default;
  virtual const Bound* bound() const noexcept = 0;
  virtual std::int64_t labels() const noexcept = 0;
};

// What a run holds. Clearing it keeps its memory for the next run.
struct Lease {
  std::vector<std::shared_ptr<const LoadedTask>> tasks;
  std::shared_ptr<const Table> table;  // null where tasks have memory of their own

  void clear() noexcept {
    tasks.clear();
    table.reset();
  }
};

class TaskStore {
 public:
  virtual ~TaskStore() = default;

  // Whether one run can serve rows of different tasks.
  virtual bool mixes_tasks() const noexcept = 0;

  // Load a row that was compared with the layout, or replace the task of the same name. An input_error where the
  // loaded one has a higher version.
  virtual void add(const BiasRowView& row, TaskInfo info) = 0;

  // Load a task from an adapter. A usage_error where the layout has none.
  virtual void add_adapter(const void* data, std::size_t size, TaskInfo info);

  // The number of labels that the model's output has for a lease of these tasks.
  virtual std::int64_t output_labels(const Lease& lease) const noexcept = 0;

  virtual void remove(std::string_view name);
  void hold(const std::string_view* names, std::size_t count, Lease* lease) const;
  std::vector<TaskInfo> tasks() const;
  bool find(std::string_view name, TaskInfo* info) const;

 protected:
  // With the lock held, which guards everything that a lease is taken from. It is held for look-ups alone.
  virtual std::shared_ptr<const Table> table() const { return nullptr; }
  std::int64_t most_labels() const;  // of the loaded tasks; 1 where there is none
  void refuse_older(const TaskInfo& info) const;
  void put(std::shared_ptr<const LoadedTask> task);
  std::mutex& lock() const noexcept { return lock_; }

 private:
  [[noreturn]] void refuse_unknown(std::string_view name) const;

  mutable std::mutex lock_;
  std::map<std::string, std::shared_ptr<const LoadedTask>, std::less<>> entries_;
};

// The store for the layout of the manifest. Manifest and model must outlive it.
//
// Nothing is made before the first row is added; there will be room for `rows` rows.
std::unique_ptr<TaskStore> make_store(const Manifest& manifest, const Model& model, std::size_t rows);

// Its two kinds: the layout table, and the layouts packed and named.
std::unique_ptr<TaskStore> make_table_store(const Layout& layout, const Model& model, std::size_t rows);
std::unique_ptr<TaskStore> make_own_store(const Manifest& manifest, const Model& model);

}  // namespace bitfit

#endif  // BITFIT_SRC_TASK_STORE_H
