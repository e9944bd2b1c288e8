// Typed values out of JSON: a member that is missing or has another type is a bundle_error that names its place, so no
// later code meets a wrong type.

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

  // Whether the key is there with a value other than null.
  bool has(const char* key) const;

  std::string text(const char* key) const;
  std::int64_t integer(const char* key) const;  // neither 1.0 nor true is one
  bool boolean(const char* key) const;
  std::vector<std::string> texts(const char* key) const;
  std::vector<std::int64_t> integers(const char* key) const;
  Record record(const char* key) const;
  std::vector<Record> records(const char* key) const;

  // Of an object: its members, in the order of their names.
  std::vector<std::pair<std::string, Record>> named_records(const char* key) const;
  std::vector<std::pair<std::string, std::int64_t>> named_integers(const char* key) const;

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
  // Fails with a bundle_error: truncated or malformed JSON, a repeated key, or text that is not UTF-8.
  Document(std::string_view bytes, std::string where);
  ~Document();
  Document(Document&&) noexcept;

  // Fails with a bundle_error where the file does not hold an object.
  Record root() const;

 private:
  std::unique_ptr<nlohmann::json> value_;
  std::string where_;
};

}  // namespace bitfit

#endif  // BITFIT_SRC_RECORD_H
