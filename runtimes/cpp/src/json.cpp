#include "json.h"

#include "failure.h"
#include "names.h"

#include <nlohmann/json.hpp>

namespace bitfit {
namespace {

using nlohmann::json;

constexpr std::string_view byte_order_mark = "\xEF\xBB\xBF";

// Builds the value. The library's own builder keeps the last of two equal keys where other readers keep the first, and
// its callbacks look at all siblings whenever an object ends.
class Builder final : public nlohmann::json_sax<json> {
 public:
  json take() { return std::move(root_); }

  bool null() override { return put(nullptr); }
  bool boolean(bool value) override { return put(value); }
  bool number_integer(std::int64_t value) override { return put(value); }
  bool number_unsigned(std::uint64_t value) override {
    if (value > std::uint64_t{INT64_MAX}) refuse_integer();
    return put(value);
  }
  bool number_float(double value, const std::string& digits) override {
    if (digits.find_first_of(".eE") == std::string::npos) refuse_integer();
    return put(value);
  }
  bool string(std::string& value) override { return put(std::move(value)); }
  bool binary(json::binary_t&) override { return false; }  // JSON has none
  bool start_object(std::size_t) override { return open(json::object()); }
  bool start_array(std::size_t) override { return open(json::array()); }
  bool end_object() override { return close(); }
  bool end_array() override { return close(); }

  bool key(std::string& name) override {
    const auto [member, fresh] = open_.back()->get_ref<json::object_t&>().emplace(std::move(name), nullptr);
    if (!fresh) throw JsonError{text_of("has the key \"", shown(member->first), "\" twice")};
    member_ = &member->second;
    return true;
  }

  bool parse_error(std::size_t at, const std::string&, const nlohmann::detail::exception& error) override {
    if (dynamic_cast<const json::out_of_range*>(&error) != nullptr) {
      throw JsonError{"has a number that no double can hold"};
    }
    // The parser's own message quotes bytes, which may be no text.
    throw JsonError{text_of("is not valid JSON (truncated or malformed): it is wrong at byte ", at)};
  }

 private:
  [[noreturn]] static void refuse_integer() { throw JsonError{"has an integer that 64 bits cannot hold"}; }

  template <class Value>
  bool put(Value&& value) {
    place(json(std::forward<Value>(value)));
    return true;
  }

  bool open(json&& value) {
    if (open_.size() == max_json_depth) {
      throw JsonError{text_of("is nested deeper than ", max_json_depth, " levels")};
    }
    open_.push_back(place(std::move(value)));
    return true;
  }

  bool close() {
    open_.pop_back();
    return true;
  }

  // Where the value was put. It stays there: what is around it gets no other member before it is closed.
  json* place(json&& value) {
    if (open_.empty()) return &(root_ = std::move(value));
    if (open_.back()->is_object()) return &(*member_ = std::move(value));
    open_.back()->push_back(std::move(value));
    return &open_.back()->back();
  }

  json root_;
  std::vector<json*> open_;  // the objects and lists around the place, from the outermost
  json* member_ = nullptr;   // of the innermost object, for the key that was last read
};

}  // namespace

json parse_json(std::string_view text) {
  // The parser skips a byte order mark, and takes a zero byte for the end.
  if (text.substr(0, byte_order_mark.size()) == byte_order_mark) throw JsonError{"starts with a byte order mark"};
  if (const std::size_t zero = text.find('\0'); zero != std::string_view::npos) {
    throw JsonError{text_of("is not valid JSON (truncated or malformed): it is wrong at byte ", zero + 1)};
  }
  Builder builder;
  if (!json::sax_parse(text.begin(), text.end(), &builder)) throw JsonError{"is not valid JSON"};
  return builder.take();
}

}  // namespace bitfit
