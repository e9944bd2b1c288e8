// Tests the row reader with files. It needs no framework: what differs is printed, and the exit status says the rest.
//
//     bias_row_test check FOLDER DIGEST BIAS_COUNT FILE=STATUS...   every file gives its status, wherever it lies
//     bias_row_test flips FILE                                      a good row with any bit flipped is refused
//     bias_row_test truncations FILE                                a good row cut at any byte is refused
//     bias_row_test print FILE                                      what the reader makes of a file, as one JSON object
//     bias_row_test statuses                                        number, name and text of each status
//
// Exit status: 0 all as expected, 1 something differs or the printed row is refused, 2 wrong arguments.

#include <bitfit/bias_row.h>

#include <cinttypes>
#include <cstdio>
#include <cstdlib>
#include <cstring>

namespace {

using bitfit::BiasRowView;
using bitfit::RowProblem;
using bitfit::RowStatus;

constexpr std::uint8_t check_bytes[9] = {'1', '2', '3', '4', '5', '6', '7', '8', '9'};
static_assert(bitfit::detail::crc32c(check_bytes, sizeof check_bytes) == 0xE3069283u, "not CRC-32C");

constexpr unsigned status_count = 17;

// Bytes of exactly this size on the heap, so that a sanitizer sees a read of one byte too many.
struct Bytes {
  explicit Bytes(std::size_t count) : size(count), data(static_cast<std::uint8_t*>(std::malloc(count ? count : 1))) {
    if (data == nullptr) std::abort();
  }
  ~Bytes() { std::free(data); }
  Bytes(const Bytes&) = delete;
  Bytes& operator=(const Bytes&) = delete;

  std::size_t size;
  std::uint8_t* data;
};

// The names of RowFault, which the specification uses.
const char* status_name(RowStatus status) {
  switch (status) {
    case RowStatus::ok: return "OK";
    case RowStatus::truncated_header: return "TRUNCATED_HEADER";
    case RowStatus::bad_magic: return "BAD_MAGIC";
    case RowStatus::bad_version: return "BAD_VERSION";
    case RowStatus::bad_header_size: return "BAD_HEADER_SIZE";
    case RowStatus::bad_header_checksum: return "BAD_HEADER_CHECKSUM";
    case RowStatus::unknown_flag: return "UNKNOWN_FLAG";
    case RowStatus::bad_dtype: return "BAD_DTYPE";
    case RowStatus::bad_problem_type: return "BAD_PROBLEM_TYPE";
    case RowStatus::bad_task_name: return "BAD_TASK_NAME";
    case RowStatus::bad_head: return "BAD_HEAD";
    case RowStatus::bad_label_count: return "BAD_LABEL_COUNT";
    case RowStatus::truncated: return "TRUNCATED";
    case RowStatus::trailing_bytes: return "TRAILING_BYTES";
    case RowStatus::bad_payload_checksum: return "BAD_PAYLOAD_CHECKSUM";
    case RowStatus::not_finite: return "NOT_FINITE";
    case RowStatus::wrong_layout: return "WRONG_LAYOUT";
  }
  return "?";
}

[[noreturn]] void die(const char* what, const char* which) {
  std::fprintf(stderr, "%s: %s\n", what, which);
  std::exit(2);
}

std::FILE* open_or_die(const char* path) {
  std::FILE* const file = std::fopen(path, "rb");
  if (file == nullptr) die("cannot be opened", path);
  return file;
}

std::size_t file_size(const char* path) {
  std::FILE* const file = open_or_die(path);
  const bool at_end = std::fseek(file, 0, SEEK_END) == 0;
  const long size = at_end ? std::ftell(file) : -1;
  std::fclose(file);
  if (size < 0) die("cannot be measured", path);
  return static_cast<std::size_t>(size);
}

void load(const char* path, Bytes* bytes) {
  std::FILE* const file = open_or_die(path);
  const std::size_t count = std::fread(bytes->data, 1, bytes->size, file);
  std::fclose(file);
  if (count != bytes->size) die("cannot be read", path);
}

// Read a row, and see to it that the view is written if and only if the row is good, and that the problem agrees.
// A broken promise is a failure of the test whatever status was expected, so it ends the program.
RowStatus read_row(const std::uint8_t* data, std::size_t size, BiasRowView* out) {
  constexpr unsigned char untouched = 0xA5;
  std::memset(static_cast<void*>(out), untouched, sizeof *out);
  RowProblem problem;
  const RowStatus status = bitfit::read_bias_row(data, size, out, &problem);
  if (problem.status != status || problem.what == nullptr) die("the problem has another status", status_name(status));
  if (status == RowStatus::ok) return status;
  if (problem.found == problem.expected) die("found what was expected, and refused", status_name(status));
  const auto* const bytes = reinterpret_cast<const unsigned char*>(out);
  for (std::size_t i = 0; i < sizeof *out; ++i) {
    if (bytes[i] != untouched) die("a refused row was written to the view", status_name(status));
  }
  return status;
}

bool same_bits(float a, float b) { return std::memcmp(&a, &b, sizeof a) == 0; }

// Values through every accessor agree, and so does the array of floats where there is one.
bool accessors_agree(const BiasRowView& row) {
  bool agree = true;
  std::size_t count = row.bias_count;
  for (std::size_t i = 0; i < row.bias_count; ++i) agree = agree && same_bits(row.bias(i), row.value(i));
  for (std::uint32_t t = 0; t < row.head_count; ++t) {
    agree = agree && row.heads[t].offset == count;
    for (std::size_t i = 0; i < row.heads[t].size; ++i) {
      agree = agree && same_bits(row.head(t, i), row.value(count + i));
    }
    count += row.heads[t].size;
  }
  agree = agree && count == row.value_count() && row.payload_size == count * row.value_size();
  const float* const floats = row.floats();
  for (std::size_t i = 0; floats != nullptr && i < count; ++i) agree = agree && same_bits(floats[i], row.value(i));
  return agree && std::strlen(row.task) == row.task_length;
}

void parse_digest(const char* text, std::uint8_t digest[bitfit::layout_digest_size]) {
  if (std::strlen(text) != 2 * bitfit::layout_digest_size) die("no layout digest", text);
  for (std::size_t i = 0; i < bitfit::layout_digest_size; ++i) {
    const char pair[3] = {text[2 * i], text[2 * i + 1], '\0'};
    char* end = nullptr;
    digest[i] = static_cast<std::uint8_t>(std::strtoul(pair, &end, 16));
    if (end != pair + 2) die("no layout digest", text);
  }
}

// One file at eight addresses, of which one suits a float64 and four suit no float. Gives the number of mismatches.
int check_file(const char* path, const char* expected, const std::uint8_t* digest, std::uint32_t bias_count) {
  const std::size_t size = file_size(path);
  Bytes file(size);
  load(path, &file);
  int mismatches = 0;
  for (std::size_t shift = 0; shift < 8; ++shift) {
    Bytes moved(shift + size);
    if (size != 0) std::memcpy(moved.data + shift, file.data, size);
    BiasRowView row;
    RowStatus status = read_row(moved.data + shift, size, &row);
    if (bitfit::read_bias_row(moved.data + shift, size, &row) != status) die("a second reading differs", path);
    if (status == RowStatus::ok) {
      if (!accessors_agree(row)) die("the accessors disagree", path);
      if (shift % alignof(float) != 0 && row.floats() != nullptr) die("unaligned bytes given as floats", path);
      RowProblem problem;
      status = bitfit::check_layout(row, digest, bias_count, &problem);
      if (problem.status != status) die("the layout's problem has another status", path);
      if (status == RowStatus::ok && bitfit::check_layout(row, digest) != status) die("the digest differs", path);
    }
    if (std::strcmp(status_name(status), expected) != 0) {
      std::printf("%s, address %% 8 == %zu: %s, expected %s\n", path, shift, status_name(status), expected);
      ++mismatches;
    }
  }
  return mismatches;
}

int check(const char* folder, const char* digest_text, const char* count_text, int pairs, char** pair) {
  std::uint8_t digest[bitfit::layout_digest_size];
  parse_digest(digest_text, digest);
  const auto bias_count = static_cast<std::uint32_t>(std::strtoul(count_text, nullptr, 10));
  int mismatches = 0;
  for (int i = 0; i < pairs; ++i) {
    const char* const equals = std::strrchr(pair[i], '=');
    if (equals == nullptr) die("no FILE=STATUS", pair[i]);
    char path[4096];
    const int length = std::snprintf(path, sizeof path, "%s/%.*s", folder, static_cast<int>(equals - pair[i]), pair[i]);
    if (length < 0 || static_cast<std::size_t>(length) >= sizeof path) die("too long a path", pair[i]);
    mismatches += check_file(path, equals + 1, digest, bias_count);
  }
  std::printf("%d files, %d mismatches\n", pairs, mismatches);
  return mismatches == 0 ? 0 : 1;
}

void expect_good(const Bytes& file, const char* path) {
  BiasRowView row;
  const RowStatus status = read_row(file.data, file.size, &row);
  if (status != RowStatus::ok) die(status_name(status), path);
}

int flips(const char* path) {
  Bytes file(file_size(path));
  load(path, &file);
  expect_good(file, path);
  int taken = 0;
  for (std::size_t at = 0; at < file.size; ++at) {
    for (unsigned bit = 0; bit < 8; ++bit) {
      const auto mask = static_cast<std::uint8_t>(1u << bit);
      BiasRowView row;
      file.data[at] ^= mask;
      if (read_row(file.data, file.size, &row) == RowStatus::ok) {
        std::printf("%s: taken with bit %u of byte %zu flipped\n", path, bit, at);
        ++taken;
      }
      file.data[at] ^= mask;
    }
  }
  expect_good(file, path);
  std::printf("%zu flips, %d taken\n", 8 * file.size, taken);
  return taken == 0 ? 0 : 1;
}

int truncations(const char* path) {
  Bytes file(file_size(path));
  load(path, &file);
  expect_good(file, path);
  int mismatches = 0;
  for (std::size_t size = 0; size <= file.size + 1; ++size) {
    if (size == file.size) continue;
    Bytes cut(size);
    std::memset(cut.data, 0, size);
    std::memcpy(cut.data, file.data, size < file.size ? size : file.size);
    const RowStatus expected = size < bitfit::row_header_size ? RowStatus::truncated_header
                               : size < file.size             ? RowStatus::truncated
                                                              : RowStatus::trailing_bytes;
    BiasRowView row;
    const RowStatus status = read_row(cut.data, size, &row);
    if (status != expected) {
      std::printf("%s, %zu bytes: %s, expected %s\n", path, size, status_name(status), status_name(expected));
      ++mismatches;
    }
  }
  BiasRowView row;
  if (read_row(nullptr, 0, &row) != RowStatus::truncated_header) ++mismatches;
  std::printf("%zu sizes, %d mismatches\n", file.size + 1, mismatches);
  return mismatches == 0 ? 0 : 1;
}

void print_values(const BiasRowView& row, std::size_t first, std::size_t count) {
  std::printf("[");
  for (std::size_t i = 0; i < count; ++i) {
    std::printf("%s%.9g", i != 0 ? ", " : "", static_cast<double>(row.value(first + i)));
  }
  std::printf("]");
}

void print_row(const BiasRowView& row) {
  std::printf("{\"status\": \"OK\", \"version\": %" PRIu32 ", \"flags\": %" PRIu32, row.version, row.flags);
  std::printf(", \"dtype\": %" PRIu32, static_cast<std::uint32_t>(row.dtype));
  std::printf(", \"layout_digest\": \"");
  for (std::size_t i = 0; i < bitfit::layout_digest_size; ++i) std::printf("%02x", row.layout_digest[i]);
  std::printf("\",\n \"task\": \"%.*s\"", static_cast<int>(row.task_length), row.task);
  std::printf(", \"task_version\": %" PRIu32, row.task_version);
  std::printf(", \"problem_type\": %" PRIu32, static_cast<std::uint32_t>(row.problem_type));
  std::printf(", \"labels\": %" PRIu32, row.labels);
  std::printf(", \"floats\": %s", row.floats() != nullptr ? "true" : "false");
  std::printf(",\n \"biases\": ");
  print_values(row, 0, row.bias_count);
  std::printf(",\n \"head\": [");
  for (std::uint32_t t = 0; t < row.head_count; ++t) {
    const bitfit::HeadTensor& tensor = row.heads[t];
    std::printf("%s\n  {\"shape\": [", t != 0 ? "," : "");
    for (std::uint32_t axis = 0; axis < tensor.rank; ++axis) {
      std::printf("%s%" PRIu32, axis != 0 ? ", " : "", tensor.dim[axis]);
    }
    std::printf("], \"values\": ");
    print_values(row, tensor.offset, tensor.size);
    std::printf("}");
  }
  std::printf("]}\n");
}

int print(const char* path) {
  Bytes file(file_size(path));
  load(path, &file);
  BiasRowView row;
  RowProblem problem;
  const RowStatus status = bitfit::read_bias_row(file.data, file.size, &row, &problem);
  if (status != RowStatus::ok) {
    std::printf("{\"status\": \"%s\", \"text\": \"%s\"", status_name(status), bitfit::row_status_text(status));
    std::printf(", \"what\": \"%s\", \"offset\": %" PRIu64, problem.what, problem.offset);
    std::printf(", \"found\": %" PRIu64 ", \"expected\": %" PRIu64 "}\n", problem.found, problem.expected);
    return 1;
  }
  print_row(row);
  return 0;
}

int statuses() {
  for (unsigned i = 0; i < status_count; ++i) {
    const auto status = static_cast<RowStatus>(i);
    std::printf("%u\t%s\t%s\n", i, status_name(status), bitfit::row_status_text(status));
  }
  return 0;
}

}  // namespace

int main(int argc, char** argv) {
  const char* const mode = argc > 1 ? argv[1] : "";
  if (std::strcmp(mode, "check") == 0 && argc > 5) return check(argv[2], argv[3], argv[4], argc - 5, argv + 5);
  if (std::strcmp(mode, "flips") == 0 && argc == 3) return flips(argv[2]);
  if (std::strcmp(mode, "truncations") == 0 && argc == 3) return truncations(argv[2]);
  if (std::strcmp(mode, "print") == 0 && argc == 3) return print(argv[2]);
  if (std::strcmp(mode, "statuses") == 0 && argc == 2) return statuses();
  std::fputs(
      "usage: bias_row_test check FOLDER DIGEST BIAS_COUNT FILE=STATUS...\n"
      "       bias_row_test flips|truncations|print FILE\n"
      "       bias_row_test statuses\n",
      stderr);
  return 2;
}
