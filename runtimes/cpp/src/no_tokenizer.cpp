// The tokenizer of a build without tokenizers, BITFIT_TOKENIZERS=OFF: it refuses every file, and sessions run ids
// alone.

#include <bitfit/tokenizer.h>

#include "failure.h"

namespace bitfit {

struct Tokenizer::Parts {};

Tokenizer::Tokenizer(std::unique_ptr<Parts> parts) noexcept : parts_(std::move(parts)) {}
Tokenizer::~Tokenizer() = default;

Status Tokenizer::open(const std::string& path, std::unique_ptr<Tokenizer>* out) noexcept {
  return parse({}, path, out);
}

Status Tokenizer::parse(std::string_view, const std::string& where, std::unique_ptr<Tokenizer>*) noexcept {
  return guard([&] {
    fail(StatusCode::bundle_error, text_of(where, " is a tokenizer file, which this build cannot read, expected ids"),
         "build the library with BITFIT_TOKENIZERS=ON");
  });
}

// Nobody has a tokenizer to call these with.
Status Tokenizer::encode(const Text&, Tokens*) const noexcept { return {}; }
std::int64_t Tokenizer::largest_id() const noexcept { return 0; }

}  // namespace bitfit
