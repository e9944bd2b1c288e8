// Answer texts with a bundle: JSON lines in, JSON lines out, the same as the Python package's `bitfit run`.

#include <bitfit/session.h>

#include <charconv>
#include <cstdio>
#include <cstdlib>
#include <fstream>
#include <iostream>
#include <nlohmann/json.hpp>

namespace {

using nlohmann::ordered_json;

constexpr std::size_t batch_size = 32;

constexpr const char* usage =
    R"(usage: bitfit_run BUNDLE [--task T] (--text TEXT)... [--pair] | --input FILE.jsonl|-
                  [--row FILE.bias]... [--truncate] [--threads N]

Answer texts with a bundle: JSON lines in, JSON lines out.

  --task T       the task of every row that names none itself
  --text TEXT    a text; twice with --pair for a text pair
  --pair         take the texts two by two, as pairs
  --input FILE   a JSONL file, or - for stdin
  --row FILE     a bias row to load besides the bundle's
  --truncate     cut texts that are longer than the model takes
  --threads N    CPU threads

example: bitfit_run bundles/minilm-l6 --task sst2 --text "What a lovely day"
)";

struct Error {
  std::string message;
  std::string hint = {};
};

[[noreturn]] void refuse(std::string message, std::string hint = {}) {
  throw Error{std::move(message), std::move(hint)};
}

void check(const bitfit::Status& status) {
  if (!status.ok()) refuse(status.text(), status.hint);
}

struct Options {
  std::string bundle, task, input;
  std::vector<std::string> texts, rows;
  bool pair = false, truncate = false;
  int threads = 0;
};

int number_of(const std::string& word) {
  int number = 0;
  const auto [end, error] = std::from_chars(word.data(), word.data() + word.size(), number);
  if (error != std::errc() || end != word.data() + word.size() || number < 1) {
    refuse("--threads is " + word + ", expected a whole number from 1");
  }
  return number;
}

Options read_options(int count, char** words) {
  Options options;
  for (int i = 1; i < count; ++i) {
    const std::string word = words[i];
    const auto value = [&]() -> std::string {
      if (++i == count) refuse(word + " has no value");
      return words[i];
    };
    if (word == "--task") {
      options.task = value();
    } else if (word == "--text") {
      options.texts.push_back(value());
    } else if (word == "--row") {
      options.rows.push_back(value());
    } else if (word == "--input") {
      options.input = value();
    } else if (word == "--threads") {
      options.threads = number_of(value());
    } else if (word == "--pair") {
      options.pair = true;
    } else if (word == "--truncate") {
      options.truncate = true;
    } else if (word.rfind("--", 0) == 0 || !options.bundle.empty()) {
      refuse("unknown argument " + word);
    } else {
      options.bundle = word;
    }
  }
  if (options.bundle.empty() || options.texts.empty() == options.input.empty()) {
    refuse("expected a bundle, and either --text or --input", "bitfit_run BUNDLE --task T --text 'some text'");
  }
  return options;
}

// A text for a task, and where it was found, for messages.
struct Question {
  std::string where;
  bitfit::Text text;
  std::string task;
};

[[noreturn]] void refuse_no_task(const std::string& where) {
  refuse(where + " names no task", "pass --task, or give each row a task of its own");
}

std::vector<Question> questions_of(const Options& options) {
  if (options.task.empty()) refuse_no_task("--text");
  if (options.pair && options.texts.size() % 2 != 0) {
    refuse("--pair takes an even number of texts, found " + std::to_string(options.texts.size()));
  }
  std::vector<Question> questions;
  for (std::size_t i = 0; i < options.texts.size(); i += options.pair ? 2 : 1) {
    const std::string number = std::to_string(questions.size() + 1);
    bitfit::Text text{options.texts[i]};
    if (options.pair) text.second = options.texts[i + 1];
    questions.push_back({(options.pair ? "pair " : "text ") + number, std::move(text), options.task});
  }
  return questions;
}

const std::string* find_text(const ordered_json& row, std::initializer_list<const char*> names) {
  for (const char* name : names) {
    const auto found = row.find(name);
    if (found == row.end()) continue;
    return found->is_string() ? found->get_ptr<const std::string*>() : nullptr;
  }
  return nullptr;
}

// Whether the first of the names that is there is not null, which says that there is no such text.
bool has_value(const ordered_json& row, std::initializer_list<const char*> names) {
  for (const char* name : names) {
    if (const auto found = row.find(name); found != row.end()) return !found->is_null();
  }
  return false;
}

bitfit::Text text_of(const ordered_json& row, const std::string& where) {
  if (row.contains("tokens")) {
    const auto& words = row["tokens"];
    const auto is_text = [](const ordered_json& word) { return word.is_string(); };
    if (!words.is_array() || words.empty() || !std::all_of(words.begin(), words.end(), is_text)) {
      refuse(where + " has tokens that are no list of words");
    }
    return {{}, std::nullopt, words.get<std::vector<std::string>>()};
  }
  const bool asks = row.contains("question") && row.contains("context");
  const std::string* const first =
      asks ? find_text(row, {"question"}) : find_text(row, {"text", "sentence", "sentence1"});
  const std::string* const second = asks ? find_text(row, {"context"}) : find_text(row, {"text_pair", "sentence2"});
  if (first == nullptr || (second == nullptr && (asks || has_value(row, {"text_pair", "sentence2"})))) {
    refuse(where + " has no text, expected text (and text_pair), tokens, or question and context, as strings",
           "sentence, or sentence1 and sentence2, will do as well");
  }
  bitfit::Text text{*first};
  if (second != nullptr) text.second = *second;
  return text;
}

Question question_of(const std::string& line, const std::string& where, const std::string& task) {
  ordered_json row;
  try {
    row = ordered_json::parse(line);
  } catch (const nlohmann::json::exception& error) {
    refuse(where + " is no JSON: " + error.what());
  }
  if (!row.is_object()) refuse(where + " is a " + row.type_name() + ", expected an object");
  const std::string* const own = find_text(row, {"task"});
  if (own == nullptr && (row.contains("task") || task.empty())) refuse_no_task(where);
  return {where, text_of(row, where), own == nullptr ? task : *own};
}

// A float32 has some seven digits; the others are noise.
double rounded(double score) {
  char text[64];
  std::snprintf(text, sizeof text, "%.6f", score);
  return std::strtod(text, nullptr);
}

// JSON with a space after each comma and colon, as Python writes it.
std::string spaced(const ordered_json& value) {
  std::string text;
  if (value.is_object()) {
    for (const auto& [name, member] : value.items()) {
      text += (text.empty() ? "" : ", ") + ordered_json(name).dump() + ": " + spaced(member);
    }
    return "{" + text + "}";
  }
  if (value.is_array()) {
    for (const auto& member : value) text += (text.empty() ? "" : ", ") + spaced(member);
    return "[" + text + "]";
  }
  return value.dump();
}

ordered_json json_of(const bitfit::TaskInfo& task, const bitfit::Result& result) {
  ordered_json object;
  object["task"] = task.name;
  if (task.problem_type == bitfit::ProblemType::token) {
    object["tokens"] = ordered_json::array();
    for (const bitfit::Prediction& word : result) {
      object["tokens"].push_back({{"word", word.text}, {"label", word.label}, {"score", rounded(word.score)}});
    }
    return object;
  }
  const bitfit::Prediction& found = result[0];
  if (task.problem_type == bitfit::ProblemType::span) object["answer"] = found.text;
  if (!found.label.empty()) object["label"] = found.label;
  object["score"] = rounded(found.score);
  if (task.problem_type == bitfit::ProblemType::span) object["start"] = found.start, object["end"] = found.end;
  return object;
}

void answer(const bitfit::Session& session, const std::vector<Question>& questions, bool truncate) {
  std::vector<bitfit::Text> texts;
  std::vector<std::string> tasks;
  std::vector<bitfit::TaskInfo> infos(questions.size());
  for (std::size_t i = 0; i < questions.size(); ++i) {
    texts.push_back(questions[i].text);
    tasks.push_back(questions[i].task);
    const bitfit::Status found = session.find_task(tasks[i], &infos[i]);
    if (!found.ok()) refuse(questions[i].where + ": " + found.text(), found.hint);
  }
  bitfit::PredictOptions options;
  options.truncate = truncate;
  options.batch_size = batch_size;
  std::vector<bitfit::Result> results;
  const bitfit::Status status = session.predict(texts, tasks, options, &results);
  if (!status.ok() && status.row != bitfit::Status::no_row && status.row < std::ptrdiff_t(questions.size())) {
    refuse(questions[static_cast<std::size_t>(status.row)].where + " " + status.message, status.hint);
  }
  check(status);
  for (std::size_t i = 0; i < questions.size(); ++i) std::cout << spaced(json_of(infos[i], results[i])) << '\n';
}

void answer_file(const bitfit::Session& session, const Options& options) {
  std::ifstream file;
  if (options.input != "-") {
    file.open(options.input, std::ios::binary);
    if (!file) refuse(options.input + " can't be read");
  }
  std::istream& stream = options.input == "-" ? std::cin : file;
  std::vector<Question> questions;
  std::size_t number = 0, asked = 0;
  for (std::string line; std::getline(stream, line);) {
    const std::string where = "line " + std::to_string(++number) + " of " + options.input;
    if (line.find_first_not_of(" \t\r\n") == std::string::npos) continue;
    questions.push_back(question_of(line, where, options.task));
    ++asked;
    if (questions.size() < batch_size) continue;
    answer(session, questions, options.truncate);
    questions.clear();
  }
  if (asked == 0) refuse(options.input + " has no rows, expected a JSON object a line");
  if (!questions.empty()) answer(session, questions, options.truncate);
}

void run(const Options& options) {
  std::unique_ptr<bitfit::Session> session;
  bitfit::SessionOptions session_options;
  session_options.threads = options.threads;
  check(bitfit::Session::open(options.bundle, session_options, &session));
  for (const std::string& row : options.rows) check(session->load_task(row));
  if (!options.input.empty()) return answer_file(*session, options);
  answer(*session, questions_of(options), options.truncate);
}

}  // namespace

int main(int count, char** words) {
  std::ios::sync_with_stdio(false);
  if (count > 1 && (words[1] == std::string_view("--help") || words[1] == std::string_view("-h"))) {
    std::cout << usage;
    return 0;
  }
  try {
    run(read_options(count, words));
  } catch (const Error& error) {
    std::cout.flush();
    std::cerr << "error: " << error.message << '\n';
    if (!error.hint.empty()) std::cerr << "hint: " << error.hint << '\n';
    return 2;
  } catch (const std::exception& error) {
    std::cerr << "error: " << error.what() << '\n';
    return 2;
  }
  return std::cout.flush() ? 0 : 2;
}
