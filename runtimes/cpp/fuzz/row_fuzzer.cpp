// Any bytes are a row or none, and every value of a row can be read.
//
// Hardly any bytes have the right checksums by chance, so each input is tried as it is and with checksums that agree.

#include <bitfit/bias_row.h>

#include <cstdlib>
#include <cstring>
#include <vector>

namespace {

void read(const std::vector<std::uint8_t>& bytes) {
  bitfit::BiasRowView row;
  bitfit::RowProblem problem;
  if (bitfit::read_bias_row(bytes.data(), bytes.size(), &row, &problem) != bitfit::RowStatus::ok) {
    if (problem.what[0] == '\0') std::abort();  // a refusal says why
    return;
  }
  float sum = 0;
  for (std::size_t i = 0; i < row.value_count(); ++i) sum += row.value(i);
  for (std::size_t t = 0; t < row.head_count; ++t) {
    for (std::size_t i = 0; i < row.heads[t].size; ++i) sum += row.head(t, i);
  }
  if (std::strlen(row.task) != row.task_length || row.bias_count > row.value_count()) std::abort();
  volatile float used = sum;
  static_cast<void>(used);
}

void put(std::vector<std::uint8_t>* bytes, std::size_t at, std::uint32_t value) {
  for (std::size_t i = 0; i < 4; ++i) (*bytes)[at + i] = static_cast<std::uint8_t>(value >> (8 * i));
}

}  // namespace

extern "C" int LLVMFuzzerTestOneInput(const std::uint8_t* data, std::size_t size) {
  std::vector<std::uint8_t> bytes(data, data + size);
  read(bytes);
  if (size < bitfit::row_header_size) return 0;
  using namespace bitfit::detail;
  const std::size_t payload = bitfit::row_header_size;
  put(&bytes, payload_checksum_at, crc32c(bytes.data() + payload, size - payload));
  put(&bytes, header_checksum_at, crc32c(bytes.data(), header_checksum_at));
  read(bytes);
  return 0;
}
