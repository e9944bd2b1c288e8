#include "json_lines.h"

#include "json.h"
#include "names.h"
#include "program.h"

#include <algorithm>
#include <istream>
#include <nlohmann/json.hpp>

namespace {

using nlohmann::json;

constexpr std::string_view byte_order_mark = "\xEF\xBB\xBF";

// Whether the first of the names that is there is not null, which says that there is no such text.
bool has_value(const json& row, std::initializer_list<const char*> names) {
  for (const char* name : names) {
    if (const auto found = row.find(name); found != row.end()) return !found->is_null();
  }
  return false;
}

json parse(const std::string& line, const std::string& where) {
  try {
    return bitfit::parse_json(line);
  } catch (const bitfit::JsonError& error) {
    refuse(where + " " + error.message);
  }
}

}  // namespace

const std::string* find_text(const json& row, std::initializer_list<const char*> names) {
  for (const char* name : names) {
    const auto found = row.find(name);
    if (found == row.end()) continue;
    return found->is_string() ? found->get_ptr<const std::string*>() : nullptr;
  }
  return nullptr;
}

bitfit::Text text_in(const json& row, const std::string& where) {
  if (row.contains("tokens")) {
    const auto& words = row["tokens"];
    const auto is_text = [](const json& word) { return word.is_string(); };
    if (!words.is_array() || words.empty() || !std::all_of(words.begin(), words.end(), is_text)) {
      refuse(where + " has tokens that are not a list of words");
    }
    return {{}, std::nullopt, words.get<std::vector<std::string>>()};
  }
  const bool asks = row.contains("question") && row.contains("context");
  const std::string* const first =
      asks ? find_text(row, {"question"}) : find_text(row, {"text", "sentence", "sentence1"});
  const std::string* const second = asks ? find_text(row, {"context"}) : find_text(row, {"text_pair", "sentence2"});
  if (first == nullptr || (second == nullptr && (asks || has_value(row, {"text_pair", "sentence2"})))) {
    refuse(where + " has no text, expected text (and text_pair), tokens, or question and context, as strings",
           "sentence, or sentence1 and sentence2, will do as well");
  }
  bitfit::Text text{*first};
  if (second != nullptr) text.second = *second;
  return text;
}

JsonLines::JsonLines(std::istream& stream, std::string name) : stream_(stream), name_(std::move(name)) {}

std::string JsonLines::where() const { return "line " + std::to_string(number_) + " of " + name_; }

bool JsonLines::next(json* object) {
  std::string line;
  do {
    if (!next_line(&line)) {
      if (!found_) refuse(name_ + " has no JSON object, expected one per line");
      return false;
    }
  } while (line.find_first_not_of(" \t\r") == std::string::npos);
  *object = parse(line, where());
  if (!object->is_object()) refuse(where() + " is a JSON " + object->type_name() + ", expected an object on each line");
  found_ = true;
  return true;
}

// std::getline would take a line of any length.
bool JsonLines::next_line(std::string* line) {
  line->clear();
  ++number_;
  const std::size_t mark_size = number_ == 1 ? byte_order_mark.size() : 0;
  try {
    constexpr int end = std::istream::traits_type::eof();
    int byte = stream_.rdbuf()->sbumpc();
    if (byte == end) return false;
    while (byte != end && byte != '\n' && line->size() <= bitfit::max_line_size + mark_size) {
      line->push_back(static_cast<char>(byte));
      byte = stream_.rdbuf()->sbumpc();
    }
  } catch (const std::ios_base::failure&) {
    refuse(name_ + " cannot be read");
  }
  if (line->compare(0, mark_size, byte_order_mark.substr(0, mark_size)) == 0) line->erase(0, mark_size);
  if (line->size() <= bitfit::max_line_size) return true;
  refuse(where() + " is too long, expected at most " + std::to_string(bitfit::max_line_size) + " bytes");
}
