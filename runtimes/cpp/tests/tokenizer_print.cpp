// For each JSON line of stdin, a string, a pair of strings or {"words": [...]}, print the tokens of that text as a list
// of [id, type_id, side, word, start, end], or a string that says why there are none.
//
//   tokenizer_print TOKENIZER.json [LIMIT]          tokens are truncated to LIMIT
//   tokenizer_print TOKENIZER.json LIMIT OVERLAP    a list of windows of at most LIMIT tokens for each pair

#include <bitfit/tokenizer.h>

#include <iostream>
#include <nlohmann/json.hpp>

namespace {

using nlohmann::json;

bitfit::Text text_of(const json& line) {
  if (line.is_string()) return {line.get<std::string>()};
  if (line.is_array()) return {line[0].get<std::string>(), line[1].get<std::string>()};
  return {{}, std::nullopt, line["words"].get<std::vector<std::string>>()};
}

json json_of(const bitfit::Tokens& tokens) {
  json list = json::array();
  for (const bitfit::Token& each : tokens) {
    list.push_back({each.id, each.type_id, each.side, each.word, each.start, each.end});
  }
  return list;
}

json windows_of(const bitfit::Tokens& pair, const char* limit, const char* overlap) {
  std::vector<bitfit::Tokens> windows;
  const bitfit::Status status = bitfit::cut_windows(pair, std::stoul(limit), std::stoul(overlap), &windows);
  if (!status.ok()) return status.message;
  json list = json::array();
  for (const bitfit::Tokens& window : windows) list.push_back(json_of(window));
  return list;
}

}  // namespace

int main(int argc, char** argv) {
  std::unique_ptr<bitfit::Tokenizer> tokenizer;
  const bitfit::Status opened = argc < 2 ? bitfit::Status{bitfit::StatusCode::usage_error, "no file", {}, {}}
                                         : bitfit::Tokenizer::open(argv[1], &tokenizer);
  if (!opened.ok()) {
    std::cerr << opened.message << '\n';
    return 1;
  }
  std::string line;
  bitfit::Tokens tokens;
  while (std::getline(std::cin, line)) {
    bitfit::Status status = tokenizer->encode(text_of(json::parse(line)), &tokens);
    if (status.ok() && argc == 3) status = bitfit::truncate(&tokens, std::stoul(argv[2]));
    const json found = !status.ok() ? json(status.message)
                       : argc == 4  ? windows_of(tokens, argv[2], argv[3])
                                    : json_of(tokens);
    std::cout << found.dump() << '\n';
  }
  return 0;
}
