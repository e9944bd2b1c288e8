#include "manifest.h"

#include "failure.h"
#include "mapped_file.h"
#include "record.h"
#include "sha256.h"

#include <algorithm>
#include <filesystem>
#include <set>
#include <system_error>

namespace bitfit {
namespace {

constexpr std::int64_t manifest_version = 1;
constexpr const char* problem_types[] = {"", "single_label", "multi_label", "regression", "token", "span"};

[[noreturn]] void refuse(std::string message) { fail(StatusCode::bundle_error, std::move(message), copy_again); }

std::string digest_of(const Record& record, const char* key) {
  std::string digest = record.text(key);
  if (digest.size() != 64 || digest.find_first_not_of("0123456789abcdef") != std::string::npos) {
    refuse(text_of(record.where(), ": ", key, " is \"", digest, "\", expected 64 lower-case hexadecimal digits"));
  }
  return digest;
}

std::int64_t integer_of(const Record& record, const char* key, std::int64_t least, std::int64_t most = INT64_MAX) {
  const std::int64_t value = record.integer(key);
  if (value < least || value > most) {
    refuse(text_of(record.where(), ": ", key, " is ", value, ", expected ", least, " to ", most));
  }
  return value;
}

void check_names(const std::vector<std::string>& names, const std::string& what) {
  std::set<std::string_view> seen;
  for (const std::string& name : names) {
    const bool bad = name.empty() || std::any_of(name.begin(), name.end(),
                                                 [](char byte) { return static_cast<unsigned char>(byte) < ' '; });
    if (bad) refuse(text_of(what, ": a name is empty or has a control character"));
    if (!seen.insert(name).second) refuse(text_of(what, ": ", name, " is there twice, expected unique names"));
  }
}

template <class Entry>
std::vector<std::string> names_of(const std::vector<Entry>& entries) {
  std::vector<std::string> names;
  for (const Entry& entry : entries) names.push_back(entry.name);
  return names;
}

std::vector<BiasEntry> biases_of(const Record& layout) {
  std::vector<BiasEntry> entries;
  std::uint64_t next = 0;
  for (const Record& each : layout.records("biases")) {
    BiasEntry entry{each.text("name"), each.integers("shape"), static_cast<std::size_t>(next), 1};
    if (entry.shape.empty()) refuse(text_of(each.where(), ": shape has no dimensions, expected one or more"));
    std::uint64_t size = 1;  // below 2^32 before each product, as is what it is multiplied with
    for (const std::int64_t dimension : entry.shape) {
      const bool fits = dimension >= 1 && dimension <= std::int64_t{UINT32_MAX};
      size *= fits ? static_cast<std::uint64_t>(dimension) : 0;
      if (!fits || next + size > UINT32_MAX) refuse(text_of(each.where(), ": shape is out of range"));
    }
    integer_of(each, "offset", static_cast<std::int64_t>(next), static_cast<std::int64_t>(next));
    entry.size = static_cast<std::size_t>(size);
    next += size;
    entries.push_back(std::move(entry));
  }
  if (entries.empty()) refuse(text_of(layout.where(), " has no biases, expected at least one"));
  check_names(names_of(entries), "the layout's biases");
  return entries;
}

std::vector<HeadEntry> head_of(const Record& layout) {
  std::vector<HeadEntry> entries;
  for (const Record& each : layout.records("head")) {
    HeadEntry entry{each.text("name"), {}};
    std::uint64_t values = 1;  // for one label
    for (const Record::IntegerOrText& dimension : each.integers_or_texts("shape")) {
      const bool symbolic = dimension.text == "labels";
      const std::int64_t size = dimension.integer.value_or(0);
      if (!symbolic && (size < 1 || size > std::int64_t{UINT32_MAX})) {
        refuse(text_of(each.where(), ": a dimension is out of range, expected 1 or more, or \"labels\""));
      }
      entry.shape.push_back(symbolic ? HeadEntry::labels : size);
      if (!symbolic) values *= static_cast<std::uint64_t>(size);
      if (values > UINT32_MAX) refuse(text_of(each.where(), " has more than ", UINT32_MAX, " values"));
    }
    if (entry.shape.empty() || entry.shape.size() > max_head_rank) {
      refuse(text_of(each.where(), " has ", entry.shape.size(), " dimensions, expected 1 to ", max_head_rank));
    }
    entries.push_back(std::move(entry));
  }
  if (entries.size() > max_head_tensors) {
    refuse(text_of(layout.where(), " has ", entries.size(), " head tensors, expected at most ", max_head_tensors));
  }
  check_names(names_of(entries), "the layout's head tensors");
  return entries;
}

std::string shape_text(const std::vector<std::int64_t>& shape) {
  std::string text;
  for (const std::int64_t dimension : shape) {
    if (!text.empty()) text += ',';
    text += dimension == HeadEntry::labels ? "labels" : std::to_string(dimension);
  }
  return text;
}

// The bytes that are hashed are specified in docs/bias_row.md.
std::array<std::uint8_t, 32> digest_of_layout(const Layout& layout) {
  using namespace std::string_view_literals;
  Sha256 hash;
  hash.update("bitfit-layout-1\n");
  const auto base = bytes_of_hex(layout.base_digest);
  hash.update(base.data(), base.size());
  for (const BiasEntry& entry : layout.biases) {
    hash.update(text_of("bias\0"sv, entry.name, "\0"sv, shape_text(entry.shape), "\0"sv, entry.offset, '\n'));
  }
  for (const HeadEntry& entry : layout.head) {
    hash.update(text_of("head\0"sv, entry.name, "\0"sv, shape_text(entry.shape), '\n'));
  }
  for (const std::string& pooling : layout.poolings) hash.update(text_of("pooling\0"sv, pooling, '\n'));
  return hash.finish();
}

Layout layout_of(const Record& manifest) {
  const Record record = manifest.record("layout");
  Layout layout;
  layout.base_digest = digest_of(record, "base_digest");
  layout.biases = biases_of(record);
  layout.head = head_of(record);
  layout.poolings = record.texts("poolings");
  check_names(layout.poolings, "the layout's poolings");
  layout.bias_count = static_cast<std::uint32_t>(layout.biases.back().offset + layout.biases.back().size);
  layout.digest_bytes = digest_of_layout(layout);
  layout.digest = hex_of(layout.digest_bytes);
  const std::string recorded = digest_of(manifest, "layout_digest");
  if (recorded != layout.digest) {
    refuse(text_of(manifest.where(), ": layout_digest is ", recorded.substr(0, 12), ", the layout gives ",
                   layout.digest.substr(0, 12)));
  }
  const std::string base = digest_of(manifest.record("base"), "digest");
  if (base != layout.base_digest) {
    refuse(text_of("the layout is for the base ", layout.base_digest.substr(0, 12), ", expected ", base.substr(0, 12)));
  }
  return layout;
}

LayoutKind layout_kind_of(const Record& manifest) {
  const std::string kind = manifest.text("layout_kind");
  if (kind == "table") return LayoutKind::table;
  if (kind == "packed") return LayoutKind::packed;
  if (kind == "named") return LayoutKind::named;
  refuse(text_of(manifest.where(), ": layout_kind is \"", kind, "\", expected table, packed or named"));
}

LoadTime load_time_of(const Record& manifest) {
  const std::string target = manifest.text("target"), precision = manifest.text("precision");
  if (target != "ort" && target != "portable") {
    refuse(text_of(manifest.where(), ": target is \"", target, "\", expected ort or portable"));
  }
  if (target == "portable") return LoadTime::optimize;
  return precision == "fp16" ? LoadTime::widen_weights : LoadTime::nothing;
}

// A path that could leave the bundle is refused, on POSIX or on Windows.
void check_path(const std::string& path) {
  bool inside = path.find_first_of("\\:") == std::string::npos;
  for (std::size_t start = 0; start <= path.size();) {
    const std::size_t end = std::min(path.find('/', start), path.size());
    const std::string part = path.substr(start, end - start);
    inside = inside && !part.empty() && part != "." && part != "..";
    start = end + 1;
  }
  if (!inside) refuse(text_of("the manifest names the file \"", path, "\", expected a path inside the bundle"));
  check_names({path}, "a file's path");
}

std::map<std::string, FileRecord> files_of(const Record& manifest) {
  std::map<std::string, FileRecord> files;
  for (const auto& [path, record] : manifest.named_records("files")) {
    check_path(path);
    files[path] = {digest_of(record, "sha256"), static_cast<std::uint64_t>(integer_of(record, "size", 0))};
  }
  return files;
}

ProblemType problem_type_of(const Record& record) {
  const std::string name = record.text("problem_type");
  for (std::uint32_t code = 1; code <= 5; ++code) {
    if (name == problem_types[code]) return static_cast<ProblemType>(code);
  }
  refuse(text_of(record.where(), ": problem_type is \"", name, "\", expected single_label, multi_label, regression, ",
                 "token or span"));
}

TaskRecord task_of(const std::string& name, const Record& record, std::int64_t max_positions) {
  if (!is_task_name(name)) {
    refuse(text_of("the task name \"", name, "\" is malformed, expected letters, digits, '.', '_' or '-'"));
  }
  TaskRecord task;
  task.file = record.text("file");
  const std::string expected = "tasks/" + name + ".bias";
  if (task.file != expected) refuse(text_of(record.where(), ": file is ", task.file, ", expected ", expected));
  task.sha256 = digest_of(record, "sha256");
  task.problem_type = problem_type_of(record);
  task.labels = record.texts("labels");
  check_names(task.labels, record.where() + ": labels");
  const std::size_t count = task.labels.size();
  const bool fits = task.problem_type == ProblemType::regression ? count == 0
                    : task.problem_type == ProblemType::span     ? count == 2
                                                                 : count >= 1;
  if (!fits) refuse(text_of(record.where(), ": a ", record.text("problem_type"), " task has ", count, " labels"));
  task.task_version = static_cast<std::uint32_t>(integer_of(record, "task_version", 1, UINT32_MAX));
  integer_of(record, "max_length", 1, max_positions);
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

void check_file(const std::string& path, const FileRecord& record, bool hash) {
  std::error_code error;
  const std::uint64_t size = std::filesystem::file_size(path, error);
  if (error) refuse(text_of(path, " can't be read: ", error.message()));
  if (size != record.size) refuse(text_of(path, " has ", size, " bytes, expected ", record.size));
  if (!hash) return;
  const MappedFile file(path);
  const std::string found = sha256_of(file.data(), file.size());
  if (found != record.sha256) refuse(text_of(path, " has sha256 ", found, ", expected ", record.sha256));
}

}  // namespace

std::vector<std::int64_t> HeadEntry::resolve(std::int64_t label_count) const {
  std::vector<std::int64_t> resolved = shape;
  std::replace(resolved.begin(), resolved.end(), labels, label_count);
  return resolved;
}

RowStatus Layout::check(const BiasRowView& row, RowProblem* problem) const {
  const RowStatus status = check_layout(row, digest_bytes.data(), bias_count, problem);
  if (status != RowStatus::ok) return status;
  const auto refuse_head = [problem](RowStatus fault, const char* what, std::uint64_t found, std::uint64_t expected) {
    *problem = {fault, what, 0, found, expected};
    return fault;
  };
  if (row.head_count != head.size()) {
    return refuse_head(RowStatus::bad_head, "head tensors", row.head_count, head.size());
  }
  bool any_labels = false, labelled = false;
  for (std::size_t t = 0; t < head.size(); ++t) {
    const HeadTensor& tensor = row.heads[t];
    const std::vector<std::int64_t>& shape = head[t].shape;
    if (tensor.rank != shape.size()) {
      return refuse_head(RowStatus::bad_head, "rank of a head tensor", tensor.rank, shape.size());
    }
    for (std::size_t axis = 0; axis < shape.size(); ++axis) {
      const bool symbolic = shape[axis] == HeadEntry::labels;
      const std::uint64_t expected = symbolic ? row.labels : static_cast<std::uint64_t>(shape[axis]);
      if (tensor.dim[axis] != expected && tensor.dim[axis] != 0) {
        return refuse_head(symbolic ? RowStatus::bad_label_count : RowStatus::bad_head,
                           "dimension of a head tensor, or 0", tensor.dim[axis], expected);
      }
      if (symbolic) any_labels = true, labelled = labelled || tensor.dim[axis] > 0;
    }
  }
  // Else a small file could ask for room for any number of labels.
  if (any_labels && !labelled) {
    return refuse_head(RowStatus::bad_label_count, "labels of the head tensors", 0, row.labels);
  }
  return RowStatus::ok;
}

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
  manifest.inputs = record.texts("inputs");
  manifest.outputs = record.texts("outputs");
  check_names(manifest.inputs, "the manifest's inputs");
  check_names(manifest.outputs, "the manifest's outputs");
  manifest.max_positions = integer_of(record, "max_positions", 1, INT32_MAX);
  manifest.vocab_size = integer_of(record, "vocab_size", 1, INT32_MAX);
  manifest.pad_token_id = integer_of(record, "pad_token_id", 0, INT32_MAX);
  manifest.overridable = record.has("overridable") && record.boolean("overridable");
  if (manifest.overridable && manifest.layout_kind != LayoutKind::named) {
    refuse("the manifest is overridable, expected that in the layout named alone");
  }
  manifest.load_time = load_time_of(record);
  manifest.static_shape = static_shape_of(record, manifest);
  manifest.files = files_of(record);
  for (const auto& [name, each] : record.named_records("tasks")) {
    manifest.tasks[name] = task_of(name, each, manifest.max_positions);
  }
  return manifest;
}

void check_files(const std::string& folder, const Manifest& manifest, bool hash_files) {
  for (const auto& [path, record] : manifest.files) check_file(folder + "/" + path, record, hash_files);
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
