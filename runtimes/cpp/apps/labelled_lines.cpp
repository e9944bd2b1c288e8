#include "labelled_lines.h"

#include "json_lines.h"
#include "program.h"

#include <algorithm>
#include <fstream>
#include <map>
#include <nlohmann/json.hpp>
#include <set>

namespace {

using bitfit::ProblemType;
using nlohmann::json;

// A sign and at most 18 digits, which 64 bits hold.
bool is_integer(const std::string& text) {
  const std::size_t sign = !text.empty() && (text[0] == '+' || text[0] == '-') ? 1 : 0;
  return text.size() > sign && text.size() <= sign + 18 &&
         std::all_of(text.begin() + static_cast<std::ptrdiff_t>(sign), text.end(),
                     [](char digit) { return digit >= '0' && digit <= '9'; });
}

LabelValue value_of(const json& label, const std::string& where) {
  LabelValue value;
  if (label.is_string() && !label.get_ref<const std::string&>().empty()) {
    value.name = label.get<std::string>();
    value.is_integer = is_integer(value.name);
    if (value.is_integer) value.name = std::to_string(std::stoll(value.name));
  } else if (label.is_number_integer()) {
    value.name = label.dump();
    value.is_integer = true;
  } else if (label.is_number()) {
    value.name = label.dump();
  } else {
    refuse(where + " has the label " + bitfit::shown(label.dump()) + ", expected a number or a name");
  }
  if (label.is_number()) value.number = label.get<double>();
  if (value.is_integer) value.number = std::stod(value.name);
  return value;
}

LabelledLine line_of(const json& object, const std::string& where) {
  LabelledLine line{where, text_in(object, where), {}};
  if (!line.text.words.empty()) {
    refuse(where + " has a list of words, expected a text or a pair of texts", learns_sentences);
  }
  const auto found = object.contains("labels") ? object.find("labels") : object.find("label");
  if (found == object.end()) refuse(where + " has no label, expected the member label, or a list labels");
  line.is_list = found->is_array();
  if (!line.is_list) {
    line.labels.push_back(value_of(*found, where));
    return line;
  }
  for (const json& each : *found) line.labels.push_back(value_of(each, where));
  return line;
}

class LabelIds {
 public:
  explicit LabelIds(const bitfit::TaskToLearn& task) : task_(task) {
    const auto& labels = task.labels;
    const bool numbered = std::any_of(labels.begin(), labels.end(), is_integer);
    for (std::size_t id = 0; id < labels.size(); ++id) {
      ids_[is_integer(labels[id]) ? std::to_string(std::stoll(labels[id])) : labels[id]] = id;
      if (!numbered) ids_[std::to_string(id)] = id;
    }
  }

  std::size_t id_of(const LabelValue& label, const std::string& where) const {
    const auto found = ids_.find(label.name);
    if (found != ids_.end()) return found->second;
    std::string known;
    for (std::size_t id = 0; id < std::min<std::size_t>(task_.labels.size(), 10); ++id) {
      known += (id > 0 ? ", " : "") + task_.labels[id] + " (" + std::to_string(id) + ")";
    }
    refuse(where + ": the label " + bitfit::shown(label.name) + " is none of " + task_.name + "'s labels: " + known,
           "--labels names all of them, those too that no training example has");
  }

 private:
  const bitfit::TaskToLearn& task_;
  std::map<std::string, std::size_t> ids_;
};

std::vector<double> label_of(const LabelledLine& line, const bitfit::TaskToLearn& task, const LabelIds& ids) {
  if (line.is_list != (task.problem_type == ProblemType::multi_label)) {
    refuse(line.where +
           (line.is_list ? " has a list of labels, expected one label" : " has one label, expected a list"));
  }
  if (task.problem_type == ProblemType::regression) {
    if (!line.labels[0].number)
      refuse(line.where + ": the label " + bitfit::shown(line.labels[0].name) + " is not a number");
    return {*line.labels[0].number};
  }
  if (!line.is_list) return {static_cast<double>(ids.id_of(line.labels[0], line.where))};
  std::vector<double> held(task.labels.size());
  for (const LabelValue& each : line.labels) held[ids.id_of(each, line.where)] = 1;
  return held;
}

}  // namespace

std::vector<LabelledLine> read_labelled(const std::string& path) {
  std::ifstream file(path, std::ios::binary);
  if (!file) refuse(path + " cannot be read");
  JsonLines source(file, path);
  std::vector<LabelledLine> lines;
  for (json object; source.next(&object);) lines.push_back(line_of(object, source.where()));
  return lines;
}

ProblemType problem_type_of(const std::vector<LabelledLine>& lines) {
  if (lines[0].is_list) return ProblemType::multi_label;
  const bool fractional = std::any_of(lines.begin(), lines.end(), [](const LabelledLine& line) {
    return !line.labels.empty() && line.labels[0].number && !line.labels[0].is_integer;
  });
  return fractional ? ProblemType::regression : ProblemType::single_label;
}

std::vector<std::string> labels_of(const std::vector<LabelledLine>& lines, const std::string& path) {
  std::set<std::string> names;
  bool numeric = true;
  for (const LabelledLine& line : lines) {
    for (const LabelValue& label : line.labels) {
      if (label.number && !label.is_integer) {
        refuse(line.where + " has the label " + label.name + ", expected names or whole numbers");
      }
      numeric = numeric && label.is_integer;
      names.insert(label.name);
    }
  }
  std::vector<std::string> sorted(names.begin(), names.end());
  const auto number = [](const std::string& name) { return std::stoll(name); };
  if (numeric) {
    std::sort(sorted.begin(), sorted.end(),
              [&](const std::string& left, const std::string& right) { return number(left) < number(right); });
    if (!sorted.empty() && number(sorted[0]) < 0) {
      refuse(path + " has the label " + sorted[0] + ", which often marks an example without a label",
             "leave those examples out, or name all labels in their order: --labels=-1,1");
    }
  }
  if (sorted.size() < 2) {
    refuse(path + (sorted.empty() ? " has no label at all" : " has one label only, " + bitfit::shown(sorted[0])) +
               ", expected two or more",
           "add examples of another label");
  }
  return sorted;
}

std::vector<bitfit::LabelledText> examples_of(std::vector<LabelledLine> lines, const bitfit::TaskToLearn& task) {
  const LabelIds ids(task);
  std::vector<bitfit::LabelledText> examples;
  for (LabelledLine& line : lines) examples.push_back({std::move(line.text), label_of(line, task, ids)});
  return examples;
}
