#include "row_writer.h"

#include "crc32c.h"
#include "failure.h"

#include <algorithm>
#include <cmath>

namespace bitfit {
namespace {

void put(std::uint8_t* at, std::uint64_t value, std::size_t size) noexcept {
  for (std::size_t i = 0; i < size; ++i) at[i] = static_cast<std::uint8_t>(value >> (8 * i));
}

void put_u32(std::uint8_t* at, std::uint64_t value) noexcept { put(at, value, 4); }

void put_payload(const std::vector<float>& values, Dtype dtype, std::uint8_t* at) noexcept {
  for (const float value : values) {
    if (dtype == Dtype::float16) {
      put(at, float16_of(value), 2);
      at += 2;
      continue;
    }
    std::uint32_t bits;
    std::memcpy(&bits, &value, sizeof bits);
    put_u32(at, bits);
    at += 4;
  }
}

void put_head(const RowData& row, std::uint8_t* header) noexcept {
  put_u32(header + detail::head_count_at, row.head.size());
  for (std::size_t t = 0; t < std::min<std::size_t>(row.head.size(), max_head_tensors); ++t) {
    std::uint8_t* const slot = header + detail::head_table_at + t * detail::head_slot_size;
    put_u32(slot, row.head[t].size());
    for (std::size_t axis = 0; axis < std::min<std::size_t>(row.head[t].size(), max_head_rank); ++axis) {
      put_u32(slot + 4 + 4 * axis, row.head[t][axis]);
    }
  }
}

}  // namespace

std::uint16_t float16_of(float value) noexcept {
  std::uint32_t bits;
  std::memcpy(&bits, &value, sizeof bits);
  const auto sign = static_cast<std::uint16_t>((bits >> 16) & 0x8000u);
  const float size = std::fabs(value);
  if (std::isnan(value)) return static_cast<std::uint16_t>(sign | 0x7E00u);
  if (size >= 65520.0f) return static_cast<std::uint16_t>(sign | 0x7C00u);
  // The last place of the float16: 2^-24 below 2^-14, and above it 10 bits after the first, which is then the one that
  // is added to the exponent. rint rounds to even.
  int exponent = 0;
  std::frexp(size, &exponent);
  const int place = size > 0 ? std::max(exponent - 11, -24) : -24;
  const auto units = static_cast<std::uint32_t>(std::rint(std::ldexp(size, -place)));
  return static_cast<std::uint16_t>(sign | ((static_cast<std::uint32_t>(place + 24) << 10) + units));
}

RowData copy_row(const BiasRowView& row) {
  RowData copy;
  copy.task.assign(row.task, row.task_length);
  copy.problem_type = row.problem_type;
  copy.labels = row.labels;
  copy.task_version = row.task_version;
  std::copy_n(row.layout_digest, layout_digest_size, copy.layout_digest.begin());
  copy.bias_count = row.bias_count;
  for (std::uint32_t t = 0; t < row.head_count; ++t) {
    copy.head.emplace_back(row.heads[t].dim, row.heads[t].dim + row.heads[t].rank);
  }
  copy.values.resize(row.value_count());
  for (std::size_t i = 0; i < copy.values.size(); ++i) copy.values[i] = row.value(i);
  return copy;
}

std::vector<std::uint8_t> encode_row(const RowData& row, Dtype dtype) {
  const std::size_t value_size = dtype == Dtype::float16 ? 2 : 4;
  std::vector<std::uint8_t> file(row_header_size + multiply({row.values.size(), value_size}));
  std::uint8_t* const header = file.data();
  for (std::size_t i = 0; i < 8; ++i) header[i] = static_cast<std::uint8_t>(detail::magic >> (56 - 8 * i));
  put_u32(header + detail::version_at, row_format_version);
  put_u32(header + detail::header_size_at, row_header_size);
  put_u32(header + detail::dtype_at, static_cast<std::uint32_t>(dtype));
  put(header + detail::file_size_at, file.size(), 8);
  std::copy(row.layout_digest.begin(), row.layout_digest.end(), header + detail::layout_digest_at);
  put_u32(header + detail::bias_count_at, row.bias_count);
  put_u32(header + detail::labels_at, row.labels);
  put_u32(header + detail::problem_type_at, static_cast<std::uint32_t>(row.problem_type));
  put_u32(header + detail::task_version_at, row.task_version);
  std::copy_n(row.task.data(), std::min(row.task.size(), detail::task_field_size), header + detail::task_at);
  put_head(row, header);
  put_payload(row.values, dtype, header + row_header_size);
  put_u32(header + detail::payload_checksum_at, crc32c_of(header + row_header_size, file.size() - row_header_size));
  put_u32(header + detail::header_checksum_at, crc32c_of(header, detail::header_checksum_at));

  BiasRowView view;
  RowProblem problem;
  const RowStatus status = read_bias_row(file.data(), file.size(), &view, &problem);
  if (status == RowStatus::ok) return file;
  throw Failure{{StatusCode::row_error,
                 text_of("the row cannot be written: ", row_status_text(status), ": ", problem.what, ": found ",
                         problem.found, ", expected ", problem.expected),
                 "", status}};
}

}  // namespace bitfit
