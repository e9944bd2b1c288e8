// Typed values out of JSON: a member that is missing, has another type or is out of range is a bundle_error that names
// its place, so no later code meets a wrong one.

#ifndef BITFIT_SRC_RECORD_H
#define BITFIT_SRC_RECORD_H

#include <cstdint>
#include <memory>
#include <nlohmann/json_fwd.hpp>
#include <optional>
#include <string>
#include <string_view>
#include <utility>
#include <vector>

namespace bitfit {

// A JSON object at the place `where`, such as `manifest.json: layout`. It points into its Document.
class Record {
 public:
  Record(const nlohmann::json& value, std::string where);

  const std::string& where() const noexcept { return where_; }

  // Whether the key is there, and whether it is there with a value other than null.
  bool contains(const char* key) const;
  bool has(const char* key) const;

  std::string text(const char* key) const;
  std::string name(const char* key) const;      // a string that check_name takes
  std::string digest(const char* key) const;    // 64 lower-case hexadecimal digits
  std::int64_t integer(const char* key) const;  // neither 1.0 nor true is one
  std::int64_t integer(const char* key, std::int64_t least, std::int64_t most) const;
  double number(const char* key) const;
  std::string one_of(const char* key, const std::vector<const char*>& known) const;
  bool boolean(const char* key) const;
  std::vector<std::string> texts(const char* key) const;
  std::vector<std::int64_t> integers(const char* key) const;
  Record record(const char* key) const;
  std::vector<Record> records(const char* key) const;

  // Of an object: its members, in the order of their names.
  std::vector<std::pair<std::string, Record>> named_records(const char* key) const;
  std::vector<std::pair<std::string, std::int64_t>> named_integers(const char* key) const;
  std::vector<std::pair<std::string, std::string>> named_texts(const char* key) const;
  std::vector<std::pair<std::string, double>> named_numbers(const char* key) const;

  std::vector<std::pair<std::string, std::vector<double>>> lists_of_numbers(const char* key) const;

  // Lists whose members may be of two kinds, each member as the kind it is; the other one is empty.
  struct IntegerOrText {
    std::optional<std::int64_t> integer;
    std::string text;
  };
  std::vector<IntegerOrText> integers_or_texts(const char* key) const;
  struct TextOrTexts {
    std::optional<std::string> text;
    std::vector<std::string> texts;
  };
  std::vector<TextOrTexts> texts_or_lists(const char* key) const;

 private:
  const nlohmann::json& take(const char* key) const;
  const nlohmann::json& list(const char* key) const;
  [[noreturn]] void refuse(const char* key, const nlohmann::json& value, const char* expected) const;

  const nlohmann::json* value_;
  std::string where_;
};

// A whole JSON file. `where` names it in messages.
class Document {
 public:
  // Fails with a bundle_error where `parse_json` refuses the text.
  Document(std::string_view bytes, std::string where);
  ~Document();
  Document(Document&&) noexcept;

  // Fails with a bundle_error where the file does not hold an object.
  Record root() const;

 private:
  std::unique_ptr<nlohmann::json> value_;
  std::string where_;
};

// Refuse a name that is empty, longer than 1,024 bytes or has control characters, and a list that has one twice. `what`
// says what they name.
void check_name(std::string_view name, const std::string& what);
void check_names(const std::vector<std::string>& names, const std::string& what);

}  // namespace bitfit

#endif  // BITFIT_SRC_RECORD_H
