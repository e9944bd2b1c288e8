// The layouts packed and named: each task has inputs of its own, and a run serves one task.

#include "failure.h"
#include "names.h"
#include "row_values.h"
#include "task_store.h"

namespace bitfit {

namespace {

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
      add_biases(manifest, &arrays);
    }
    for (std::size_t t = 0; t < head.size(); ++t) {
      arrays.push_back(floats_at(layout.head[t].name.c_str(), head[t], shapes[t]));
    }
    inputs = model.bind(arrays);
  }

  OwnTask(std::unique_ptr<const Bound> adapter, TaskInfo of) : LoadedTask(std::move(of)), inputs(std::move(adapter)) {}

  const Bound* bound() const noexcept override { return inputs.get(); }

 private:
  // Each bias under its own name, in int32 where the manifest has its scales.
  void add_biases(const Manifest& manifest, std::vector<InputArray>* arrays) {
    std::size_t saturated = 0, most = 0;
    const std::string* worst = nullptr;
    if (!manifest.bias_scales.empty()) integers.resize(manifest.layout.bias_count);
    for (const BiasEntry& entry : manifest.layout.biases) {
      arrays->push_back(floats_at(entry.name.c_str(), values.data() + entry.offset, entry.shape));
      const auto scales = manifest.bias_scales.find(entry.name);
      if (scales == manifest.bias_scales.end()) continue;
      std::int32_t* const place = integers.data() + entry.offset;
      const std::size_t beyond = to_integers(values.data() + entry.offset, scales->second, place);
      arrays->back().type = ElementType::int32;
      arrays->back().values = place;
      saturated += beyond;
      if (beyond > most) most = beyond, worst = &entry.name;
    }
    if (worst == nullptr) return;
    info.warning = text_of("the row of the task ", info.name, " has ", saturated,
                           " values that saturate: as int32 they are beyond what the model can add; most are in ",
                           shown(*worst));
  }

  std::vector<float> values;
  std::vector<std::int32_t> integers;  // by the offsets of biases; empty where all are floats
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

std::unique_ptr<TaskStore> make_own_store(const Manifest& manifest, const Model& model) {
  return std::make_unique<OwnStore>(manifest, model);
}

}  // namespace bitfit
