// The file, in the machine's byte order: the magic, the run's digest, step, loss, the number of epochs and of scores of
// each, the history, the four vectors, and the CRC-32C of all that.

#include "learning/checkpoint.h"

#include "crc32c.h"
#include "failure.h"
#include "read_file.h"
#include "write_file.h"

#include <algorithm>
#include <cstring>
#include <filesystem>

namespace bitfit {
namespace {

constexpr std::array<std::uint8_t, 8> checkpoint_magic = {0x89, 'B', 'F', 'L', 'R', 'N', '1', 0x0A};

template <class Value>
void append(const Value* values, std::size_t count, Bytes* bytes) {
  const auto* const first = reinterpret_cast<const std::uint8_t*>(values);
  bytes->insert(bytes->end(), first, first + count * sizeof(Value));
}

class Reader {
 public:
  Reader(const Bytes& bytes, std::size_t size) noexcept : at_(bytes.data()), left_(size) {}

  template <class Value>
  bool take(Value* values, std::size_t count) noexcept {
    if (count > left_ / sizeof(Value)) return false;
    std::memcpy(values, at_, count * sizeof(Value));
    at_ += count * sizeof(Value);
    left_ -= count * sizeof(Value);
    return true;
  }

  std::size_t left() const noexcept { return left_; }

 private:
  const std::uint8_t* at_;
  std::size_t left_;
};

bool read_state(Reader reader, std::size_t scores, LearningState* state) {
  LearningState found;
  std::uint64_t counts[2] = {};
  if (!reader.take(&found.step, 1) || !reader.take(&found.loss, 1) || !reader.take(counts, 2)) return false;
  if ((counts[0] > 0 && counts[1] != scores) || counts[0] > reader.left() / sizeof(double)) return false;
  found.history.assign(static_cast<std::size_t>(counts[0]), std::vector<double>(scores));
  for (std::vector<double>& each : found.history) {
    if (!reader.take(each.data(), each.size())) return false;
  }
  std::size_t size = 0;
  for (const std::vector<float>* each : state->vectors) size += each->size() * sizeof(float);
  if (reader.left() != size) return false;
  for (std::vector<float>* each : state->vectors) reader.take(each->data(), each->size());
  found.vectors = state->vectors;
  *state = std::move(found);
  return true;
}

}  // namespace

void save_state(const std::string& path, const std::array<std::uint8_t, 32>& run, const LearningState& state) {
  const std::uint64_t counts[] = {state.history.size(), state.history.empty() ? 0 : state.history[0].size()};
  Bytes bytes;
  append(checkpoint_magic.data(), checkpoint_magic.size(), &bytes);
  append(run.data(), run.size(), &bytes);
  append(&state.step, 1, &bytes);
  append(&state.loss, 1, &bytes);
  append(counts, 2, &bytes);
  for (const std::vector<double>& each : state.history) append(each.data(), each.size(), &bytes);
  for (const std::vector<float>* each : state.vectors) append(each->data(), each->size(), &bytes);
  const std::uint32_t checksum = crc32c_of(bytes.data(), bytes.size());
  append(&checksum, 1, &bytes);
  write_file(path, bytes.data(), bytes.size());
}

bool load_state(const std::string& path, const std::array<std::uint8_t, 32>& run, std::size_t scores,
                LearningState* state) {
  std::error_code error;
  if (!std::filesystem::exists(path, error)) return false;
  const std::string hint = text_of("remove ", path, ", and learn from the start");
  constexpr std::size_t head = checkpoint_magic.size() + 32;
  constexpr std::uint64_t most_history = 1u << 20;
  const Bytes bytes = read_file(path, head + most_history + 16 * std::uint64_t{state->vectors[0]->size()});
  std::uint32_t checksum = 0;
  const std::size_t size = bytes.size() < head + sizeof checksum ? 0 : bytes.size() - sizeof checksum;
  if (size > 0) std::memcpy(&checksum, bytes.data() + size, sizeof checksum);
  if (size == 0 || !std::equal(checkpoint_magic.begin(), checkpoint_magic.end(), bytes.begin()) ||
      crc32c_of(bytes.data(), size) != checksum) {
    fail(StatusCode::input_error, text_of("the checkpoint ", path, " is damaged, or is not a checkpoint"), hint);
  }
  Reader reader(bytes, size);
  std::array<std::uint8_t, head> start;
  reader.take(start.data(), start.size());
  if (!std::equal(run.begin(), run.end(), start.begin() + checkpoint_magic.size()) ||
      !read_state(reader, scores, state)) {
    fail(StatusCode::input_error, text_of("the checkpoint ", path, " is of a run with other settings, data or model"),
         hint);
  }
  return true;
}

}  // namespace bitfit
