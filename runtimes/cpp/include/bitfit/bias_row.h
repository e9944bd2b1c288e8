// The bias row: one task's bias values and head, read where they lie. docs/bias_row.md specifies the file.
//
//     bitfit::BiasRowView row;
//     bitfit::RowStatus status = bitfit::read_bias_row(data, size, &row);
//     if (status == bitfit::RowStatus::ok) status = bitfit::check_layout(row, my_layout_digest, my_bias_count);
//     if (status != bitfit::RowStatus::ok) report(bitfit::row_status_text(status));
//
// Whose bytes they are. The caller owns them: a file in memory, a mapped one, or flash. The reader copies none of the
// values and keeps no state. A BiasRowView points into the bytes, so they must stay where they are, unchanged, for as
// long as a view of them is in use. Bytes that change after they were read are no longer checked. To change a row,
// read the new one elsewhere, and reuse the old memory when nobody uses the old view.
//
// What it needs. C++17, of which only <cstddef>, <cstdint> and memcpy. No heap, no exceptions, no RTTI, no I/O, no
// floating-point arithmetic, no global that changes. So any number of threads may read, and may share one view.
//
// Alignment and byte order. The bytes may start at any address, and the processor may be of either byte order: every
// number is put together from its bytes. BiasRowView::floats() is the one shortcut, and says when it can be taken.
//
// What it does not do. It gives no names to head tensors and knows no layout but by digest. Whoever relies on certain
// head shapes compares them with BiasRowView::heads. A checksum finds damage, not forgery: a forged row can carry the
// right digest and another head.

#ifndef BITFIT_BIAS_ROW_H
#define BITFIT_BIAS_ROW_H

#include "row_format.h"

#include <cstddef>
#include <cstdint>
#include <cstring>

namespace bitfit {

// RowStatus, row_status_text, Dtype, ProblemType and the numbers of the format are in row_format.h.

// The numbers behind a refusal. They read as: "<text of status>: <what>: found <found>, expected <expected>".
//
// Where more than one number would have done, `what` says so, as in "labels, at least", and `expected` is one of them.
// The numbers are 0 and `what` is empty when the status is ok.
struct RowProblem {
  RowStatus status = RowStatus::ok;
  const char* what = "";       // what the two numbers are; it lives as long as the program
  std::uint64_t offset = 0;    // where in the file the field or the value is, in bytes
  std::uint64_t found = 0;     // for checksums: what the header says
  std::uint64_t expected = 0;  // for checksums: what the bytes give
};

// Where one head tensor is. Its values are in C order.
struct HeadTensor {
  std::uint32_t rank = 0;                 // 1 to 3; 0 in a slot that is not used
  std::uint32_t dim[max_head_rank] = {};  // 0 beyond the rank; 0 within it: the task lacks this tensor
  std::size_t offset = 0;                 // of its first value, counted in values from the start of the payload
  std::size_t size = 0;                   // the number of its values, which may be 0
};

// A row that passed every check but that of the layout. It is a plain struct: copies are views of the same bytes.
//
// It takes 584 bytes, or 436 with 32-bit pointers, most of them for the 16 head slots.
struct BiasRowView {
  std::uint32_t version = 0;
  std::uint32_t flags = 0;
  Dtype dtype = Dtype::float32;
  ProblemType problem_type = ProblemType::single_label;
  std::uint32_t labels = 0;        // 1 to 65,536: 1 for a regression, 2 for a span
  std::uint32_t task_version = 0;  // from 1; a newer row of the same task has a larger one
  std::uint32_t bias_count = 0;    // N
  std::uint32_t head_count = 0;    // of the slots below, so many are used

  // These four point into the caller's bytes.
  const std::uint8_t* layout_digest = nullptr;  // 32 bytes of SHA-256
  const char* task = nullptr;                   // ends with a NUL, so it is a C string
  std::size_t task_length = 0;                  // 1 to 63, without the NUL
  const std::uint8_t* payload = nullptr;        // the values as they lie in the file: the biases, then the head
  std::size_t payload_size = 0;                 // in bytes

  HeadTensor heads[max_head_tensors];

  // The number of bytes that one value takes.
  std::size_t value_size() const noexcept { return dtype == Dtype::float32 ? 4 : 2; }

  // The number of values: the biases and the head.
  std::size_t value_count() const noexcept { return payload_size / value_size(); }

  // Value i of the payload, from 0; a float16 is widened, which loses nothing. i must be below value_count(): like
  // an array, this does not look.
  float value(std::size_t i) const noexcept;

  // Bias value i. i must be below bias_count.
  float bias(std::size_t i) const noexcept { return value(i); }

  // Value i, in C order, of head tensor t. t must be below head_count, and i below heads[t].size.
  float head(std::size_t t, std::size_t i) const noexcept { return value(heads[t].offset + i); }

  // All values as an array of floats, without a copy: the biases at 0, head tensor t at heads[t].offset.
  //
  // It is null where the bytes are not such an array: the row is float16, the processor is big-endian, or the payload
  // is not aligned for a float. The payload is aligned when the row's first byte is, since 448 is a multiple of 64.
  const float* floats() const noexcept;
};

// Check a row and give a view of it.
//
// `data` has `size` bytes: the whole file and nothing after it. Null counts as no bytes.
//
// All checks of docs/bias_row.md but the layout's are made, in the order given there. `*out` is written only when all
// of them have passed, so the view of an older row survives a bad one. No byte outside of `data` is read, whatever the
// row claims. `*problem`, where it is given, is written in any case. The time is linear in `size`: one pass for the
// checksum, one for the values.
inline RowStatus read_bias_row(const void* data, std::size_t size, BiasRowView* out,
                               RowProblem* problem = nullptr) noexcept;

// The last check: is the row made for this frozen model? The digest is in the bundle's manifest; a device has it
// compiled in. It covers the base model's weights and the order of the values, so one digest stands for the names,
// the shapes and the offsets of all biases.
//
// The status is ok or wrong_layout.
inline RowStatus check_layout(const BiasRowView& row, const std::uint8_t digest[layout_digest_size],
                              RowProblem* problem = nullptr) noexcept;

// As above, and the row must have `bias_count` values. Only a forged row has the right digest and another count; a
// device that copies values into a fixed buffer can't do without this.
inline RowStatus check_layout(const BiasRowView& row, const std::uint8_t digest[layout_digest_size],
                              std::uint32_t bias_count, RowProblem* problem = nullptr) noexcept;

// What follows is the implementation.

namespace detail {

static_assert(sizeof(float) == 4, "a float must be an IEEE 754 binary32");

constexpr std::uint16_t load_u16(const std::uint8_t* bytes) noexcept {
  return static_cast<std::uint16_t>(bytes[0] | (static_cast<std::uint32_t>(bytes[1]) << 8));
}

constexpr std::uint32_t load_u32(const std::uint8_t* bytes) noexcept {
  return load_u16(bytes) | (static_cast<std::uint32_t>(load_u16(bytes + 2)) << 16);
}

constexpr std::uint64_t load_u64(const std::uint8_t* bytes) noexcept {
  return load_u32(bytes) | (static_cast<std::uint64_t>(load_u32(bytes + 4)) << 32);
}

// Bytes that are not a number, such as a digest's. Big-endian, so that in hexadecimal they look as they do in a dump.
constexpr std::uint64_t load_u64_big(const std::uint8_t* bytes) noexcept {
  std::uint64_t value = 0;
  for (int i = 0; i < 8; ++i) value = (value << 8) | bytes[i];
  return value;
}

// CRC-32C, a nibble at a time: a table of 64 bytes, where a table for whole bytes takes 1024.
struct Crc32cTable {
  std::uint32_t entry[16] = {};
  constexpr Crc32cTable() noexcept {
    for (std::uint32_t nibble = 0; nibble < 16; ++nibble) {
      std::uint32_t crc = nibble;
      for (int bit = 0; bit < 4; ++bit) crc = (crc >> 1) ^ ((crc & 1u) != 0 ? 0x82F63B78u : 0u);
      entry[nibble] = crc;
    }
  }
};
inline constexpr Crc32cTable crc32c_table{};

constexpr std::uint32_t crc32c(const std::uint8_t* bytes, std::size_t size) noexcept {
  std::uint32_t crc = 0xFFFFFFFFu;
  for (std::size_t i = 0; i < size; ++i) {
    crc ^= bytes[i];
    crc = (crc >> 4) ^ crc32c_table.entry[crc & 15u];
    crc = (crc >> 4) ^ crc32c_table.entry[crc & 15u];
  }
  return crc ^ 0xFFFFFFFFu;
}

inline RowStatus refuse(RowProblem* problem, RowStatus status, const char* what, std::uint64_t offset,
                        std::uint64_t found, std::uint64_t expected) noexcept {
  if (problem != nullptr) {
    problem->status = status;
    problem->what = what;
    problem->offset = offset;
    problem->found = found;
    problem->expected = expected;
  }
  return status;
}

inline RowStatus accept(RowProblem* problem) noexcept { return refuse(problem, RowStatus::ok, "", 0, 0, 0); }

constexpr bool is_alphanumeric(std::uint8_t byte) noexcept {
  // ASCII whatever the compiler's character set or the locale is.
  return (byte >= 0x30 && byte <= 0x39) || (byte >= 0x41 && byte <= 0x5A) || (byte >= 0x61 && byte <= 0x7A);
}

constexpr bool is_task_byte(std::uint8_t byte, bool first) noexcept {
  return is_alphanumeric(byte) || (!first && (byte == 0x2D || byte == 0x2E || byte == 0x5F));
}

constexpr std::size_t task_length(const std::uint8_t* row) noexcept {
  std::size_t length = 0;
  while (length < task_field_size && row[task_at + length] != 0) ++length;
  return length;
}

// Of a slot that was checked: the product of its dimensions, which fits 32 bits.
constexpr std::uint32_t slot_values(const std::uint8_t* slot) noexcept {
  std::uint32_t values = 1;
  for (std::uint32_t axis = 0; axis < load_u32(slot); ++axis) values *= load_u32(slot + 4 + 4 * axis);
  return values;
}

// Checks 1 to 5: is this a whole header of this format, as it was written?
inline RowStatus check_frame(const std::uint8_t* row, std::size_t size, RowProblem* problem) noexcept {
  if (size < row_header_size) {
    return refuse(problem, RowStatus::truncated_header, "bytes in the file, at least", size, size, row_header_size);
  }
  if (load_u64_big(row) != magic) {
    return refuse(problem, RowStatus::bad_magic, "magic, its bytes as one number", 0, load_u64_big(row), magic);
  }
  const std::uint32_t version = load_u32(row + version_at);
  if (version != row_format_version) {
    return refuse(problem, RowStatus::bad_version, "format version", version_at, version, row_format_version);
  }
  const std::uint32_t header_size = load_u32(row + header_size_at);
  if (header_size != row_header_size) {
    return refuse(problem, RowStatus::bad_header_size, "header size", header_size_at, header_size, row_header_size);
  }
  const std::uint32_t stated = load_u32(row + header_checksum_at);
  const std::uint32_t checksum = crc32c(row, header_checksum_at);
  if (stated != checksum) {
    return refuse(problem, RowStatus::bad_header_checksum, "CRC-32C of the header", header_checksum_at, stated,
                  checksum);
  }
  return RowStatus::ok;
}

// Checks 6 to 8: does this reader know what the header asks for?
inline RowStatus check_codes(const std::uint8_t* row, RowProblem* problem) noexcept {
  const std::uint32_t flags = load_u32(row + flags_at);
  if (flags != 0) return refuse(problem, RowStatus::unknown_flag, "flags", flags_at, flags, 0);
  for (std::size_t at = reserved_at; at < header_checksum_at; ++at) {
    if (row[at] != 0) return refuse(problem, RowStatus::unknown_flag, "reserved byte", at, row[at], 0);
  }
  const std::uint32_t dtype = load_u32(row + dtype_at);
  if (dtype != 1 && dtype != 10) {
    return refuse(problem, RowStatus::bad_dtype, "code of the dtype, 1 or 10", dtype_at, dtype, 1);
  }
  const std::uint32_t problem_type = load_u32(row + problem_type_at);
  if (problem_type < 1 || problem_type > 5) {
    return refuse(problem, RowStatus::bad_problem_type, "code of the problem type, 1 to 5", problem_type_at,
                  problem_type, 5);
  }
  return RowStatus::ok;
}

// Check 9. The bytes after the name must be zero, so that a name has one spelling.
inline RowStatus check_task(const std::uint8_t* row, RowProblem* problem) noexcept {
  const RowStatus fault = RowStatus::bad_task_name;
  const std::size_t length = task_length(row);
  if (length == 0) return refuse(problem, fault, "bytes in the task name, at least", task_at, 0, 1);
  if (length == task_field_size) {
    return refuse(problem, fault, "bytes in the task name, at most", task_at, length, task_field_size - 1);
  }
  for (std::size_t i = 0; i < length; ++i) {
    if (!is_task_byte(row[task_at + i], i == 0)) {
      return refuse(problem, fault, "bytes of the task name that are allowed there", task_at + i, i, length);
    }
  }
  for (std::size_t at = task_at + length; at < head_table_at; ++at) {
    if (row[at] != 0) return refuse(problem, fault, "byte after the task name", at, row[at], 0);
  }
  if (load_u32(row + task_version_at) == 0) {
    return refuse(problem, fault, "task version, at least", task_version_at, 0, 1);
  }
  return RowStatus::ok;
}

// Check 10. The limit on the product, in which a 0 counts as 1, keeps every size within 32 bits.
inline RowStatus check_head_table(const std::uint8_t* row, RowProblem* problem) noexcept {
  const RowStatus fault = RowStatus::bad_head;
  const std::uint32_t head_count = load_u32(row + head_count_at);
  if (head_count > max_head_tensors) {
    return refuse(problem, fault, "head tensors, at most", head_count_at, head_count, max_head_tensors);
  }
  for (std::uint32_t slot = 0; slot < max_head_tensors; ++slot) {
    const std::size_t at = head_table_at + slot * head_slot_size;
    const std::uint32_t rank = load_u32(row + at);
    if (slot < head_count) {
      if (rank < 1 || rank > max_head_rank) {
        return refuse(problem, fault, "rank of a head tensor, 1 to 3", at, rank, max_head_rank);
      }
    } else if (rank != 0) {
      return refuse(problem, fault, "rank in an unused head slot", at, rank, 0);
    }
    std::uint64_t values = 1;
    for (std::uint32_t axis = 0; axis < max_head_rank; ++axis) {
      const std::size_t dim_at = at + 4 + 4 * axis;
      const std::uint32_t dim = load_u32(row + dim_at);
      if (axis >= rank) {
        if (dim != 0) return refuse(problem, fault, "dimension beyond the rank", dim_at, dim, 0);
        continue;
      }
      values *= dim != 0 ? dim : 1;  // both were below 2^32, so this fits
      if (values > UINT32_MAX) {
        return refuse(problem, fault, "values of a head tensor, at most", at, values, UINT32_MAX);
      }
    }
  }
  return RowStatus::ok;
}

// Check 11.
inline RowStatus check_labels(const std::uint8_t* row, RowProblem* problem) noexcept {
  const RowStatus fault = RowStatus::bad_label_count;
  const auto problem_type = static_cast<ProblemType>(load_u32(row + problem_type_at));
  const std::uint32_t labels = load_u32(row + labels_at);
  if (problem_type == ProblemType::regression && labels != 1) {
    return refuse(problem, fault, "labels of a regression", labels_at, labels, 1);
  }
  if (problem_type == ProblemType::span && labels != 2) {
    return refuse(problem, fault, "labels of a span", labels_at, labels, 2);
  }
  if (labels == 0) return refuse(problem, fault, "labels, at least", labels_at, labels, 1);
  if (labels > max_labels) return refuse(problem, fault, "labels, at most", labels_at, labels, max_labels);
  return RowStatus::ok;
}

// Checks 12 and 13. The size that the counts need, the one that the header states and the one at hand must be equal.
// At most 17 counts below 2^32, of 4 bytes each: 64 bits hold their sum, also where size_t has 32.
inline RowStatus check_size(const std::uint8_t* row, std::size_t size, RowProblem* problem) noexcept {
  std::uint64_t values = load_u32(row + bias_count_at);
  const std::uint32_t head_count = load_u32(row + head_count_at);
  for (std::uint32_t slot = 0; slot < head_count; ++slot) {
    values += slot_values(row + head_table_at + slot * head_slot_size);
  }
  const std::uint64_t value_size = load_u32(row + dtype_at) == static_cast<std::uint32_t>(Dtype::float32) ? 4 : 2;
  const std::uint64_t expected = row_header_size + values * value_size;
  const std::uint64_t stated = load_u64(row + file_size_at);
  const char* const in_file = "bytes in the file";
  const char* const in_header = "file size in the header";
  if (size < expected) return refuse(problem, RowStatus::truncated, in_file, size, size, expected);
  if (stated < expected) return refuse(problem, RowStatus::truncated, in_header, file_size_at, stated, expected);
  if (size > expected) return refuse(problem, RowStatus::trailing_bytes, in_file, expected, size, expected);
  if (stated > expected) return refuse(problem, RowStatus::trailing_bytes, in_header, file_size_at, stated, expected);
  if (expected > max_row_size) {
    return refuse(problem, RowStatus::trailing_bytes, "bytes in the file, at most", max_row_size, size, max_row_size);
  }
  return RowStatus::ok;
}

// Checks 14 and 15. Finiteness is seen in the bits: a comparison of floats may be compiled away by -ffast-math.
inline RowStatus check_payload(const std::uint8_t* row, std::size_t size, RowProblem* problem) noexcept {
  const std::uint32_t stated = load_u32(row + payload_checksum_at);
  const std::uint32_t checksum = crc32c(row + row_header_size, size - row_header_size);
  if (stated != checksum) {
    return refuse(problem, RowStatus::bad_payload_checksum, "CRC-32C of the payload", payload_checksum_at, stated,
                  checksum);
  }
  const bool wide = load_u32(row + dtype_at) == static_cast<std::uint32_t>(Dtype::float32);
  const std::uint32_t exponent = wide ? 0x7F800000u : 0x7C00u;  // all ones there: an infinity or NaN
  const std::size_t value_size = wide ? 4 : 2;
  for (std::size_t at = row_header_size; at < size; at += value_size) {
    const std::uint32_t bits = wide ? load_u32(row + at) : load_u16(row + at);
    if ((bits & exponent) == exponent) {
      return refuse(problem, RowStatus::not_finite, "values that are finite", at, (at - row_header_size) / value_size,
                    (size - row_header_size) / value_size);
    }
  }
  return RowStatus::ok;
}

inline RowStatus check_row(const std::uint8_t* row, std::size_t size, RowProblem* problem) noexcept {
  RowStatus status = check_frame(row, size, problem);
  if (status == RowStatus::ok) status = check_codes(row, problem);
  if (status == RowStatus::ok) status = check_task(row, problem);
  if (status == RowStatus::ok) status = check_head_table(row, problem);
  if (status == RowStatus::ok) status = check_labels(row, problem);
  if (status == RowStatus::ok) status = check_size(row, size, problem);
  if (status == RowStatus::ok) status = check_payload(row, size, problem);
  return status;
}

// The bits of a float32 with the value of a float16. It has no infinity or NaN to care for: rows are finite.
constexpr std::uint32_t widen(std::uint16_t half) noexcept {
  const std::uint32_t sign = (half & 0x8000u) << 16;
  const std::uint32_t exponent = (half >> 10) & 0x1Fu;
  std::uint32_t mantissa = half & 0x3FFu;
  if (exponent != 0) return sign | ((exponent + 112) << 23) | (mantissa << 13);  // the biases: 127 - 15 = 112
  if (mantissa == 0) return sign;
  // A subnormal float16 is a normal float32: shift until the leading one is where the hidden one goes.
  std::uint32_t shift = 0;
  for (; (mantissa & 0x400u) == 0; mantissa <<= 1) ++shift;
  return sign | ((113 - shift) << 23) | ((mantissa & 0x3FFu) << 13);
}

inline bool is_little_endian() noexcept {
  const std::uint16_t one = 1;
  std::uint8_t first = 0;
  std::memcpy(&first, &one, 1);  // compilers fold this to a constant
  return first == 1;
}

}  // namespace detail

inline float BiasRowView::value(std::size_t i) const noexcept {
  const std::uint8_t* const bytes = payload + i * value_size();
  const std::uint32_t bits = dtype == Dtype::float32 ? detail::load_u32(bytes) : detail::widen(detail::load_u16(bytes));
  float number = 0;
  std::memcpy(&number, &bits, sizeof number);
  return number;
}

inline const float* BiasRowView::floats() const noexcept {
  const bool aligned = reinterpret_cast<std::uintptr_t>(payload) % alignof(float) == 0;
  if (dtype != Dtype::float32 || !aligned || !detail::is_little_endian()) return nullptr;
  return reinterpret_cast<const float*>(payload);
}

inline RowStatus read_bias_row(const void* data, std::size_t size, BiasRowView* out, RowProblem* problem) noexcept {
  const auto* const row = static_cast<const std::uint8_t*>(data);
  const RowStatus status = detail::check_row(row, row == nullptr ? 0 : size, problem);
  if (status != RowStatus::ok) return status;
  // From here on nothing can fail. `*out` is filled in place: a second view would take 600 bytes of a small stack.
  out->version = detail::load_u32(row + detail::version_at);
  out->flags = detail::load_u32(row + detail::flags_at);
  out->dtype = static_cast<Dtype>(detail::load_u32(row + detail::dtype_at));
  out->problem_type = static_cast<ProblemType>(detail::load_u32(row + detail::problem_type_at));
  out->labels = detail::load_u32(row + detail::labels_at);
  out->task_version = detail::load_u32(row + detail::task_version_at);
  out->bias_count = detail::load_u32(row + detail::bias_count_at);
  out->head_count = detail::load_u32(row + detail::head_count_at);
  out->layout_digest = row + detail::layout_digest_at;
  out->task = reinterpret_cast<const char*>(row + detail::task_at);
  out->task_length = detail::task_length(row);
  out->payload = row + row_header_size;
  out->payload_size = size - row_header_size;
  std::size_t offset = out->bias_count;
  for (std::uint32_t t = 0; t < max_head_tensors; ++t) {
    const std::uint8_t* const slot = row + detail::head_table_at + t * detail::head_slot_size;
    HeadTensor& tensor = out->heads[t];
    tensor.rank = detail::load_u32(slot);
    for (std::uint32_t axis = 0; axis < max_head_rank; ++axis) tensor.dim[axis] = detail::load_u32(slot + 4 + 4 * axis);
    const bool used = t < out->head_count;
    tensor.size = used ? detail::slot_values(slot) : 0;
    tensor.offset = used ? offset : 0;
    offset += tensor.size;
  }
  return detail::accept(problem);
}

inline RowStatus check_layout(const BiasRowView& row, const std::uint8_t digest[layout_digest_size],
                              RowProblem* problem) noexcept {
  for (std::size_t at = 0; at < layout_digest_size; at += 8) {
    const std::uint64_t found = detail::load_u64_big(row.layout_digest + at);
    const std::uint64_t expected = detail::load_u64_big(digest + at);
    if (found != expected) {
      return detail::refuse(problem, RowStatus::wrong_layout, "8 bytes of the layout digest as one number",
                            detail::layout_digest_at + at, found, expected);
    }
  }
  return detail::accept(problem);
}

inline RowStatus check_layout(const BiasRowView& row, const std::uint8_t digest[layout_digest_size],
                              std::uint32_t bias_count, RowProblem* problem) noexcept {
  const RowStatus status = check_layout(row, digest, problem);
  if (status != RowStatus::ok || row.bias_count == bias_count) return status;
  return detail::refuse(problem, RowStatus::wrong_layout, "bias values", detail::bias_count_at, row.bias_count,
                        bias_count);
}

}  // namespace bitfit

#endif  // BITFIT_BIAS_ROW_H
