// The lines of JSON-lines input: docs/files.md has the rules.

#ifndef BITFIT_APPS_QUESTIONS_H
#define BITFIT_APPS_QUESTIONS_H

#include "json_lines.h"

#include <iosfwd>
#include <string>

// A text for a task, and where it was found, for messages.
struct Question {
  std::string where;
  bitfit::Text text;
  std::string task;
};

[[noreturn]] void refuse_no_task(const std::string& where);

// Reads lines one after the other. Whatever is wrong is an Error that names the line.
class Questions {
 public:
  // `name` is the input's in messages; `task` that of lines that name none, or empty.
  Questions(std::istream& stream, std::string name, std::string task);

  // False when there is no other. That there is none at all is an Error.
  bool next(Question* question);

 private:
  JsonLines lines_;
  std::string task_;
};

#endif  // BITFIT_APPS_QUESTIONS_H
