// Opening a bundle and loading rows: every check that stands between a file and a run.

#include "failure.h"
#include "mapped_file.h"
#include "session_parts.h"
#include "sha256.h"

#include <algorithm>

namespace bitfit {
namespace {

std::string describe(const BiasRowView& row) {
  return text_of(row.task, " (", problem_type_name(row.problem_type), ", ", row.labels, " labels, version ",
                 row.task_version, ')');
}

[[noreturn]] void refuse_row(const std::string& where, RowStatus status, const RowProblem& problem) {
  Status refused{StatusCode::row_error,
                 text_of("the row ", where, " is refused: ", row_status_text(status), ": ", problem.what, ": found ",
                         problem.found, ", expected ", problem.expected),
                 copy_again, status};
  if (status == RowStatus::wrong_layout) refused.hint = "export the row again for this bundle";
  throw Failure{std::move(refused)};
}

Manifest read_manifest(const std::string& folder, const SessionOptions& options) {
  if (options.threads < 0) {
    fail(StatusCode::usage_error, text_of("threads is ", options.threads, ", expected 0 or more"));
  }
  const std::string path = folder + "/manifest.json";
  Manifest manifest = parse_manifest(MappedFile(path).text(), path);
  for (const std::string& name : options.tasks) {
    if (manifest.tasks.count(name) == 0) fail(StatusCode::input_error, text_of("the bundle has no task \"", name, '"'));
  }
  check_files(folder, manifest, options.check_hashes);
  return manifest;
}

}  // namespace

BiasRowView read_row(const void* data, std::size_t size, const Layout& layout, const std::string& where) {
  BiasRowView row;
  RowProblem problem;
  RowStatus status = read_bias_row(data, size, &row, &problem);
  if (status == RowStatus::ok) status = layout.check(row, &problem);
  if (status != RowStatus::ok) refuse_row(where, status, problem);
  return row;
}

Session::Parts::Parts(const std::string& bundle, const SessionOptions& options)
    : folder(bundle),
      manifest(read_manifest(bundle, options)),
      model(bundle, manifest, options.threads),
      has_token_types_(manifest.has_input("token_type_ids")) {
  std::vector<std::string> names = options.tasks;
  if (names.empty()) {
    for (const auto& [name, record] : manifest.tasks) names.push_back(name);
  }
  std::uint32_t labels = 1;
  for (const std::string& name : names) labels = std::max(labels, manifest.tasks.at(name).label_count());
  store = make_store(manifest, std::max(names.size(), options.room), labels, model.fixed_labels());
  for (const std::string& name : names) load_recorded(name);
  tokenizer_status = Tokenizer::open(folder + "/tokenizer.json", &tokenizer);
}

// Load a row of the bundle, which must be the one that the manifest records.
void Session::Parts::load_recorded(const std::string& name) {
  const TaskRecord& record = manifest.tasks.at(name);
  const std::string path = folder + "/" + record.file;
  const std::vector<std::uint8_t> file = read_file(path);
  const BiasRowView row = read_row(file.data(), file.size(), manifest.layout, path);
  if (row.task != name || row.problem_type != record.problem_type || row.labels != record.label_count() ||
      row.task_version != record.task_version) {
    fail(StatusCode::bundle_error,
         text_of(path, " is the row ", describe(row), ", expected ", name, " (", problem_type_name(record.problem_type),
                 ", ", record.label_count(), " labels, version ", record.task_version, ')'),
         copy_again);
  }
  const std::string digest = sha256_of(file.data(), file.size());
  if (digest != record.sha256) {
    fail(StatusCode::bundle_error,
         text_of(path, " has sha256 ", digest.substr(0, 12), ", expected ", record.sha256.substr(0, 12)),
         "copy the bundle again, or export it again; a row that replaces it is loaded with load_task");
  }
  load(row, name, record.labels);
}

void Session::Parts::load(const BiasRowView& row, std::string_view name, const std::vector<std::string>& labels) {
  TaskInfo task = describe_task(row, name, labels);
  if (is_token_task(task) && !manifest.has_output(token_logits_output)) {
    fail(StatusCode::input_error,
         text_of("the task ", task.name, " is a ", problem_type_name(task.problem_type),
                 " task, but the model has no output ", token_logits_output),
         text_of("export the bundle together with ", task.name));
  }
  const std::int64_t limit = model.fixed_labels();
  if (limit > 0 && task.label_count > limit) {
    fail(StatusCode::input_error,
         text_of("the task ", task.name, " has ", task.label_count, " labels, expected at most ", limit,
                 ": the model's shapes are fixed"),
         text_of("export the bundle together with ", task.name));
  }
  store->add(row, std::move(task));
}

TaskInfo Session::Parts::describe_task(const BiasRowView& row, std::string_view name,
                                       const std::vector<std::string>& labels) const {
  TaskInfo task;
  task.name = name.empty() ? std::string(row.task) : std::string(name);
  if (!is_task_name(task.name)) {
    fail(StatusCode::input_error,
         text_of("the task name is \"", task.name, "\", expected letters, digits, '.', '_' or '-'"));
  }
  task.problem_type = row.problem_type;
  task.label_count = row.labels;
  task.task_version = row.task_version;
  task.labels = labels.empty() ? default_labels(task) : labels;
  std::vector<std::string> sorted = task.labels;
  std::sort(sorted.begin(), sorted.end());
  const bool unique = std::adjacent_find(sorted.begin(), sorted.end()) == sorted.end();
  const std::size_t count = task.problem_type == ProblemType::regression ? 0 : task.label_count;
  if (task.labels.size() != count || !unique || (count > 0 && sorted.front().empty())) {
    fail(StatusCode::input_error,
         text_of("the labels of ", task.name, " can't be used, expected ", count, " different names"));
  }
  return task;
}

std::vector<std::string> Session::Parts::default_labels(const TaskInfo& task) const {
  if (task.problem_type == ProblemType::regression) return {};
  TaskInfo loaded;
  if (store->find(task.name, &loaded) && loaded.problem_type == task.problem_type &&
      loaded.labels.size() == task.label_count) {
    return loaded.labels;
  }
  const auto record = manifest.tasks.find(task.name);
  if (record != manifest.tasks.end() && record->second.problem_type == task.problem_type &&
      record->second.labels.size() == task.label_count) {
    return record->second.labels;
  }
  std::vector<std::string> labels;
  for (std::uint32_t i = 0; i < task.label_count; ++i) labels.push_back(text_of("LABEL_", i));
  return labels;
}

}  // namespace bitfit
