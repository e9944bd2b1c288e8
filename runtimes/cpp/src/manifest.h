// The manifest of a bundle: what it holds, and the digests by which it is known. docs/files.md.

#ifndef BITFIT_SRC_MANIFEST_H
#define BITFIT_SRC_MANIFEST_H

#include <bitfit/bias_row.h>
#include <bitfit/engine.h>

#include "names.h"

#include <array>
#include <cstdint>
#include <map>
#include <optional>
#include <string>
#include <string_view>
#include <vector>

namespace bitfit {

class Record;

enum class LayoutKind : std::uint8_t { table, packed, named };

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

// A graph of the bundle, with one purpose.
struct ProgramRecord {
  std::string file;
  LoadTime load_time = LoadTime::optimize;
  std::vector<std::string> inputs;
  std::vector<std::string> outputs;
};

struct Manifest {
  Layout layout;
  LayoutKind layout_kind = LayoutKind::table;
  std::string target;
  std::map<std::string, ProgramRecord> programs;  // by purpose; infer is among them
  bool reads_text = true;                         // else the next three are 0, and there is no tokenizer
  std::int64_t max_positions = 0;
  std::int64_t vocab_size = 0;
  std::int64_t pad_token_id = 0;
  bool overridable = false;
  Dtype row_dtype = Dtype::float32;                         // of rows that are made for it
  std::optional<std::array<std::int64_t, 2>> static_shape;  // batch and sequence
  std::optional<Accelerator> accelerator;                   // with the target qnn
  std::map<std::string, std::vector<float>> bias_scales;    // of biases that are int32, for each value its scale
  std::map<std::string, FileRecord> files;                  // by path in the bundle; all but the manifest and the rows
  std::map<std::string, TaskRecord> tasks;

  const ProgramRecord& infer() const { return programs.at(infer_program); }
  // Of infer.
  bool has_input(std::string_view name) const noexcept;
  bool has_output(std::string_view name) const noexcept;
};

// Read and check manifest.json; its other files are not looked at. Fails with a bundle_error.
Manifest parse_manifest(std::string_view bytes, const std::string& where);

bool is_task_name(std::string_view name) noexcept;
const char* problem_type_name(ProblemType type) noexcept;

}  // namespace bitfit

#endif  // BITFIT_SRC_MANIFEST_H
