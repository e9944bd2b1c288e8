// JSON lines: docs/files.md has the rules.

#ifndef BITFIT_APPS_JSON_LINES_H
#define BITFIT_APPS_JSON_LINES_H

#include <bitfit/tokenizer.h>

#include <cstddef>
#include <initializer_list>
#include <iosfwd>
#include <nlohmann/json_fwd.hpp>
#include <string>

// Reads objects one after the other. Whatever is wrong is an Error that names the line.
class JsonLines {
 public:
  // `name` is the input's in messages.
  JsonLines(std::istream& stream, std::string name);

  // False when there is no other. That there is none at all is an Error.
  bool next(nlohmann::json* object);

  // The line of the last one, for messages.
  std::string where() const;

 private:
  bool next_line(std::string* line);

  std::istream& stream_;
  std::string name_;
  std::size_t number_ = 0;  // of the line
  bool found_ = false;      // whether there was an object
};

// The first of these members that is there; null where it is not a string.
const std::string* find_text(const nlohmann::json& object, std::initializer_list<const char*> names);

// The text, the pair of texts or the words of an object.
bitfit::Text text_in(const nlohmann::json& object, const std::string& where);

#endif  // BITFIT_APPS_JSON_LINES_H
