// The layout table: one array with a slot per task, of which every run reads those that its items name.

#include "failure.h"
#include "names.h"
#include "row_values.h"
#include "task_store.h"

#include <algorithm>
#include <new>

namespace bitfit {

namespace {

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
        copy_common(old.at(t, slot), old.inputs_[t].shape, at(t, slot), inputs_[t].shape);
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

}  // namespace

std::unique_ptr<TaskStore> make_table_store(const Layout& layout, const Model& model, std::size_t rows) {
  return std::make_unique<TableStore>(layout, model, rows);
}

}  // namespace bitfit
