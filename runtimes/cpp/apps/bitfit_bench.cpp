// Time a bundle: opening it, the first answer, runs of one task and of mixed tasks, switching tasks, and memory.

#include <bitfit/session.h>

#include "peak_memory.h"
#include "program.h"

#include <algorithm>
#include <chrono>
#include <cstdlib>
#include <iostream>
#include <nlohmann/json.hpp>
#include <string_view>

namespace {

constexpr const char* usage =
    R"(usage: bitfit_bench BUNDLE [--threads N] [--rounds N] [--shape ROWSxTOKENS]... [--tasks N]... [--check-hashes]

Time a bundle: opening it, the first answer, runs of one task and of mixed tasks, switching tasks, and memory.

One JSON object on stdout. Milliseconds are medians of all rounds. Runs that are compared take turns, so that both
see the same machine. For each number of tasks in --tasks, tasks are unloaded or copies of a row loaded until there are
so many, and the smallest batch is run with the same task each time and with another one each time.

example: bitfit_bench bundles/minilm-l6 --shape 1x128 --tasks 1000
)";

using Clock = std::chrono::steady_clock;
using nlohmann::ordered_json;

struct Shape {
  std::size_t items, tokens;
};

struct Options {
  std::string bundle;
  int threads = 1;
  bool check_hashes = false;
  std::size_t rounds = 30;
  std::vector<Shape> shapes;
  std::vector<std::size_t> tasks;
};

std::size_t positive(const std::string& text) {
  const long value = std::strtol(text.c_str(), nullptr, 10);
  if (value < 1) refuse("\"" + bitfit::shown(text) + "\" is not a number of at least 1");
  return static_cast<std::size_t>(value);
}

Options read_options(int count, char** words) {
  Options options;
  for (int i = 1; i < count; ++i) {
    const std::string word = words[i];
    const auto value = [&] { return ++i < count ? std::string(words[i]) : std::string(); };
    if (word == "--threads") {
      options.threads = static_cast<int>(positive(value()));
    } else if (word == "--check-hashes") {
      options.check_hashes = true;
    } else if (word == "--rounds") {
      options.rounds = positive(value());
    } else if (word == "--tasks") {
      options.tasks.push_back(positive(value()));
    } else if (word == "--shape") {
      const std::string shape = value();
      const std::size_t cross = std::min(shape.find('x'), shape.size());
      options.shapes.push_back(
          {positive(shape.substr(0, cross)), positive(shape.substr(std::min(cross + 1, shape.size())))});
    } else if (word.rfind("--", 0) == 0 || !options.bundle.empty()) {
      refuse("unknown argument " + bitfit::shown(word));
    } else {
      options.bundle = word;
    }
  }
  if (options.bundle.empty()) refuse("expected a bundle");
  if (options.shapes.empty()) options.shapes = {{1, 128}, {1, 16}, {8, 128}, {8, 16}};
  if (options.tasks.empty()) options.tasks = {1, 100, 1000};
  return options;
}

double milliseconds_since(Clock::time_point start) {
  return std::chrono::duration<double, std::milli>(Clock::now() - start).count();
}

template <class Work>
double time_of(Work&& work) {
  const Clock::time_point start = Clock::now();
  work();
  return milliseconds_since(start);
}

double median(std::vector<double> values) {
  const auto middle = values.begin() + static_cast<std::ptrdiff_t>(values.size() / 2);
  std::nth_element(values.begin(), middle, values.end());
  return *middle;
}

// Ids that any model takes, without padding, and room for what comes out.
class Runs {
 public:
  Runs(const bitfit::Session& session, Shape shape)
      : session_(session), ids_(shape.items * shape.tokens, 1), mask_(ids_.size(), 1) {
    logits_.resize(session.logits_capacity(shape.items, shape.tokens));
    batch_ = {ids_.data(), mask_.data(), nullptr, shape.items, shape.tokens};
  }

  double run(const std::vector<std::string_view>& tasks) {
    bitfit::Logits logits{logits_.data(), logits_.size(), 0, 0, 0};
    return time_of([&] { check(session_.run(tasks.data(), tasks.size(), batch_, &workspace_, &logits)); });
  }

 private:
  const bitfit::Session& session_;
  std::vector<std::int64_t> ids_, mask_;
  std::vector<float> logits_;
  bitfit::Batch batch_;
  bitfit::Workspace workspace_;
};

// Names of tasks that can share a batch.
std::vector<std::string> sentence_tasks(const bitfit::Session& session) {
  std::vector<bitfit::TaskInfo> tasks;
  check(session.tasks(&tasks));
  std::vector<std::string> names;
  for (const bitfit::TaskInfo& task : tasks) {
    const bool by_token =
        task.problem_type == bitfit::ProblemType::token || task.problem_type == bitfit::ProblemType::span;
    if (!by_token) names.push_back(task.name);
  }
  if (names.empty()) refuse("the bundle has no sentence task, expected one");
  return names;
}

ordered_json time_shape(const bitfit::Session& session, Shape shape, std::size_t rounds) {
  const std::vector<std::string> names = sentence_tasks(session);
  const std::vector<std::string_view> one = {names[0]};
  std::vector<std::string_view> mixed;
  for (std::size_t item = 0; item < shape.items; ++item) mixed.push_back(names[item % names.size()]);
  Runs runs(session, shape);
  runs.run(one);
  std::vector<double> single_times, mixed_times;
  bool mixes = true;
  for (std::size_t round = 0; round < rounds; ++round) {
    single_times.push_back(runs.run(one));
    try {
      if (mixes && shape.items > 1) mixed_times.push_back(runs.run(mixed));
    } catch (const Error&) {
      mixes = false;  // a layout that runs one task at a time
    }
  }
  ordered_json result = {{"one_task_ms", median(single_times)}};
  if (!mixed_times.empty()) result["mixed_ms"] = median(mixed_times);
  return result;
}

// Unload tasks, but for the first sentence task, or load copies of a row until there are `count` tasks; then run with
// and without a switch of task, in turn.
ordered_json time_switch(bitfit::Session* session, const std::string& row, std::size_t count, std::size_t rounds) {
  std::vector<bitfit::TaskInfo> loaded;
  check(session->tasks(&loaded));
  const std::string kept = sentence_tasks(*session)[0];
  for (std::size_t i = loaded.size(); i-- > 0 && loaded.size() > count;) {
    if (loaded[i].name == kept) continue;
    check(session->unload_task(loaded[i].name));
    loaded.erase(loaded.begin() + static_cast<std::ptrdiff_t>(i));
  }
  double load = 0;
  std::size_t loads = 0;
  for (std::size_t number = loaded.size(); number < count; ++number, ++loads) {
    load += time_of([&] { check(session->load_task(row, "copy-" + std::to_string(number))); });
  }
  const std::vector<std::string> names = sentence_tasks(*session);
  Runs runs(*session, {1, 1});
  runs.run({names[0]});
  std::vector<double> same, other;
  for (std::size_t round = 0; round < rounds * 10; ++round) {
    same.push_back(runs.run({names[0]}));
    same.push_back(runs.run({names[0]}));
    other.push_back(runs.run({names[(round * 37 + 1) % names.size()]}));
    other.push_back(runs.run({names[(round * 91 + 2) % names.size()]}));
  }
  ordered_json result = {{"same_task_us", median(same) * 1e3}, {"other_task_us", median(other) * 1e3}};
  if (loads > 0) result["load_task_ms"] = load / static_cast<double>(loads);
  return result;
}

double peak_memory_mb() { return static_cast<double>(bitfit::peak_memory()) / 1e6; }

void bench(const Options& options, Clock::time_point started) {
  ordered_json report;
  std::unique_ptr<bitfit::Session> session;
  bitfit::SessionOptions session_options;
  session_options.threads = options.threads;
  session_options.check_hashes = options.check_hashes;
  report["open_ms"] = time_of([&] { check(bitfit::Session::open(options.bundle, session_options, &session)); });
  const std::string task = sentence_tasks(*session)[0];
  if (session->tokenizer() != nullptr) {
    std::vector<bitfit::Result> results;
    check(session->predict({{"A warm, funny film."}}, {task}, {}, &results));
  } else {
    Runs(*session, {1, 16}).run({task});
  }
  report["first_answer_ms"] = milliseconds_since(started);
  report["peak_memory_mb_after_first_answer"] = peak_memory_mb();
  for (const Shape& shape : options.shapes) {
    const std::string name = std::to_string(shape.items) + "x" + std::to_string(shape.tokens);
    report["runs"][name] = time_shape(*session, shape, options.rounds);
  }
  const std::string row = options.bundle + "/tasks/" + task + ".bias";
  for (const std::size_t count : options.tasks) {
    report["switch"][std::to_string(count)] = time_switch(session.get(), row, count, options.rounds);
  }
  report["peak_memory_mb"] = peak_memory_mb();
  std::cout << report.dump(2) << '\n';
}

}  // namespace

int main(int count, char** words) {
  const Clock::time_point started = Clock::now();
  return run_program([&] {
    if (count > 1 && (words[1] == std::string_view("--help") || words[1] == std::string_view("-h"))) {
      std::cout << usage;
    } else {
      bench(read_options(count, words), started);
    }
  });
}
