// Any bytes before the first 0x00 are a tokenizer file or a failure that says why; what follows is a text for it.

#include <bitfit/tokenizer.h>

#include <algorithm>
#include <cstdlib>

extern "C" int LLVMFuzzerTestOneInput(const std::uint8_t* data, std::size_t size) {
  const std::string_view bytes(reinterpret_cast<const char*>(data), size);
  const std::size_t end = std::min(bytes.find('\0'), bytes.size());
  std::unique_ptr<bitfit::Tokenizer> tokenizer;
  const bitfit::Status opened = bitfit::Tokenizer::parse(bytes.substr(0, end), "tokenizer.json", &tokenizer);
  if (!opened.ok()) {
    if (opened.code != bitfit::StatusCode::bundle_error || opened.message.empty()) std::abort();
    return 0;
  }
  const std::string text(bytes.substr(std::min(end + 1, bytes.size())));
  bitfit::Tokens tokens;
  for (const bitfit::Text& each : {bitfit::Text{text}, bitfit::Text{"Ada's [SEP] \xE6\x97\xA5", text},
                                   bitfit::Text{{}, std::nullopt, {"Ada", text}}}) {
    const bitfit::Status status = tokenizer->encode(each, &tokens);
    if (!status.ok() && status.code != bitfit::StatusCode::input_error) std::abort();
    for (const bitfit::Token& token : tokens) {
      if (status.ok() && (token.id < 0 || token.id > tokenizer->largest_id())) std::abort();
    }
  }
  return 0;
}
