// Answer texts with a bundle: JSON lines in, JSON lines out, the same as the Python package's `bitfit run`.

#include <bitfit/engine.h>
#include <bitfit/session.h>

#include "engine_choice.h"
#include "program.h"
#include "questions.h"

#include <cstdio>
#include <cstdlib>
#include <fstream>
#include <iostream>
#include <nlohmann/json.hpp>
#include <optional>

namespace {

using nlohmann::ordered_json;

constexpr const char* usage =
    R"(usage: bitfit_run BUNDLE [--task T] (--text TEXT)... [--pair] | --input FILE.jsonl|-
                  [--row FILE.bias]... [--truncate] [--batch-tokens N] [--threads N] [--check-hashes]
                  [--trusted-key KEY]... [--state FILE]
                  [--engine NAME [--engine-option NAME=VALUE]...]

Answer texts with a bundle: JSON lines in, JSON lines out.

  --task T       the task of every line that names none itself
  --text TEXT    a text; twice with --pair for a text pair
  --pair         take the texts two by two, as pairs
  --input FILE   a JSONL file, or - for stdin
  --row FILE     a bias row to load besides the bundle's
  --truncate     cut texts that are longer than the model takes
  --batch-tokens N  tokens to run at once, at most, with padding (512)
  --threads N    CPU threads
  --check-hashes compare SHA-256 of every file of the bundle, which finds forgeries
  --trusted-key KEY  a public key, or its file: refuse a bundle and rows that it did not sign
  --state FILE   keep the highest version of each task there, and refuse older rows
  --engine NAME  what runs the model: onnxruntime or qnn (the first that can)
  --engine-option NAME=VALUE  of qnn: library=PATH of libonnxruntime_providers_qnn.so, htp_arch=N of this device

example: bitfit_run bundles/minilm-l6 --task sst2 --text "What a lovely day"
)";

struct Options {
  std::string bundle, task, input;
  std::vector<std::string> texts, rows;
  std::optional<std::vector<std::string>> trusted_keys;
  std::string state;
  bool pair = false, check_hashes = false;
  int threads = 0;
  bitfit::PredictOptions predict;
  EngineChoice engine;
};

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
    } else if (word == "--trusted-key") {
      if (!options.trusted_keys) options.trusted_keys.emplace();
      options.trusted_keys->push_back(value());
    } else if (word == "--state") {
      options.state = value();
    } else if (word == "--input") {
      options.input = value();
    } else if (word == "--engine") {
      options.engine.name = value();
    } else if (word == "--engine-option") {
      options.engine.add_option(value());
    } else if (word == "--threads") {
      options.threads = number_of(word, value());
    } else if (word == "--batch-tokens") {
      options.predict.batch_tokens = static_cast<std::size_t>(number_of(word, value()));
    } else if (word == "--pair") {
      options.pair = true;
    } else if (word == "--truncate") {
      options.predict.truncate = true;
    } else if (word == "--check-hashes") {
      options.check_hashes = true;
    } else if (word.rfind("--", 0) == 0 || !options.bundle.empty()) {
      refuse("unknown argument " + bitfit::shown(word));
    } else {
      options.bundle = word;
    }
  }
  if (options.bundle.empty() || options.texts.empty() == options.input.empty()) {
    refuse("expected a bundle, and either --text or --input", "bitfit_run BUNDLE --task T --text 'some text'");
  }
  return options;
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

void answer(const bitfit::Session& session, const std::vector<Question>& questions,
            const bitfit::PredictOptions& options) {
  std::vector<bitfit::Text> texts;
  std::vector<std::string> tasks;
  for (const Question& question : questions) {
    texts.push_back(question.text);
    tasks.push_back(question.task);
    bitfit::TaskInfo info;
    const bitfit::Status found = session.find_task(question.task, &info);
    if (!found.ok()) refuse(question.where + ": " + found.text(), found.hint);
  }
  std::vector<bitfit::Result> results;
  std::vector<bitfit::TaskInfo> answered;
  const bitfit::Status status = session.predict(texts, tasks, options, &results, &answered);
  if (!status.ok() && status.item != bitfit::Status::no_item && status.item < std::ptrdiff_t(questions.size())) {
    refuse(questions[static_cast<std::size_t>(status.item)].where + " " + status.message, status.hint);
  }
  check(status);
  for (std::size_t i = 0; i < questions.size(); ++i) std::cout << spaced(json_of(answered[i], results[i])) << '\n';
  flush_output();
}

void answer_file(const bitfit::Session& session, const Options& options) {
  std::ifstream file;
  if (options.input != "-") {
    file.open(options.input, std::ios::binary);
    if (!file) refuse(options.input + " cannot be read");
  }
  Questions source(options.input == "-" ? std::cin : file, options.input, options.task);
  std::vector<Question> questions;
  for (Question question; source.next(&question);) {
    questions.push_back(std::move(question));
    if (questions.size() < options.predict.batch_size) continue;
    answer(session, questions, options.predict);
    questions.clear();
  }
  if (!questions.empty()) answer(session, questions, options.predict);
}

std::unique_ptr<bitfit::Session> open_session(const Options& options) {
  const StdoutIsStderr prints;
  std::unique_ptr<bitfit::Session> session;
  bitfit::SessionOptions session_options;
  session_options.threads = options.threads;
  session_options.check_hashes = options.check_hashes;
  session_options.trusted_keys = options.trusted_keys;
  session_options.state = options.state;
  session_options.engine = options.engine.make();
  check(bitfit::Session::open(options.bundle, session_options, &session));
  return session;
}

void say_warnings(const bitfit::Session& session) {
  std::vector<bitfit::TaskInfo> tasks;
  check(session.tasks(&tasks));
  for (const bitfit::TaskInfo& task : tasks) {
    if (!task.warning.empty()) std::cerr << "warning: " << task.warning << '\n';
  }
}

void run(const Options& options) {
  const std::unique_ptr<bitfit::Session> session = open_session(options);
  if (session->device() != bitfit::this_processor) std::cerr << "running on " << session->device() << '\n';
  for (const std::string& row : options.rows) check(session->load_task(row));
  say_warnings(*session);
  if (!options.input.empty()) return answer_file(*session, options);
  answer(*session, questions_of(options), options.predict);
}

}  // namespace

int main(int count, char** words) {
  std::ios::sync_with_stdio(false);
  return run_program([&] {
    if (count > 1 && (words[1] == std::string_view("--help") || words[1] == std::string_view("-h"))) {
      std::cout << usage;
    } else {
      run(read_options(count, words));
    }
  });
}
