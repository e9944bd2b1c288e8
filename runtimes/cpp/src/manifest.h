// The manifest of a bundle: what it holds, and the digests by which it is known. docs/files.md.

#ifndef BITFIT_SRC_MANIFEST_H
#define BITFIT_SRC_MANIFEST_H

#include <bitfit/bias_row.h>

#include <array>
#include <cstdint>
#include <map>
#include <optional>
#include <string>
#include <string_view>
#include <vector>

namespace bitfit {

class Record;

inline constexpr const char* manifest_file = "manifest.json";
inline constexpr const char* model_file = "model.onnx";
inline constexpr const char* tokenizer_file = "tokenizer.json";

// Limits in bytes, of docs/files.md.
inline constexpr std::uint64_t max_manifest_size = std::uint64_t{16} << 20;
inline constexpr std::uint64_t max_tokenizer_size = std::uint64_t{128} << 20;
inline constexpr std::uint64_t max_model_size = std::uint64_t{INT32_MAX};  // what a protobuf message can have

enum class LayoutKind : std::uint8_t { table, packed, named };

// What ONNX Runtime still has to do to a graph when it loads it. The compiler has optimised one for it already.
enum class LoadTime : std::uint8_t { nothing, widen_weights, optimize };

struct BiasEntry {
  std::string name;
  std::vector<std::int64_t> shape;
  std::size_t offset = 0;  // of its first value in the row
  std::size_t size = 0;    // the number of its values
};

struct HeadEntry {
  static constexpr std::int64_t labels = -1;  // in a shape: the task's number of head outputs

  std::string name;
  std::vector<std::int64_t> shape;

  // The shape for a task with this many outputs.
  std::vector<std::int64_t> resolve(std::int64_t label_count) const;
};

struct Layout {
  std::string base_digest;
  std::vector<BiasEntry> biases;  // at least one; each starts where the one before ends
  std::vector<HeadEntry> head;
  std::vector<std::string> poolings;
  std::string digest;  // as 64 hexadecimal digits
  std::array<std::uint8_t, layout_digest_size> digest_bytes = {};
  std::uint32_t bias_count = 0;  // N

  // The last check of a row, against all that the layout says.
  RowStatus check(const BiasRowView& row, RowProblem* problem) const;
};

// The layout of a manifest, which must agree with its digest and its base.
Layout layout_of(const Record& manifest);

struct FileRecord {
  std::string sha256;
  std::uint32_t crc32c = 0;
  std::uint64_t size = 0;
};

struct TaskRecord {
  std::string file;
  std::string sha256;
  ProblemType problem_type = ProblemType::single_label;
  std::vector<std::string> labels;  // in id order; empty for a regression
  std::uint32_t task_version = 0;

  std::uint32_t label_count() const noexcept {
    return problem_type == ProblemType::regression ? 1 : static_cast<std::uint32_t>(labels.size());
  }
};

struct Manifest {
  Layout layout;
  LayoutKind layout_kind = LayoutKind::table;
  std::vector<std::string> inputs;
  std::vector<std::string> outputs;
  std::int64_t max_positions = 0;
  std::int64_t vocab_size = 0;
  std::int64_t pad_token_id = 0;
  bool overridable = false;
  LoadTime load_time = LoadTime::optimize;
  std::optional<std::array<std::int64_t, 2>> static_shape;  // batch and sequence
  std::map<std::string, FileRecord> files;                  // by path in the bundle; all but the manifest and the rows
  std::map<std::string, TaskRecord> tasks;

  bool has_input(std::string_view name) const noexcept;
  bool has_output(std::string_view name) const noexcept;
};

// Read and check manifest.json; its other files are not looked at. Fails with a bundle_error.
Manifest parse_manifest(std::string_view bytes, const std::string& where);

bool is_task_name(std::string_view name) noexcept;
const char* problem_type_name(ProblemType type) noexcept;

}  // namespace bitfit

#endif  // BITFIT_SRC_MANIFEST_H
