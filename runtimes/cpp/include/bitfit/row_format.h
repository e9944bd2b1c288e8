/* The numbers of the row format, version 1, for C and C++: docs/bias_row.md.
 * spec/generate.py makes this file from spec/row.toml. */

#ifndef BITFIT_ROW_FORMAT_H
#define BITFIT_ROW_FORMAT_H

#include <stdint.h>

enum {
  BITFIT_ROW_VERSION = 1,
  BITFIT_ROW_HEADER_SIZE = 448,
  BITFIT_ROW_MAX_LABELS = 65536,
  BITFIT_ROW_MAX_HEAD_TENSORS = 16,
  BITFIT_ROW_MAX_HEAD_RANK = 3,
  BITFIT_ROW_MAX_TASK_NAME = 63,
  BITFIT_ROW_MAX_FILE_SIZE = 1073741824
};

/* Why a row is refused: the number of the check that failed. */
typedef enum bitfit_row_fault {
  BITFIT_ROW_OK = 0,
  BITFIT_ROW_TRUNCATED_HEADER = 1,
  BITFIT_ROW_BAD_MAGIC = 2,
  BITFIT_ROW_BAD_VERSION = 3,
  BITFIT_ROW_BAD_HEADER_SIZE = 4,
  BITFIT_ROW_BAD_HEADER_CHECKSUM = 5,
  BITFIT_ROW_UNKNOWN_FLAG = 6,
  BITFIT_ROW_BAD_DTYPE = 7,
  BITFIT_ROW_BAD_PROBLEM_TYPE = 8,
  BITFIT_ROW_BAD_TASK_NAME = 9,
  BITFIT_ROW_BAD_HEAD = 10,
  BITFIT_ROW_BAD_LABEL_COUNT = 11,
  BITFIT_ROW_TRUNCATED = 12,
  BITFIT_ROW_TRAILING_BYTES = 13,
  BITFIT_ROW_BAD_PAYLOAD_CHECKSUM = 14,
  BITFIT_ROW_NOT_FINITE = 15,
  BITFIT_ROW_WRONG_LAYOUT = 16
} bitfit_row_fault;

/* The type of all values of a row, as ONNX numbers it. */
typedef enum bitfit_dtype { BITFIT_DTYPE_FLOAT32 = 1, BITFIT_DTYPE_FLOAT16 = 10 } bitfit_dtype;

typedef enum bitfit_problem_type {
  BITFIT_PROBLEM_SINGLE_LABEL = 1,
  BITFIT_PROBLEM_MULTI_LABEL = 2,
  BITFIT_PROBLEM_REGRESSION = 3,
  BITFIT_PROBLEM_TOKEN = 4,
  BITFIT_PROBLEM_SPAN = 5
} bitfit_problem_type;

#ifdef __cplusplus

#include <cstddef>
#include <cstdint>

namespace bitfit {

inline constexpr std::uint32_t row_format_version = 1;
inline constexpr std::size_t row_header_size = 448;
inline constexpr std::size_t layout_digest_size = 32;
inline constexpr std::uint32_t max_head_tensors = 16;
inline constexpr std::uint32_t max_head_rank = 3;
inline constexpr std::uint32_t max_labels = 65536;
inline constexpr std::uint32_t max_row_size = 1073741824;

// Why a row is refused: the number of the check in docs/bias_row.md that failed.
enum class RowStatus : std::uint8_t {
  ok = 0,
  truncated_header = 1,
  bad_magic = 2,
  bad_version = 3,
  bad_header_size = 4,
  bad_header_checksum = 5,
  unknown_flag = 6,
  bad_dtype = 7,
  bad_problem_type = 8,
  bad_task_name = 9,
  bad_head = 10,
  bad_label_count = 11,
  truncated = 12,
  trailing_bytes = 13,
  bad_payload_checksum = 14,
  not_finite = 15,
  wrong_layout = 16,
};

// A few words in English, the same as the Python reader's. They live as long as the program.
inline const char* row_status_text(RowStatus status) noexcept {
  switch (status) {
    case RowStatus::ok: return "ok";
    case RowStatus::truncated_header: return "truncated header";
    case RowStatus::bad_magic: return "wrong magic";
    case RowStatus::bad_version: return "unknown format version";
    case RowStatus::bad_header_size: return "wrong header size";
    case RowStatus::bad_header_checksum: return "header checksum differs";
    case RowStatus::unknown_flag: return "unknown flag";
    case RowStatus::bad_dtype: return "unknown dtype";
    case RowStatus::bad_problem_type: return "unknown problem type";
    case RowStatus::bad_task_name: return "malformed task name";
    case RowStatus::bad_head: return "malformed head tensor table";
    case RowStatus::bad_label_count: return "label count disagrees with problem type or head";
    case RowStatus::truncated: return "truncated payload";
    case RowStatus::trailing_bytes: return "trailing bytes";
    case RowStatus::bad_payload_checksum: return "payload checksum differs";
    case RowStatus::not_finite: return "NaN or infinity in the payload";
    case RowStatus::wrong_layout: return "made for another base model or layout";
  }
  return "unknown status";  // a number that was cast to RowStatus
}

// The type of all values of a row, as ONNX numbers it.
enum class Dtype : std::uint32_t { float32 = 1, float16 = 10 };

enum class ProblemType : std::uint32_t { single_label = 1, multi_label = 2, regression = 3, token = 4, span = 5 };

namespace detail {

// Where the header's fields are.
inline constexpr std::size_t version_at = 8;
inline constexpr std::size_t header_size_at = 12;
inline constexpr std::size_t flags_at = 16;
inline constexpr std::size_t dtype_at = 20;
inline constexpr std::size_t file_size_at = 24;
inline constexpr std::size_t layout_digest_at = 32;
inline constexpr std::size_t bias_count_at = 64;
inline constexpr std::size_t head_count_at = 68;
inline constexpr std::size_t labels_at = 72;
inline constexpr std::size_t problem_type_at = 76;
inline constexpr std::size_t task_version_at = 80;
inline constexpr std::size_t payload_checksum_at = 84;
inline constexpr std::size_t task_at = 88;
inline constexpr std::size_t head_table_at = 152;
inline constexpr std::size_t reserved_at = 408;
inline constexpr std::size_t header_checksum_at = 444;
inline constexpr std::size_t task_field_size = 64;
inline constexpr std::size_t head_slot_size = 16;

// The bytes 89 42 46 52 0D 0A 1A 0A, read as load_u64_big reads them.
inline constexpr std::uint64_t magic = 0x894246520D0A1A0Au;

// By code.
inline constexpr const char* problem_type_names[] = {"", "single_label", "multi_label", "regression", "token", "span"};

}  // namespace detail
}  // namespace bitfit

#endif /* __cplusplus */

#endif /* BITFIT_ROW_FORMAT_H */
