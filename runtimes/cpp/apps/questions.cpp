#include "questions.h"

#include "json.h"
#include "names.h"
#include "program.h"

#include <algorithm>
#include <initializer_list>
#include <istream>
#include <nlohmann/json.hpp>

namespace {

using nlohmann::json;

constexpr std::string_view byte_order_mark = "\xEF\xBB\xBF";

const std::string* find_text(const json& object, std::initializer_list<const char*> names) {
  for (const char* name : names) {
    const auto found = object.find(name);
    if (found == object.end()) continue;
    return found->is_string() ? found->get_ptr<const std::string*>() : nullptr;
  }
  return nullptr;
}

// Whether the first of the names that is there is not null, which says that there is no such text.
bool has_value(const json& object, std::initializer_list<const char*> names) {
  for (const char* name : names) {
    if (const auto found = object.find(name); found != object.end()) return !found->is_null();
  }
  return false;
}

bitfit::Text text_in(const json& object, const std::string& where) {
  if (object.contains("tokens")) {
    const auto& words = object["tokens"];
    const auto is_text = [](const json& word) { return word.is_string(); };
    if (!words.is_array() || words.empty() || !std::all_of(words.begin(), words.end(), is_text)) {
      refuse(where + " has tokens that are not a list of words");
    }
    return {{}, std::nullopt, words.get<std::vector<std::string>>()};
  }
  const bool asks = object.contains("question") && object.contains("context");
  const std::string* const first =
      asks ? find_text(object, {"question"}) : find_text(object, {"text", "sentence", "sentence1"});
  const std::string* const second =
      asks ? find_text(object, {"context"}) : find_text(object, {"text_pair", "sentence2"});
  if (first == nullptr || (second == nullptr && (asks || has_value(object, {"text_pair", "sentence2"})))) {
    refuse(where + " has no text, expected text (and text_pair), tokens, or question and context, as strings",
           "sentence, or sentence1 and sentence2, will do as well");
  }
  bitfit::Text text{*first};
  if (second != nullptr) text.second = *second;
  return text;
}

json parse(const std::string& line, const std::string& where) {
  try {
    return bitfit::parse_json(line);
  } catch (const bitfit::JsonError& error) {
    refuse(where + " " + error.message);
  }
}

}  // namespace

void refuse_no_task(const std::string& where) {
  refuse(where + " names no task", "pass --task, or give each line a task of its own");
}

Questions::Questions(std::istream& stream, std::string name, std::string task)
    : stream_(stream), name_(std::move(name)), task_(std::move(task)) {}

std::string Questions::where() const { return "line " + std::to_string(number_) + " of " + name_; }

bool Questions::next(Question* question) {
  std::string line;
  do {
    if (!next_line(&line)) {
      if (!asked_) refuse(name_ + " has no JSON object, expected one per line");
      return false;
    }
  } while (line.find_first_not_of(" \t\r") == std::string::npos);
  const json object = parse(line, where());
  if (!object.is_object()) refuse(where() + " is a JSON " + object.type_name() + ", expected an object on each line");
  const std::string* const own = find_text(object, {"task"});
  if (own == nullptr && (object.contains("task") || task_.empty())) refuse_no_task(where());
  asked_ = true;
  *question = {where(), text_in(object, where()), own == nullptr ? task_ : *own};
  return true;
}

// std::getline would take a line of any length.
bool Questions::next_line(std::string* line) {
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
