#include "task_store.h"

#include "failure.h"

#include <algorithm>
#include <new>

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

namespace {

// Fails where std::size_t cannot hold it, before anything of that size is made.
std::size_t product(const std::vector<std::int64_t>& shape) {
  std::size_t size = 1;
  for (const std::int64_t dimension : shape) size = multiply({size, static_cast<std::size_t>(dimension)});
  return size;
}

std::size_t stride_of(const std::vector<std::int64_t>& shape, std::size_t axis) {
  return product({shape.begin() + static_cast<std::ptrdiff_t>(axis) + 1, shape.end()});
}

// Copy what two tensors of one rank have in common, from the start of each dimension.
void copy(const float* from, const std::vector<std::int64_t>& from_shape, float* to,
          const std::vector<std::int64_t>& to_shape, std::size_t axis = 0) {
  const auto common = static_cast<std::size_t>(std::min(from_shape[axis], to_shape[axis]));
  if (axis + 1 == to_shape.size()) {
    std::copy_n(from, common, to);
    return;
  }
  const std::size_t from_stride = stride_of(from_shape, axis), to_stride = stride_of(to_shape, axis);
  for (std::size_t i = 0; i < common; ++i) {
    copy(from + i * from_stride, from_shape, to + i * to_stride, to_shape, axis + 1);
  }
}

// A row's values, as the model's inputs want them: the biases, then each head tensor in the shape for this many labels.
// What the row's head lacks of these shapes is zero.
void write_row(const BiasRowView& row, const Layout& layout, std::int64_t labels, float* biases,
               const std::vector<float*>& head) {
  if (const float* const values = row.floats()) {
    std::copy_n(values, row.bias_count, biases);
  } else {
    for (std::uint32_t i = 0; i < row.bias_count; ++i) biases[i] = row.bias(i);
  }
  std::vector<float> values;  // where the row has no floats
  for (std::size_t t = 0; t < layout.head.size(); ++t) {
    const std::vector<std::int64_t> shape = layout.head[t].resolve(labels);
    std::fill_n(head[t], product(shape), 0.0f);
    const HeadTensor& tensor = row.heads[t];
    if (tensor.size == 0) continue;
    const float* from = row.floats() ? row.floats() + tensor.offset : nullptr;
    if (from == nullptr) {
      values.resize(tensor.size);
      for (std::size_t i = 0; i < tensor.size; ++i) values[i] = row.head(t, i);
      from = values.data();
    }
    copy(from, {tensor.dim, tensor.dim + tensor.rank}, head[t], shape);
  }
}

// The slots of a table that nothing reads.
class FreeSlots {
 public:
  void give(std::int64_t slot) noexcept {
    const std::lock_guard<std::mutex> guard(lock_);
    slots_.push_back(slot);  // `extend` has made room for it
  }

  // -1 where there is none.
  std::int64_t take() noexcept {
    const std::lock_guard<std::mutex> guard(lock_);
    if (slots_.empty()) return -1;
    const std::int64_t slot = slots_.back();
    slots_.pop_back();
    return slot;
  }

  // Add the slots from `first` to before `last`.
  void extend(std::int64_t first, std::int64_t last) {
    const std::lock_guard<std::mutex> guard(lock_);
    slots_.reserve(static_cast<std::size_t>(last));
    for (std::int64_t slot = last - 1; slot >= first; --slot) slots_.push_back(slot);
  }

 private:
  std::mutex lock_;
  std::vector<std::int64_t> slots_;
};

// Gives its slot back when the last lease lets go of it.
struct TableTask final : LoadedTask {
  TableTask(TaskInfo of, std::int64_t at, std::shared_ptr<FreeSlots> free)
      : LoadedTask(std::move(of)), slot_(at), free_(std::move(free)) {}
  ~TableTask() override { free_->give(slot_); }
  TableTask(const TableTask&) = delete;
  TableTask& operator=(const TableTask&) = delete;

  std::int64_t slot() const noexcept override { return slot_; }

 private:
  std::int64_t slot_;
  std::shared_ptr<FreeSlots> free_;
};

InputArray floats_at(const char* name, const float* values, const std::vector<std::int64_t>& shape) {
  return {name, ElementType::float32, values, shape.data(), shape.size()};
}

// One size of the table: bias_table [capacity, N], then a tensor [capacity, ...] for each head entry.
class Arrays final : public Table {
 public:
  Arrays(const Layout& layout, const Model& model, std::int64_t capacity, std::int64_t labels)
      : layout_(layout), capacity_(capacity), labels_(labels) {
    add(bias_table_input, {layout.bias_count});
    for (const HeadEntry& entry : layout.head) add(entry.name.c_str(), entry.resolve(labels));
    std::vector<InputArray> arrays;
    for (const Input& input : inputs_) arrays.push_back(floats_at(input.name, input.values.data(), input.whole));
    bound_ = model.bind(arrays);
  }

  std::int64_t capacity() const noexcept { return capacity_; }
  std::int64_t labels() const noexcept override { return labels_; }

  const Bound* bound() const noexcept override { return bound_.get(); }

  void write(std::int64_t slot, const BiasRowView& row) {
    std::vector<float*> head;
    for (std::size_t t = 1; t < inputs_.size(); ++t) head.push_back(at(t, slot));
    write_row(row, layout_, labels_, at(0, slot), head);
  }

  // What another table has, in its place; what is wider there is zero or of a task that has left.
  void copy_from(const Arrays& old) {
    for (std::size_t t = 0; t < inputs_.size(); ++t) {
      for (std::int64_t slot = 0; slot < old.capacity_; ++slot) {
        copy(old.at(t, slot), old.inputs_[t].shape, at(t, slot), inputs_[t].shape);
      }
    }
  }

 private:
  struct Input {
    const char* name;                 // the layout's
    std::vector<std::int64_t> shape;  // of one slot
    std::vector<std::int64_t> whole;  // of all slots
    std::vector<float> values;
  };

  void add(const char* name, std::vector<std::int64_t> shape) {
    std::vector<float> values(multiply({product(shape), static_cast<std::size_t>(capacity_)}));
    std::vector<std::int64_t> whole = shape;
    whole.insert(whole.begin(), capacity_);
    inputs_.push_back({name, std::move(shape), std::move(whole), std::move(values)});
  }

  float* at(std::size_t tensor, std::int64_t slot) {
    Input& input = inputs_[tensor];
    return input.values.data() + product(input.shape) * static_cast<std::size_t>(slot);
  }
  const float* at(std::size_t tensor, std::int64_t slot) const { return const_cast<Arrays*>(this)->at(tensor, slot); }

  const Layout& layout_;
  std::int64_t capacity_;
  std::int64_t labels_;
  std::vector<Input> inputs_;
  std::unique_ptr<const Bound> bound_;  // over the values of all inputs
};

class TableStore final : public TaskStore {
 public:
  // There will be room for `rows` rows. One slot more: a row is replaced by writing the new one elsewhere.
  TableStore(const Layout& layout, const Model& model, std::size_t rows)
      : layout_(layout),
        model_(model),
        free_(std::make_shared<FreeSlots>()),
        wanted_(static_cast<std::int64_t>(rows) + 1) {}

  bool mixes_tasks() const noexcept override { return true; }
  std::int64_t output_labels(const Lease& lease) const noexcept override { return lease.table->labels(); }

  void add(const BiasRowView& row, TaskInfo info) override {
    const std::lock_guard<std::mutex> guard(writing_);
    refuse_older(info);
    if (arrays_ == nullptr || row.labels > arrays_->labels()) replace_table(capacity(), row.labels);
    std::int64_t slot = free_->take();
    if (slot < 0) {
      replace_table(capacity() < wanted_ ? std::min(2 * capacity(), wanted_) : 2 * capacity(), arrays_->labels());
      slot = free_->take();
    }
    // From here on the task gives the slot back, whatever happens.
    auto task = std::make_shared<TableTask>(std::move(info), slot, free_);
    arrays_->write(slot, row);
    put(std::move(task));
    shrink();
  }

  // A table as wide as the widest task makes every run pay for it.
  void remove(std::string_view name) override {
    const std::lock_guard<std::mutex> guard(writing_);
    TaskStore::remove(name);
    shrink();
  }

 private:
  static constexpr std::int64_t first_capacity = 4;

  std::shared_ptr<const Table> table() const override { return arrays_; }

  // Of the table that there is, or of the first one: it grows with the rows that are accepted.
  std::int64_t capacity() const noexcept { return arrays_ ? arrays_->capacity() : std::min(first_capacity, wanted_); }

  // The writer's lock is held. Free slots of the old table are free in the new one.
  void replace_table(std::int64_t capacity, std::int64_t labels) {
    auto next = std::make_shared<Arrays>(layout_, model_, capacity, labels);
    const std::int64_t old_capacity = arrays_ ? arrays_->capacity() : 0;
    if (arrays_) next->copy_from(*arrays_);
    {
      const std::lock_guard<std::mutex> guard(lock());
      arrays_ = std::move(next);
    }
    free_->extend(old_capacity, capacity);
  }

  // A task has left: where it was the widest, the table is made as narrow as the others need. Where there is no memory
  // for that, or the engine has none, the table stays as it is, which is right as well.
  void shrink() {
    const std::int64_t labels = most_labels();
    if (labels >= arrays_->labels()) return;
    try {
      replace_table(arrays_->capacity(), labels);
    } catch (const std::bad_alloc&) {
    } catch (const Failure&) {
    }
  }

  const Layout& layout_;
  const Model& model_;
  std::mutex writing_;  // one writer at a time; rows and whole tables are copied under it
  std::shared_ptr<FreeSlots> free_;
  std::int64_t wanted_;
  std::shared_ptr<Arrays> arrays_;  // null before the first row; replaced under both locks
};

// A row's values in memory of the task's own, or an adapter, which is the engine's.
struct OwnTask final : LoadedTask {
  OwnTask(const BiasRowView& row, const Manifest& manifest, const Model& model, std::int64_t labels, TaskInfo of)
      : LoadedTask(std::move(of)) {
    const Layout& layout = manifest.layout;
    std::vector<std::vector<std::int64_t>> shapes;  // of the head
    std::size_t size = layout.bias_count;
    for (const HeadEntry& entry : layout.head) size += product(shapes.emplace_back(entry.resolve(labels)));
    values.resize(size);
    std::vector<float*> head;
    float* next = values.data() + layout.bias_count;
    for (const std::vector<std::int64_t>& shape : shapes) {
      head.push_back(next);
      next += product(shape);
    }
    write_row(row, layout, labels, values.data(), head);
    std::vector<InputArray> arrays;
    const std::vector<std::int64_t> packed = {layout.bias_count};
    if (manifest.layout_kind == LayoutKind::packed) {
      arrays.push_back(floats_at(packed_bias_input, values.data(), packed));
    } else {
      for (const BiasEntry& entry : layout.biases) {
        arrays.push_back(floats_at(entry.name.c_str(), values.data() + entry.offset, entry.shape));
      }
    }
    for (std::size_t t = 0; t < head.size(); ++t) {
      arrays.push_back(floats_at(layout.head[t].name.c_str(), head[t], shapes[t]));
    }
    inputs = model.bind(arrays);
  }

  OwnTask(std::unique_ptr<const Bound> adapter, TaskInfo of) : LoadedTask(std::move(of)), inputs(std::move(adapter)) {}

  const Bound* bound() const noexcept override { return inputs.get(); }

 private:
  std::vector<float> values;
  std::unique_ptr<const Bound> inputs;
};

class OwnStore final : public TaskStore {
 public:
  OwnStore(const Manifest& manifest, const Model& model) : manifest_(manifest), model_(model) {}

  bool mixes_tasks() const noexcept override { return false; }

  std::int64_t output_labels(const Lease& lease) const noexcept override {
    return labels_of(lease.tasks.front()->info);
  }

  void add(const BiasRowView& row, TaskInfo info) override {
    const std::lock_guard<std::mutex> guard(writing_);
    refuse_older(info);
    const std::int64_t labels = labels_of(info);
    put(std::make_shared<OwnTask>(row, manifest_, model_, labels, std::move(info)));
  }

  void add_adapter(const void* data, std::size_t size, TaskInfo info) override {
    if (manifest_.layout_kind != LayoutKind::named) return TaskStore::add_adapter(data, size, std::move(info));
    const std::lock_guard<std::mutex> guard(writing_);
    refuse_older(info);
    put(std::make_shared<OwnTask>(model_.bind_adapter(data, size), std::move(info)));
  }

 private:
  // That the head inputs have for a task.
  std::int64_t labels_of(const TaskInfo& info) const noexcept {
    return model_.fixed_labels() > 0 ? model_.fixed_labels() : std::int64_t{info.label_count};
  }

  const Manifest& manifest_;
  const Model& model_;
  std::mutex writing_;
};

}  // namespace

std::unique_ptr<TaskStore> make_store(const Manifest& manifest, const Model& model, std::size_t rows) {
  if (manifest.layout_kind == LayoutKind::table) return std::make_unique<TableStore>(manifest.layout, model, rows);
  return std::make_unique<OwnStore>(manifest, model);
}

}  // namespace bitfit
