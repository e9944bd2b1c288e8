#include "record.h"

#include "failure.h"
#include "json.h"
#include "names.h"

#include <algorithm>
#include <nlohmann/json.hpp>
#include <set>

namespace bitfit {
namespace {

using nlohmann::json;

bool is_integer(const json& value) { return value.is_number_integer(); }

std::string described(const json& value) {
  if (value.is_object()) return "an object";
  if (value.is_array()) return text_of("a list of ", value.size(), " values");
  if (value.is_string()) return text_of('"', shown(value.get_ref<const std::string&>()), '"');
  return value.dump();
}

}  // namespace

Record::Record(const json& value, std::string where) : value_(&value), where_(std::move(where)) {
  if (!value.is_object()) {
    fail(StatusCode::bundle_error, text_of(where_, " is ", described(value), ", expected an object"));
  }
}

bool Record::contains(const char* key) const { return value_->contains(key); }

bool Record::has(const char* key) const {
  const auto found = value_->find(key);
  return found != value_->end() && !found->is_null();
}

const json& Record::take(const char* key) const {
  const auto found = value_->find(key);
  if (found == value_->end()) {
    fail(StatusCode::bundle_error, text_of(where_, " lacks ", key), "export the bundle again");
  }
  return *found;
}

const json& Record::list(const char* key) const {
  const json& value = take(key);
  if (!value.is_array()) refuse(key, value, "a list");
  return value;
}

void Record::refuse(const char* key, const json& value, const char* expected) const {
  fail(StatusCode::bundle_error, text_of(where_, ": ", key, " is ", described(value), ", expected ", expected));
}

std::string Record::text(const char* key) const {
  const json& value = take(key);
  if (!value.is_string()) refuse(key, value, "a string");
  return value.get<std::string>();
}

std::string Record::name(const char* key) const {
  const std::string name = text(key);
  check_name(name, text_of(where_, ": ", key));
  return name;
}

std::string Record::digest(const char* key) const {
  const json& value = take(key);
  const std::string digest = text(key);
  const bool valid = digest.size() == 64 && digest.find_first_not_of("0123456789abcdef") == std::string::npos;
  if (!valid) refuse(key, value, "64 lower-case hexadecimal digits");
  return digest;
}

std::int64_t Record::integer(const char* key) const {
  const json& value = take(key);
  if (!is_integer(value)) refuse(key, value, "an integer");
  return value.get<std::int64_t>();
}

std::int64_t Record::integer(const char* key, std::int64_t least, std::int64_t most) const {
  const std::int64_t value = integer(key);
  if (value < least || value > most) refuse(key, take(key), text_of(least, " to ", most).c_str());
  return value;
}

std::string Record::one_of(const char* key, const std::vector<const char*>& known) const {
  std::string value = text(key);
  if (std::find(known.begin(), known.end(), value) != known.end()) return value;
  std::string expected;
  for (const char* each : known) {
    expected += (each == known.front() ? "" : each == known.back() ? " or " : ", ") + std::string(each);
  }
  refuse(key, take(key), expected.c_str());
}

double Record::number(const char* key) const {
  const json& value = take(key);
  if (!value.is_number()) refuse(key, value, "a number");
  return value.get<double>();
}

bool Record::boolean(const char* key) const {
  const json& value = take(key);
  if (!value.is_boolean()) refuse(key, value, "true or false");
  return value.get<bool>();
}

std::vector<std::string> Record::texts(const char* key) const {
  std::vector<std::string> texts;
  for (const json& each : list(key)) {
    if (!each.is_string()) refuse(key, each, "strings in the list");
    texts.push_back(each.get<std::string>());
  }
  return texts;
}

std::vector<std::int64_t> Record::integers(const char* key) const {
  std::vector<std::int64_t> integers;
  for (const json& each : list(key)) {
    if (!is_integer(each)) refuse(key, each, "integers in the list");
    integers.push_back(each.get<std::int64_t>());
  }
  return integers;
}

Record Record::record(const char* key) const { return {take(key), text_of(where_, ": ", key)}; }

std::vector<Record> Record::records(const char* key) const {
  std::vector<Record> records;
  for (const json& each : list(key)) records.emplace_back(each, text_of(where_, ": ", key, '[', records.size(), ']'));
  return records;
}

std::vector<std::pair<std::string, Record>> Record::named_records(const char* key) const {
  std::vector<std::pair<std::string, Record>> records;
  const Record parent = record(key);
  for (const auto& [name, each] : parent.value_->items()) {
    records.emplace_back(name, Record(each, text_of(where_, ": ", key, "[\"", shown(name), "\"]")));
  }
  return records;
}

std::vector<std::pair<std::string, std::int64_t>> Record::named_integers(const char* key) const {
  std::vector<std::pair<std::string, std::int64_t>> integers;
  const Record parent = record(key);
  const auto& members = parent.value_->get_ref<const json::object_t&>();
  integers.reserve(members.size());
  for (const auto& [name, each] : members) {
    if (!is_integer(each)) refuse(key, each, "integers in the object");
    integers.emplace_back(name, each.get<std::int64_t>());
  }
  return integers;
}

std::vector<std::pair<std::string, std::string>> Record::named_texts(const char* key) const {
  std::vector<std::pair<std::string, std::string>> texts;
  const Record parent = record(key);
  for (const auto& [name, each] : parent.value_->items()) {
    if (!each.is_string()) refuse(key, each, "strings in the object");
    texts.emplace_back(name, each.get<std::string>());
  }
  return texts;
}

std::vector<std::pair<std::string, double>> Record::named_numbers(const char* key) const {
  std::vector<std::pair<std::string, double>> numbers;
  const Record parent = record(key);
  for (const auto& [name, each] : parent.value_->items()) {
    if (!each.is_number()) refuse(key, each, "numbers in the object");
    numbers.emplace_back(name, each.get<double>());
  }
  return numbers;
}

std::vector<std::pair<std::string, std::vector<double>>> Record::lists_of_numbers(const char* key) const {
  std::vector<std::pair<std::string, std::vector<double>>> lists;
  const Record parent = record(key);
  const auto is_number = [](const json& value) { return value.is_number(); };
  for (const auto& [name, each] : parent.value_->items()) {
    if (!each.is_array() || !std::all_of(each.begin(), each.end(), is_number)) {
      refuse(key, each, "lists of numbers in the object");
    }
    lists.emplace_back(name, each.get<std::vector<double>>());
  }
  return lists;
}

std::vector<Record::IntegerOrText> Record::integers_or_texts(const char* key) const {
  std::vector<IntegerOrText> values;
  for (const json& each : list(key)) {
    if (is_integer(each)) {
      values.push_back({each.get<std::int64_t>(), {}});
    } else if (each.is_string()) {
      values.push_back({std::nullopt, each.get<std::string>()});
    } else {
      refuse(key, each, "integers and strings in the list");
    }
  }
  return values;
}

std::vector<Record::TextOrTexts> Record::texts_or_lists(const char* key) const {
  std::vector<TextOrTexts> values;
  const auto is_text = [](const json& value) { return value.is_string(); };
  for (const json& each : list(key)) {
    if (each.is_string()) {
      values.push_back({each.get<std::string>(), {}});
    } else if (each.is_array() && std::all_of(each.begin(), each.end(), is_text)) {
      values.push_back({std::nullopt, each.get<std::vector<std::string>>()});
    } else {
      refuse(key, each, "strings or lists of strings in the list");
    }
  }
  return values;
}

Document::Document(std::string_view bytes, std::string where) : where_(std::move(where)) {
  try {
    value_ = std::make_unique<json>(parse_json(bytes));
  } catch (const JsonError& error) {
    fail(StatusCode::bundle_error, text_of(where_, ' ', error.message), copy_again);
  }
}

Document::~Document() = default;
Document::Document(Document&&) noexcept = default;

Record Document::root() const { return {*value_, where_}; }

void check_name(std::string_view name, const std::string& what) {
  const auto refuse = [&](const std::string& expected) {
    fail(StatusCode::bundle_error, text_of(what, " has the name \"", shown(name), "\", expected ", expected));
  };
  if (name.empty()) refuse("one that is not empty");
  if (name.size() > max_name_bytes) refuse(text_of("at most ", max_name_bytes, " bytes"));
  for (std::size_t at = 0; at < name.size();) {
    char32_t code = 0;
    const std::size_t end = end_of_character(name, at, &code);
    if (end == at || is_control_character(code)) refuse("UTF-8 without control characters");
    at = end;
  }
}

void check_names(const std::vector<std::string>& names, const std::string& what) {
  std::set<std::string_view> seen;
  for (const std::string& name : names) {
    check_name(name, what);
    if (!seen.insert(name).second) {
      fail(StatusCode::bundle_error, text_of(what, ": ", shown(name), " is there twice, expected unique names"));
    }
  }
}

}  // namespace bitfit
