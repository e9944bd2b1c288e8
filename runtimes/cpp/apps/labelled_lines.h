// Examples to learn from, as JSON lines: a text or a pair, as bitfit_run reads them, and `label`, or a list `labels`.

#ifndef BITFIT_APPS_LABELLED_LINES_H
#define BITFIT_APPS_LABELLED_LINES_H

#include <bitfit/trainer.h>

#include <optional>
#include <string>
#include <vector>

inline constexpr const char* learns_sentences =
    "this program learns sentence tasks only; learn token and span tasks with the Python package";

// A label of one line: a name, a whole number (a name as well), or a number with a fraction.
struct LabelValue {
  std::string name;  // whole numbers as Python writes them: "1" for 01
  bool is_integer = false;
  std::optional<double> number;
};

struct LabelledLine {
  std::string where;
  bitfit::Text text;
  std::vector<LabelValue> labels;
  bool is_list = false;
};

// All lines of a file. Whatever is wrong is an Error that names the line.
std::vector<LabelledLine> read_labelled(const std::string& path);

// What kind of task these lines are of, where nobody says it: lists make a multi-label task, a number with a fraction a
// regression.
bitfit::ProblemType problem_type_of(const std::vector<LabelledLine>& lines);

// The labels that are there, sorted: whole numbers by value, names by code point.
std::vector<std::string> labels_of(const std::vector<LabelledLine>& lines, const std::string& path);

// The lines as examples of a task, which are then empty. A label is a name, or an id where no name is a number.
std::vector<bitfit::LabelledText> examples_of(std::vector<LabelledLine> lines, const bitfit::TaskToLearn& task);

#endif  // BITFIT_APPS_LABELLED_LINES_H
