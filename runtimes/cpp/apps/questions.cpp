#include "questions.h"

#include "program.h"

#include <nlohmann/json.hpp>

void refuse_no_task(const std::string& where) {
  refuse(where + " names no task", "pass --task, or give each line a task of its own");
}

Questions::Questions(std::istream& stream, std::string name, std::string task)
    : lines_(stream, std::move(name)), task_(std::move(task)) {}

bool Questions::next(Question* question) {
  nlohmann::json object;
  if (!lines_.next(&object)) return false;
  const std::string where = lines_.where();
  const std::string* const own = find_text(object, {"task"});
  if (own == nullptr && (object.contains("task") || task_.empty())) refuse_no_task(where);
  *question = {where, text_in(object, where), own == nullptr ? task_ : *own};
  return true;
}
