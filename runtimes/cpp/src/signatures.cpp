#include "signatures.h"

#include "failure.h"
#include "names.h"
#include "sha256.h"

#include <algorithm>
#include <cstring>
#include <filesystem>

#ifdef BITFIT_SIGNATURES
#include <sodium.h>
#endif

namespace bitfit {
namespace {

constexpr std::size_t magic_size = 8, key_size = 32, signature_size = 64;
constexpr std::size_t file_size = magic_size + key_size + signature_size;
constexpr std::uint64_t largest_key_file = 4096;

[[noreturn]] void refuse_signature(SignatureFault fault, const std::string& message, const std::string& hint = {}) {
  Status status{StatusCode::signature_error, shown(message, longest_message), shown(hint, longest_message)};
  status.signature_fault = fault;
  throw Failure{std::move(status)};
}

bool is_key(std::string_view text) noexcept {
  const auto is_digit = [](char c) { return (c >= '0' && c <= '9') || (c >= 'a' && c <= 'f'); };
  return text.size() == 2 * key_size && std::all_of(text.begin(), text.end(), is_digit);
}

std::string_view trimmed(std::string_view text) noexcept {
  constexpr std::string_view spaces = " \t\r\n";
  const std::size_t start = text.find_first_not_of(spaces);
  if (start == std::string_view::npos) return {};
  return text.substr(start, text.find_last_not_of(spaces) + 1 - start);
}

PublicKey key_of(const std::string& word) {
  if (is_key(word)) return bytes_of_hex(word);
  Bytes file;
  const Status read = guard([&] { file = read_file(word, largest_key_file); });
  if (!read.ok()) fail(StatusCode::usage_error, "the public key " + read.message);
  const std::string_view text = trimmed(text_in(file));
  if (is_key(text)) return bytes_of_hex(text);
  fail(StatusCode::usage_error, text_of(word, " is no public key, expected 64 hexadecimal digits"),
       "bitfit keygen writes it beside the private key, as FILE.pub");
}

// The bytes of the signature of a file.
Bytes read_signature(const std::string& path) {
  std::error_code error;
  if (std::filesystem::symlink_status(path, error).type() == std::filesystem::file_type::not_found) {
    refuse_signature(SignatureFault::missing, text_of(path, " is not there, expected a signature"),
                     "bitfit sign FILE --key KEY");
  }
  Bytes file;
  const Status read = guard([&] { file = read_file(path, file_size); });
  if (!read.ok()) refuse_signature(SignatureFault::malformed, read.message);
  if (file.size() != file_size || std::memcmp(file.data(), signature_magic, magic_size) != 0) {
    refuse_signature(SignatureFault::malformed, text_of(path, " is no signature, expected ", file_size,
                                                        " bytes that begin with ", signature_magic));
  }
  return file;
}

#ifdef BITFIT_SIGNATURES
void start_library() {
  if (sodium_init() < 0) fail(StatusCode::failure, "libsodium does not start");
}

bool holds(const std::uint8_t* signature, const Bytes& data, const PublicKey& key) {
  return crypto_sign_verify_detached(signature, data.data(), data.size(), key.data()) == 0;
}
#else
void start_library() {
  fail(StatusCode::usage_error, "this library was built without signatures, expected no trusted keys",
       "build it with libsodium and -DBITFIT_SIGNATURES=ON");
}

bool holds(const std::uint8_t*, const Bytes&, const PublicKey&) { return false; }
#endif

}  // namespace

TrustedKeys::TrustedKeys(const std::vector<std::string>& keys) {
  if (keys.empty()) fail(StatusCode::usage_error, "there is no trusted key, expected at least one");
  start_library();
  for (const std::string& key : keys) keys_.push_back(key_of(key));
}

void TrustedKeys::check(const Bytes& data, const std::string& path) const {
  const Bytes file = read_signature(path + signature_suffix);
  PublicKey key;
  std::copy_n(file.begin() + magic_size, key_size, key.begin());
  if (std::find(keys_.begin(), keys_.end(), key) == keys_.end()) {
    refuse_signature(SignatureFault::untrusted, text_of(path, " is signed by ", hex_of(key).substr(0, 16),
                                                        "..., which is not a trusted key"));
  }
  if (holds(file.data() + magic_size + key_size, data, key)) return;
  refuse_signature(SignatureFault::wrong, text_of(path, " is not what its signature was made for"),
                   "copy both files again");
}

}  // namespace bitfit
