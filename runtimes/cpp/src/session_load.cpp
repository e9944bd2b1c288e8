// Opening a bundle and loading rows: every check that stands between a file and a run.

#include "failure.h"
#include "record.h"
#include "session_parts.h"
#include "sha256.h"
#include "threads.h"

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

Manifest read_manifest(const std::string& folder, const SessionOptions& options, const TrustedKeys* trusted) {
  check_threads("threads", options.threads);
  const std::string path = folder + "/" + manifest_file;
  const Bytes file = read_file(path, max_manifest_size);
  if (trusted != nullptr) trusted->check(file, path);
  Manifest manifest = parse_manifest(text_in(file), path);
  if (!manifest.reads_text) {
    fail(StatusCode::bundle_error, text_of(path, ": the model reads other things than text, expected text"));
  }
  for (const std::string& name : options.tasks) {
    if (manifest.tasks.count(name) > 0) continue;
    fail(StatusCode::input_error, text_of("the bundle has no task \"", shown(name), '"'));
  }
  return manifest;
}

// The tasks to load, the one with the most labels first: the table has its final width with the first row, and no row
// makes room for what only the manifest says.
std::vector<std::string> names_to_load(const Manifest& manifest, const SessionOptions& options) {
  std::vector<std::string> names = options.tasks;
  if (names.empty()) {
    for (const auto& [name, record] : manifest.tasks) names.push_back(name);
  }
  const auto wider = [&](const std::string& left, const std::string& right) {
    return manifest.tasks.at(left).label_count() > manifest.tasks.at(right).label_count();
  };
  std::stable_sort(names.begin(), names.end(), wider);
  return names;
}

void check_digest(const std::string& path, const Bytes& row, const TaskRecord& record) {
  const std::string digest = sha256_of(row.data(), row.size());
  if (digest == record.sha256) return;
  fail(StatusCode::bundle_error,
       text_of(path, " has sha256 ", digest.substr(0, 12), ", expected ", record.sha256.substr(0, 12)),
       "copy the bundle again, or export it again; a row that replaces it is loaded with load_task");
}

// The bytes of a row file, whoever made it.
Bytes read_any_row_file(const std::string& path) {
  OpenFile file(path);
  if (file.size() > max_row_size) {
    refuse_row(path, RowStatus::trailing_bytes,
               {RowStatus::trailing_bytes, "bytes in the file, at most", max_row_size, file.size(), max_row_size});
  }
  return read_all(&file);
}

}  // namespace

Bytes Session::Parts::read_row_file(const std::string& path) const {
  Bytes bytes = read_any_row_file(path);
  if (trusted != nullptr) trusted->check(bytes, path);
  return bytes;
}

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
      trusted(options.trusted_keys ? std::make_unique<TrustedKeys>(*options.trusted_keys) : nullptr),
      seen(options.state.empty() ? nullptr : std::make_unique<SeenVersions>(options.state)),
      manifest(read_manifest(bundle, options, trusted.get())),
      threads(options.threads),
      files_(std::make_unique<BundleFiles>(bundle, manifest, manifest.infer(), options.check_hashes || trusted)),
      model(bundle, files_->model, manifest, options),
      has_token_types_(manifest.has_input(token_type_ids_input)) {
  files_->check_unchanged();
  for (const char* name : {logits_output, token_logits_output}) {
    if (manifest.has_output(name)) outputs.emplace_back(name);
  }
  const std::vector<std::string> names = names_to_load(manifest, options);
  store = make_store(manifest, model, std::max(names.size(), options.room));
  for (const std::string& name : names) load_recorded(name);
  check_others(options);
  tokenizer_status = Tokenizer::parse(text_in(files_->tokenizer), folder + "/" + tokenizer_file, &tokenizer);
  files_.reset();
  if (seen == nullptr) return;
  Versions versions;  // noted when nothing more can be wrong
  for (const std::string& name : names) versions[name] = manifest.tasks.at(name).task_version;
  seen->take(versions);
}

void Session::Parts::load_recorded(const std::string& name) {
  const TaskRecord& record = manifest.tasks.at(name);
  const std::string path = folder + "/" + record.file;
  const Bytes file = read_row_file(path);
  const BiasRowView row = read_row(file.data(), file.size(), manifest.layout, path);
  if (row.task != name || row.problem_type != record.problem_type || row.labels != record.label_count() ||
      row.task_version != record.task_version) {
    fail(StatusCode::bundle_error,
         text_of(path, " is the row ", describe(row), ", expected ", name, " (", problem_type_name(record.problem_type),
                 ", ", record.label_count(), " labels, version ", record.task_version, ')'),
         copy_again);
  }
  check_digest(path, file, record);
  store->add(row, check_task(row, name, record.labels));
}

void Session::Parts::check_others(const SessionOptions& options) const {
  for (const auto& [name, record] : manifest.tasks) {
    TaskInfo loaded;
    if (store->find(name, &loaded)) continue;
    const std::string path = folder + "/" + record.file;
    if (options.check_hashes || trusted != nullptr) {
      check_digest(path, read_any_row_file(path), record);
    } else {
      const OpenFile looked_for(path);
    }
  }
}

void Session::Parts::load(const BiasRowView& row, std::string_view name, const std::vector<std::string>& labels) {
  TaskInfo task = check_task(row, name, labels);
  if (seen != nullptr) seen->take({{task.name, task.task_version}});
  store->add(row, std::move(task));
}

TaskInfo Session::Parts::check_task(const BiasRowView& row, std::string_view name,
                                    const std::vector<std::string>& labels) const {
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
  return task;
}

TaskInfo Session::Parts::describe_task(const BiasRowView& row, std::string_view name,
                                       const std::vector<std::string>& labels) const {
  TaskInfo task;
  task.name = name.empty() ? std::string(row.task) : std::string(name);
  if (!is_task_name(task.name)) {
    fail(StatusCode::input_error,
         text_of("the task name is \"", shown(task.name), "\", expected letters, digits, '.', '_' or '-'"));
  }
  task.problem_type = row.problem_type;
  task.label_count = row.labels;
  task.task_version = row.task_version;
  task.labels = labels.empty() ? default_labels(task) : labels;
  const std::size_t count = task.problem_type == ProblemType::regression ? 0 : task.label_count;
  if (task.labels.size() != count || !guard([&] { check_names(task.labels, "a label"); }).ok()) {
    fail(StatusCode::input_error, text_of("the labels of ", task.name, " cannot be used, expected ", count,
                                          " different names without control characters"));
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
