#include "record.h"

#include "failure.h"

#include <nlohmann/json.hpp>
#include <unordered_set>

namespace bitfit {
namespace {

using nlohmann::json;

// The parser keeps the last of two equal keys. Other readers keep the first, so neither counts here. An object with such
// keys has fewer members than it had keys.
class KeyCounts {
 public:
  bool operator()(int, json::parse_event_t event, json& value) {
    if (event == json::parse_event_t::object_start) {
      open_.push_back(0);
    } else if (event == json::parse_event_t::object_end) {
      if (open_.back() != value.size()) throw RepeatedKey();
      open_.pop_back();
    } else if (event == json::parse_event_t::key) {
      ++open_.back();
    }
    return true;
  }

  struct RepeatedKey {};

 private:
  std::vector<std::size_t> open_;  // keys so far of each object around the place
};

// Names the repeated key.
class UniqueKeys {
 public:
  bool operator()(int, json::parse_event_t event, json& value) {
    if (event == json::parse_event_t::object_start) {
      open_.emplace_back();
    } else if (event == json::parse_event_t::object_end) {
      open_.pop_back();
    } else if (event == json::parse_event_t::key) {
      const auto& key = value.get_ref<const std::string&>();
      if (!open_.back().insert(key).second) {
        fail(StatusCode::bundle_error, text_of("the key \"", key, "\" is there twice"));
      }
    }
    return true;
  }

 private:
  std::vector<std::unordered_set<std::string>> open_;
};

json parse_unique(std::string_view bytes) {
  try {
    return json::parse(bytes, KeyCounts());
  } catch (const KeyCounts::RepeatedKey&) {
    return json::parse(bytes, UniqueKeys());
  }
}

bool is_integer(const json& value) {
  // An unsigned number that int64 can't hold would turn negative.
  return value.is_number_integer() &&
         (!value.is_number_unsigned() || value.get<std::uint64_t>() <= std::uint64_t{INT64_MAX});
}

std::string shown(const json& value) {
  if (value.is_object()) return "an object";
  if (value.is_array()) return text_of("a list of ", value.size(), " values");
  return value.dump(-1, ' ', false, json::error_handler_t::replace).substr(0, 100);
}

}  // namespace

Record::Record(const json& value, std::string where) : value_(&value), where_(std::move(where)) {
  if (!value.is_object()) {
    fail(StatusCode::bundle_error, text_of(where_, " is ", shown(value), ", expected an object"));
  }
}

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
  fail(StatusCode::bundle_error, text_of(where_, ": ", key, " is ", shown(value), ", expected ", expected));
}

std::string Record::text(const char* key) const {
  const json& value = take(key);
  if (!value.is_string()) refuse(key, value, "a string");
  return value.get<std::string>();
}

std::int64_t Record::integer(const char* key) const {
  const json& value = take(key);
  if (!is_integer(value)) refuse(key, value, "an integer");
  return value.get<std::int64_t>();
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
    records.emplace_back(name, Record(each, text_of(where_, ": ", key, "[\"", name, "\"]")));
  }
  return records;
}

std::vector<std::pair<std::string, std::int64_t>> Record::named_integers(const char* key) const {
  std::vector<std::pair<std::string, std::int64_t>> integers;
  const Record parent = record(key);
  integers.reserve(parent.value_->size());
  for (const auto& [name, each] : parent.value_->items()) {
    if (!is_integer(each)) refuse(key, each, "integers in the object");
    integers.emplace_back(name, each.get<std::int64_t>());
  }
  return integers;
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
    value_ = std::make_unique<json>(parse_unique(bytes));
  } catch (const json::parse_error& error) {
    // The parser's own message quotes bytes, which may be no text.
    fail(StatusCode::bundle_error, text_of(where_, " is no whole JSON file: it is wrong at byte ", error.byte),
         copy_again);
  } catch (const json::out_of_range&) {
    fail(StatusCode::bundle_error, text_of(where_, " has a number that no double can hold"), copy_again);
  } catch (Failure& failure) {
    fail(StatusCode::bundle_error, text_of(where_, " is no whole JSON file: ", failure.status.message), copy_again);
  }
}

Document::~Document() = default;
Document::Document(Document&&) noexcept = default;

Record Document::root() const { return {*value_, where_}; }

}  // namespace bitfit
