#include "manifest.h"

#include "failure.h"
#include "record.h"

#include <algorithm>
#include <cmath>
#include <set>

namespace bitfit {
namespace {

constexpr std::int64_t manifest_version = 1;
constexpr const char* problem_types[] = {"", "single_label", "multi_label", "regression", "token", "span"};

[[noreturn]] void refuse(const std::string& message) { fail(StatusCode::bundle_error, message, copy_again); }

LayoutKind layout_kind_of(const Record& manifest) {
  const std::string kind = manifest.one_of("layout_kind", {"table", "packed", "named"});
  return kind == "table" ? LayoutKind::table : kind == "packed" ? LayoutKind::packed : LayoutKind::named;
}

LoadTime load_time_of(const Record& manifest) {
  const std::string target = manifest.one_of("target", {"ort", "portable"});
  const std::string precision = manifest.one_of("precision", {"fp32", "fp16", "int8", "int4"});
  if (target == "portable") return LoadTime::optimize;
  return precision == "fp16" ? LoadTime::widen_weights : LoadTime::nothing;
}

// A path that could leave the bundle is refused, on POSIX or on Windows.
void check_path(const std::string& path) {
  check_name(path, "a file's path");
  bool inside = path.find_first_of("\\:*") == std::string::npos;
  for (std::size_t start = 0; start <= path.size();) {
    const std::size_t end = std::min(path.find('/', start), path.size());
    const std::string_view part = std::string_view(path).substr(start, end - start);
    inside = inside && !part.empty() && part != "." && part != "..";
    start = end + 1;
  }
  if (!inside) {
    refuse(text_of("the manifest names the file \"", shown(path), "\", expected a path inside the bundle"));
  }
}

std::map<std::string, FileRecord> files_of(const Record& manifest) {
  std::map<std::string, FileRecord> files;
  for (const auto& [path, record] : manifest.named_records("files")) {
    check_path(path);
    files[path] = {record.digest("sha256"), static_cast<std::uint32_t>(record.integer("crc32c", 0, UINT32_MAX)),
                   static_cast<std::uint64_t>(record.integer("size", 0, INT64_MAX))};
  }
  for (const char* needed : {model_file, tokenizer_file}) {
    if (files.count(needed) == 0) refuse(text_of(manifest.where(), ": files lacks ", needed, ", expected every file"));
  }
  return files;
}

ProblemType problem_type_of(const Record& record) {
  const std::string name =
      record.one_of("problem_type", {std::begin(problem_types) + 1, std::end(problem_types)});
  const auto found = std::find(std::begin(problem_types), std::end(problem_types), name);
  return static_cast<ProblemType>(found - std::begin(problem_types));
}

std::vector<std::string> labels_of(const Record& record, ProblemType type) {
  std::vector<std::string> labels = record.texts("labels");
  if (labels.size() > max_labels) {
    refuse(text_of(record.where(), " has ", labels.size(), " labels, expected at most ", max_labels));
  }
  check_names(labels, record.where() + ": labels");
  const std::size_t count = labels.size();
  const bool fits = type == ProblemType::regression ? count == 0 : type == ProblemType::span ? count == 2 : count >= 1;
  if (!fits) refuse(text_of(record.where(), ": a ", problem_type_name(type), " task has ", count, " labels"));
  return labels;
}

TaskRecord task_of(const std::string& name, const Record& record, std::int64_t max_positions) {
  if (!is_task_name(name)) {
    refuse(text_of("the task name \"", shown(name), "\" is malformed, expected letters, digits, '.', '_' or '-'"));
  }
  TaskRecord task;
  task.file = record.text("file");
  const std::string expected = "tasks/" + name + ".bias";
  if (task.file != expected) refuse(text_of(record.where(), ": file is ", shown(task.file), ", expected ", expected));
  task.sha256 = record.digest("sha256");
  task.problem_type = problem_type_of(record);
  task.labels = labels_of(record, task.problem_type);
  task.task_version = static_cast<std::uint32_t>(record.integer("task_version", 1, UINT32_MAX));
  record.integer("max_length", 1, max_positions);
  for (const auto& [metric, value] : record.named_numbers("metrics")) {
    check_name(metric, record.where() + ": metrics");
  }
  return task;
}

std::optional<std::array<std::int64_t, 2>> static_shape_of(const Record& manifest, const Manifest& checked) {
  if (!manifest.has("static_shape")) return std::nullopt;
  const std::vector<std::int64_t> shape = manifest.integers("static_shape");
  const bool fits = shape.size() == 2 && shape[0] >= 1 && shape[0] <= INT32_MAX && shape[1] >= 1 &&
                    shape[1] <= checked.max_positions && checked.layout_kind != LayoutKind::table;
  if (!fits) {
    refuse(text_of(manifest.where(), ": static_shape can't be, expected a batch and at most ", checked.max_positions,
                   " tokens, in the layout packed or named"));
  }
  return std::array<std::int64_t, 2>{shape[0], shape[1]};
}

std::vector<std::string> names_of(const Record& manifest, const char* key) {
  std::vector<std::string> names = manifest.texts(key);
  if (names.empty()) refuse(text_of(manifest.where(), " has no ", key, ", expected at least one"));
  check_names(names, text_of("the manifest's ", key));
  return names;
}

// What this runtime does not use. A manifest that one runtime refuses is refused by the other.
void check_the_rest(const Record& manifest, const Layout& layout) {
  manifest.name("product_version");
  const Record base = manifest.record("base");
  base.name("name");
  if (!base.contains("revision") || base.has("revision")) base.name("revision");
  manifest.integer("opset", 1, INT32_MAX);
  if (manifest.contains("row_dtype")) manifest.one_of("row_dtype", {"fp32", "fp16"});
  if (manifest.contains("prepacked")) manifest.boolean("prepacked");
  if (!manifest.contains("fold_reasons")) return;
  std::set<std::string_view> biases;
  for (const BiasEntry& entry : layout.biases) biases.insert(entry.name);
  for (const auto& [name, reason] : manifest.named_texts("fold_reasons")) {
    check_name(reason, text_of(manifest.where(), ": fold_reasons"));
    if (biases.count(name) == 0) {
      refuse(text_of(manifest.where(), ": fold_reasons names ", shown(name), ", expected bias terms of the layout"));
    }
  }
}

}  // namespace

bool Manifest::has_input(std::string_view name) const noexcept {
  return std::find(inputs.begin(), inputs.end(), name) != inputs.end();
}

bool Manifest::has_output(std::string_view name) const noexcept {
  return std::find(outputs.begin(), outputs.end(), name) != outputs.end();
}

Manifest parse_manifest(std::string_view bytes, const std::string& where) {
  const Document document(bytes, where);
  const Record record = document.root();
  const std::int64_t version = record.integer("format_version");  // first: what the other keys mean depends on it
  if (version != manifest_version) {
    fail(StatusCode::bundle_error,
         text_of("the manifest has format version ", version, ", expected ", manifest_version),
         "use the release of bitfit that the bundle was made for, or export it again");
  }
  Manifest manifest;
  manifest.layout = layout_of(record);
  manifest.layout_kind = layout_kind_of(record);
  manifest.inputs = names_of(record, "inputs");
  manifest.outputs = names_of(record, "outputs");
  manifest.max_positions = record.integer("max_positions", 1, INT32_MAX);
  manifest.vocab_size = record.integer("vocab_size", 1, INT32_MAX);
  manifest.pad_token_id = record.integer("pad_token_id", 0, manifest.vocab_size - 1);
  manifest.overridable = record.contains("overridable") && record.boolean("overridable");
  if (manifest.overridable && manifest.layout_kind != LayoutKind::named) {
    refuse("the manifest is overridable, expected that in the layout named alone");
  }
  manifest.load_time = load_time_of(record);
  manifest.static_shape = static_shape_of(record, manifest);
  check_the_rest(record, manifest.layout);
  manifest.files = files_of(record);
  for (const auto& [name, each] : record.named_records("tasks")) {
    manifest.tasks[name] = task_of(name, each, manifest.max_positions);
  }
  return manifest;
}

bool is_task_name(std::string_view name) noexcept {
  if (name.empty() || name.size() > 63) return false;
  for (std::size_t i = 0; i < name.size(); ++i) {
    if (!detail::is_task_byte(static_cast<std::uint8_t>(name[i]), i == 0)) return false;
  }
  return true;
}

const char* problem_type_name(ProblemType type) noexcept { return problem_types[static_cast<std::uint32_t>(type)]; }

}  // namespace bitfit
