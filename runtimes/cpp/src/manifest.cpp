#include "manifest.h"

#include "failure.h"
#include "record.h"

#include <algorithm>
#include <cfloat>
#include <cmath>
#include <set>

namespace bitfit {
namespace {

using detail::problem_type_names;

constexpr std::int64_t manifest_version = 2;

LayoutKind layout_kind_of(const Record& manifest) {
  const std::string kind = manifest.one_of("layout_kind", {"table", "packed", "named"});
  return kind == "table" ? LayoutKind::table : kind == "packed" ? LayoutKind::packed : LayoutKind::named;
}

LoadTime load_time_of(const Record& program) {
  const std::string left = program.one_of("at_load", {std::begin(at_load), std::end(at_load)});
  return left == "none" ? LoadTime::nothing : left == "basic" ? LoadTime::fold_constants : LoadTime::optimize;
}

// The names of a program's inputs or outputs, whose roles, dtypes and shapes are checked.
std::vector<std::string> ports_of(const Record& program, const char* key, const std::vector<const char*>& roles) {
  std::vector<std::string> names;
  for (const Record& port : program.records(key)) {
    names.push_back(port.text("name"));
    port.one_of("role", roles);
    port.one_of("dtype", {std::begin(dtypes), std::end(dtypes)});
    const std::vector<Record::IntegerOrText> shape = port.integers_or_texts("shape");
    if (shape.size() > max_dimensions) {
      refuse_bundle(text_of(port.where(), " has ", shape.size(), " dimensions, expected at most ", max_dimensions));
    }
    for (const Record::IntegerOrText& size : shape) {
      if (!size.integer) check_name(size.text, text_of(port.where(), ": a dimension"));
      if (size.integer && (*size.integer < 1 || *size.integer > std::int64_t{UINT32_MAX})) {
        refuse_bundle(text_of(port.where(), ": a dimension is out of range, expected 1 to ", UINT32_MAX));
      }
    }
  }
  if (names.empty()) refuse_bundle(text_of(program.where(), " has no ", key, ", expected at least one"));
  check_names(names, text_of(program.where(), ": ", key));
  return names;
}

ProgramRecord program_of(const Record& record) {
  ProgramRecord program;
  program.file = record.text("file");
  program.load_time = load_time_of(record);
  program.inputs = ports_of(record, "inputs", {std::begin(input_roles), std::end(input_roles)});
  program.outputs = ports_of(record, "outputs", {std::begin(output_roles), std::end(output_roles)});
  return program;
}

std::map<std::string, ProgramRecord> programs_of(const Record& manifest) {
  std::map<std::string, ProgramRecord> programs;
  for (const auto& [purpose, record] : manifest.named_records("programs")) programs[purpose] = program_of(record);
  if (programs.count(infer_program) == 0) {
    refuse_bundle(text_of(manifest.where(), ": programs lacks ", infer_program, ", expected it"));
  }
  return programs;
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
    refuse_bundle(text_of("the manifest names the file \"", shown(path), "\", expected a path inside the bundle"));
  }
}

// How the program was compiled ahead of time: with the target qnn, and with no other. Its files are added to `files`.
std::optional<Accelerator> accelerator_of(const Record& manifest, const std::string& target,
                                          std::vector<std::string>* files) {
  const bool has_one = manifest.contains("accelerator");
  if (has_one != (target == "qnn")) {
    refuse_bundle(text_of(manifest.where(), " has ", has_one ? "an" : "no", " accelerator, expected ",
                          has_one ? "none" : "one", " for the target ", target));
  }
  if (!has_one) return std::nullopt;
  const Record record = manifest.record("accelerator");
  record.integer("nodes", 0, UINT32_MAX);
  const auto number = [&](const char* key) { return static_cast<std::uint32_t>(record.integer(key, 0, UINT32_MAX)); };
  Accelerator made{record.name("binary"), record.name("sdk"), record.name("soc"), number("soc_model"), number("arch")};
  files->push_back(made.binary);
  if (!record.contains("source") || record.has("source")) files->push_back(record.name("source"));
  return made;
}

// `needed` are the paths of files that must be there, beside those of programs and the tokenizer.
std::map<std::string, FileRecord> files_of(const Record& manifest, const Manifest& checked,
                                           std::vector<std::string> needed) {
  std::map<std::string, FileRecord> files;
  for (const auto& [path, record] : manifest.named_records("files")) {
    check_path(path);
    files[path] = {record.digest("sha256"), static_cast<std::uint32_t>(record.integer("crc32c", 0, UINT32_MAX)),
                   static_cast<std::uint64_t>(record.integer("size", 0, INT64_MAX))};
  }
  for (const auto& [purpose, program] : checked.programs) needed.push_back(program.file);
  if (checked.reads_text) needed.emplace_back(tokenizer_file);
  for (const std::string& path : needed) {
    if (files.count(path) == 0) {
      refuse_bundle(text_of(manifest.where(), ": files lacks ", shown(path), ", expected every file"));
    }
  }
  return files;
}

ProblemType problem_type_of(const Record& record) {
  const std::string name =
      record.one_of("problem_type", {std::begin(problem_type_names) + 1, std::end(problem_type_names)});
  const auto found = std::find(std::begin(problem_type_names), std::end(problem_type_names), name);
  return static_cast<ProblemType>(found - std::begin(problem_type_names));
}

std::vector<std::string> labels_of(const Record& record, ProblemType type) {
  std::vector<std::string> labels = record.texts("labels");
  if (labels.size() > max_labels) {
    refuse_bundle(text_of(record.where(), " has ", labels.size(), " labels, expected at most ", max_labels));
  }
  check_names(labels, record.where() + ": labels");
  const std::size_t count = labels.size();
  const bool fits = type == ProblemType::regression ? count == 0 : type == ProblemType::span ? count == 2 : count >= 1;
  if (!fits) refuse_bundle(text_of(record.where(), ": a ", problem_type_name(type), " task has ", count, " labels"));
  return labels;
}

TaskRecord task_of(const std::string& name, const Record& record, const Manifest& checked) {
  if (!is_task_name(name)) {
    refuse_bundle(
        text_of("the task name \"", shown(name), "\" is malformed, expected letters, digits, '.', '_' or '-'"));
  }
  TaskRecord task;
  task.file = record.text("file");
  const std::string expected = "tasks/" + name + ".bias";
  if (task.file != expected)
    refuse_bundle(text_of(record.where(), ": file is ", shown(task.file), ", expected ", expected));
  task.sha256 = record.digest("sha256");
  task.problem_type = problem_type_of(record);
  task.labels = labels_of(record, task.problem_type);
  task.task_version = static_cast<std::uint32_t>(record.integer("task_version", 1, UINT32_MAX));
  record.integer("max_length", 1, checked.reads_text ? checked.max_positions : INT64_MAX);
  for (const auto& [metric, value] : record.named_numbers("metrics")) {
    check_name(metric, record.where() + ": metrics");
  }
  return task;
}

std::optional<std::array<std::int64_t, 2>> static_shape_of(const Record& manifest, const Manifest& checked) {
  if (!manifest.has("static_shape")) return std::nullopt;
  const std::vector<std::int64_t> shape = manifest.integers("static_shape");
  const std::int64_t longest = checked.reads_text ? checked.max_positions : INT32_MAX;
  const bool fits = shape.size() == 2 && shape[0] >= 1 && shape[0] <= INT32_MAX && shape[1] >= 1 &&
                    shape[1] <= longest && checked.layout_kind != LayoutKind::table;
  if (!fits) {
    refuse_bundle(text_of(manifest.where(), ": static_shape is not valid, expected a batch and at most ", longest,
                          " tokens, in the layout packed or named"));
  }
  return std::array<std::int64_t, 2>{shape[0], shape[1]};
}

// Of bias inputs that are int32, for each value its scale.
std::map<std::string, std::vector<float>> bias_scales_of(const Record& quantization, const Manifest& checked) {
  std::map<std::string, std::vector<float>> scales;
  if (!quantization.contains("bias_scales")) return scales;
  for (const auto& [name, values] : quantization.lists_of_numbers("bias_scales")) {
    check_name(name, quantization.where());
    for (const double value : values) {
      if (value >= double{FLT_MIN} && value <= double{FLT_MAX}) continue;
      refuse_bundle(
          text_of(quantization.where(), ": a scale of ", shown(name), " is out of range, expected a normal float32"));
    }
    const auto same = [name = std::string_view(name)](const BiasEntry& entry) { return entry.name == name; };
    const auto& biases = checked.layout.biases;
    const auto bias = std::find_if(biases.begin(), biases.end(), same);
    if (checked.layout_kind != LayoutKind::named || bias == biases.end() || bias->size != values.size()) {
      refuse_bundle(text_of(quantization.where(), " has ", values.size(), " bias_scales for ", shown(name),
                            ", expected one for each value of a bias input of the layout named"));
    }
    scales[name].assign(values.begin(), values.end());
  }
  return scales;
}

// Of the ranges of activations and what stays in float32, which are in the model, nothing is kept.
std::map<std::string, std::vector<float>> check_quantization(const Record& manifest, const Manifest& checked) {
  if (!manifest.contains("quantization")) return {};
  const Record quantization = manifest.record("quantization");
  const std::string what = text_of(manifest.where(), ": quantization");
  std::set<std::string> ranges;
  const std::string precision = manifest.text("precision");
  const std::int64_t last_step = precision == "w8a16" ? 65535 : 255;
  for (const auto& [name, range] : quantization.named_records("ranges")) {
    check_name(name, what);
    ranges.insert(name);
    if (!(range.number("scale") > 0)) {
      refuse_bundle(text_of(range.where(), ": scale is not above 0, expected a number that is"));
    }
    range.integer("zero_point", 0, last_step);
    if (!(range.number("used") >= 0)) refuse_bundle(text_of(range.where(), ": used is below 0, expected at least 0"));
  }
  for (const auto& [name, reason] : quantization.named_texts("not_quantized")) {
    check_name(name, what);
    check_name(reason, what);
    if (ranges.count(name) != 0) {
      refuse_bundle(text_of(what, " has ", shown(name), " in ranges and in not_quantized, expected one"));
    }
  }
  if (!ranges.empty() && precision != "int8" && precision != "int8-static" && precision != "w8a16") {
    refuse_bundle(text_of(what, " has ranges in the precision ", precision, ", expected int8, int8-static or w8a16"));
  }
  return bias_scales_of(quantization, checked);
}

// What this runtime does not use. A manifest that one runtime refuses is refused by the other.
void check_the_rest(const Record& manifest, const Layout& layout) {
  manifest.name("product_version");
  const Record base = manifest.record("base");
  base.name("name");
  if (!base.contains("revision") || base.has("revision")) base.name("revision");
  manifest.one_of("precision", {"fp32", "fp16", "int8", "int8-static", "w8a16", "int4"});
  manifest.integer("opset", 1, INT32_MAX);
  if (manifest.contains("prepacked")) manifest.boolean("prepacked");
  if (!manifest.contains("fold_reasons")) return;
  std::set<std::string_view> biases;
  for (const BiasEntry& entry : layout.biases) biases.insert(entry.name);
  for (const auto& [name, reason] : manifest.named_texts("fold_reasons")) {
    check_name(reason, text_of(manifest.where(), ": fold_reasons"));
    if (biases.count(name) == 0) {
      refuse_bundle(
          text_of(manifest.where(), ": fold_reasons names ", shown(name), ", expected bias terms of the layout"));
    }
  }
}

}  // namespace

bool Manifest::has_input(std::string_view name) const noexcept {
  return std::find(infer().inputs.begin(), infer().inputs.end(), name) != infer().inputs.end();
}

bool Manifest::has_output(std::string_view name) const noexcept {
  return std::find(infer().outputs.begin(), infer().outputs.end(), name) != infer().outputs.end();
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
  manifest.target = record.one_of("target", {"ort", "portable", "qnn"});
  manifest.reads_text = record.one_of("modality", {std::begin(modalities), std::end(modalities)}) == "text";
  manifest.programs = programs_of(record);
  if (manifest.reads_text) {
    manifest.max_positions = record.integer("max_positions", 1, INT32_MAX);
    manifest.vocab_size = record.integer("vocab_size", 1, INT32_MAX);
    manifest.pad_token_id = record.integer("pad_token_id", 0, manifest.vocab_size - 1);
  }
  manifest.overridable = record.contains("overridable") && record.boolean("overridable");
  if (manifest.overridable && manifest.layout_kind != LayoutKind::named) {
    refuse_bundle("the manifest is overridable, expected that in the layout named alone");
  }
  manifest.static_shape = static_shape_of(record, manifest);
  if (record.contains("row_dtype") && record.one_of("row_dtype", {"fp32", "fp16"}) == "fp16") {
    manifest.row_dtype = Dtype::float16;
  }
  check_the_rest(record, manifest.layout);
  manifest.bias_scales = check_quantization(record, manifest);
  std::vector<std::string> needed;
  manifest.accelerator = accelerator_of(record, manifest.target, &needed);
  manifest.files = files_of(record, manifest, std::move(needed));
  for (const auto& [name, each] : record.named_records("tasks")) {
    manifest.tasks[name] = task_of(name, each, manifest);
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

const char* problem_type_name(ProblemType type) noexcept {
  return problem_type_names[static_cast<std::uint32_t>(type)];
}

}  // namespace bitfit
