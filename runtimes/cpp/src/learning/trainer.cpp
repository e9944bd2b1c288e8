#include <bitfit/trainer.h>

#include "failure.h"
#include "learning/run.h"
#include "sha256.h"
#include "write_file.h"

namespace bitfit {
namespace {

// The base model's row, as the manifest records it.
Bytes read_base_row(const Session::Parts& session) {
  const std::string path = session.folder + "/" + base_row_file;
  const auto record = session.manifest.files.find(base_row_file);
  Bytes file = read_file(path, max_row_size);
  if (record == session.manifest.files.end() || sha256_of(file.data(), file.size()) != record->second.sha256) {
    refuse_bundle(path + " has another sha256 than the manifest says");
  }
  return file;
}

// The row to start from: the one that is given, or the base model's, with a head that fits the task.
RowData start_row(const Session::Parts& session, const Learning& learning) {
  const Layout& layout = session.manifest.layout;
  const std::uint32_t labels = label_count(learning.task);
  const bool is_given = learning.start != nullptr;
  Bytes file;
  if (!is_given) file = read_base_row(session);
  const BiasRowView view = is_given ? read_row(learning.start, learning.start_size, layout, "to start from")
                                    : read_row(file.data(), file.size(), layout, base_row_file);
  RowData row = copy_row(view);
  if (is_given && row.problem_type == learning.task.problem_type && row.labels == labels) return row;
  return with_new_head(row, layout, learning.task.problem_type, labels, learning.settings.seed);
}

}  // namespace

struct Trainer::Parts {
  explicit Parts(const Session::Parts& of) : session(of), step(of) {}

  const Session::Parts& session;
  TrainStep step;
};

Trainer::Trainer(std::unique_ptr<Parts> parts) noexcept : parts_(std::move(parts)) {}
Trainer::~Trainer() = default;

Status Trainer::open(const Session& session, std::unique_ptr<Trainer>* out) noexcept {
  return guard([&] { out->reset(new Trainer(std::make_unique<Parts>(*session.parts_))); });
}

Status Trainer::learn(const Learning& learning, LearnedRow* out) const noexcept {
  return guard([&] {
    check_settings(learning.settings);
    check_task(learning.task);
    check_examples(learning.train, learning.task, "the training set");
    check_examples(learning.held_out, learning.task, "the validation set");
    if (learning.task.problem_type == ProblemType::single_label) check_varied(learning.train, learning.task);
    LearningRun run(parts_->session, parts_->step, learning, start_row(parts_->session, learning));
    run.prepare();
    *out = run.finish();
  });
}

Status LearnedRow::save(const std::string& path) const noexcept {
  return guard([&] { write_file(path, bytes.data(), bytes.size()); });
}

}  // namespace bitfit
