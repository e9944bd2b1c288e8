// Learns for tests.
//
//     learning_test learn BUNDLE        stdin is what to learn, as JSON; each step, each epoch and the end is a line
//     learning_test random SEED...      a permutation of 1000 numbers, then 20,000 normal ones, as two lists
//     learning_test halves FLOAT...     the bits of the nearest float16 of each
//     learning_test adamw               stdin is {"settings", "values", "gradients"}; the values after each step
//     learning_test write FILE SIZE     a file of so many bytes, in one step

#include <bitfit/trainer.h>

#include "failure.h"
#include "learning/adamw.h"
#include "learning/numpy_random.h"
#include "row_writer.h"
#include "write_file.h"

#include <csignal>
#include <iostream>
#include <nlohmann/json.hpp>

namespace {

using nlohmann::json;

bitfit::LearningSettings settings_of(const json& given) {
  bitfit::LearningSettings settings;
  settings.learning_rate = given.value("learning_rate", settings.learning_rate);
  settings.epochs = given.value("epochs", settings.epochs);
  settings.batch_size = given.value("batch_size", settings.batch_size);
  settings.part_size = given.value("part_size", settings.part_size);
  settings.schedule =
      given.value("schedule", "linear") == "linear" ? bitfit::Schedule::linear : bitfit::Schedule::constant;
  settings.warmup = given.value("warmup", settings.warmup);
  settings.weight_decay = given.value("weight_decay", settings.weight_decay);
  settings.epsilon = given.value("epsilon", settings.epsilon);
  settings.clip = given.value("clip", settings.clip);
  settings.max_length = given.value("max_length", settings.max_length);
  settings.seed = given.value("seed", settings.seed);
  settings.patience = given.value("patience", settings.patience);
  settings.balance = given.value("balance", settings.balance);
  settings.metric = given.value("metric", settings.metric);
  settings.checkpoint_steps = given.value("checkpoint_steps", settings.checkpoint_steps);
  return settings;
}

// [[text], label] or [[text, text], label]; the label is a number or a list.
std::vector<bitfit::LabelledText> examples_of(const json& given) {
  std::vector<bitfit::LabelledText> examples;
  for (const json& each : given) {
    bitfit::LabelledText example{{each[0][0].get<std::string>()}, {}};
    if (each[0].size() > 1) example.text.second = each[0][1].get<std::string>();
    if (each[1].is_array()) {
      example.label = each[1].get<std::vector<double>>();
    } else {
      example.label = {each[1].get<double>()};
    }
    examples.push_back(std::move(example));
  }
  return examples;
}

bitfit::ProblemType problem_type_of(const std::string& name) {
  for (const auto type :
       {bitfit::ProblemType::multi_label, bitfit::ProblemType::regression, bitfit::ProblemType::token}) {
    if (bitfit::detail::problem_type_names[static_cast<int>(type)] == name) return type;
  }
  return bitfit::ProblemType::single_label;
}

json json_of(const bitfit::Epoch& epoch) {
  json scores = json::object();
  for (const auto& [name, value] : epoch.scores) scores[name] = value;
  return {{"epoch", epoch.number}, {"scores", scores}, {"is_best", epoch.is_best}};
}

void say(const json& line) { std::cout << line.dump() << std::endl; }

json json_of(const bitfit::Status& status) {
  return {{"code", static_cast<int>(status.code)}, {"message", status.message}, {"hint", status.hint}};
}

void learn(const std::string& bundle, const json& given) {
  std::unique_ptr<bitfit::Session> session;
  bitfit::SessionOptions options;
  options.threads = 1;
  bitfit::check(bitfit::Session::open(bundle, options, &session));
  std::unique_ptr<bitfit::Trainer> trainer;
  if (const bitfit::Status opened = bitfit::Trainer::open(*session, &trainer); !opened.ok())
    return say(json_of(opened));
  const bitfit::TaskToLearn task{given.value("task", "mood"),
                                 problem_type_of(given.value("problem_type", "single_label")),
                                 given.value("labels", std::vector<std::string>())};
  const auto train = examples_of(given["train"]), held_out = examples_of(given["held_out"]);
  bitfit::Learning learning{task, train, held_out, settings_of(given.value("settings", json::object()))};
  const auto start = given.value("start", std::vector<std::uint8_t>());
  if (!start.empty()) learning.start = start.data(), learning.start_size = start.size();
  learning.checkpoint = given.value("checkpoint", "");
  learning.memory_limit = given.value("memory_limit", std::size_t{0});
  const auto killed_at = given.value("killed_at", std::size_t{0});
  learning.on_plan = [](const bitfit::LearningPlan& plan) {
    say({{"values", plan.values},
         {"steps", plan.steps},
         {"part_items", plan.part_items},
         {"part_tokens", plan.part_tokens},
         {"own_bytes", plan.own_bytes},
         {"peak_bytes", plan.peak_bytes}});
  };
  learning.on_step = [&](std::size_t step, std::size_t, double loss) {
    say({{"step", step}, {"loss", loss}});
    if (step == killed_at) std::raise(SIGKILL);
  };
  learning.on_epoch = [](const bitfit::Epoch& epoch) { say(json_of(epoch)); };
  bitfit::LearnedRow learned;
  json end = json_of(trainer->learn(learning, &learned));
  end["row"] = learned.bytes;
  end["best_epoch"] = learned.best_epoch;
  // The session runs on, with the row if there is one.
  if (!learned.bytes.empty()) {
    bitfit::check(session->load_task(learned.bytes.data(), learned.bytes.size(), task.name, learned.labels));
  }
  std::vector<bitfit::Result> results;
  std::vector<bitfit::TaskInfo> tasks;
  bitfit::check(session->tasks(&tasks));
  const std::string asked = learned.bytes.empty() ? tasks[0].name : task.name;
  bitfit::check(session->predict({{"a lovely day"}, {"an awful day"}}, {asked}, {}, &results));
  end["answers"] = json::array();
  for (const bitfit::Result& each : results) end["answers"].push_back(each[0].label);
  say(end);
}

void print_random(const std::vector<std::uint64_t>& seed) {
  bitfit::NumpyRandom random(seed);
  say(random.permutation(1000));
  std::vector<double> normal;
  for (int i = 0; i < 20000; ++i) normal.push_back(random.standard_normal());
  say(normal);
}

void optimise(const json& given) {
  const bitfit::LearningSettings settings = settings_of(given["settings"]);
  auto values = given["values"].get<std::vector<float>>();
  bitfit::AdamW optimiser(values.size(), settings.epsilon, settings.weight_decay);
  const std::size_t steps = given["gradients"].size();
  for (std::size_t step = 0; step < steps; ++step) {
    auto gradient = given["gradients"][step].get<std::vector<float>>();
    bitfit::clip(settings.clip, &gradient);
    optimiser.step({{0, values.size()}}, gradient, bitfit::rate_at(settings, step, steps), &values);
    say(values);
  }
}

void run(const std::vector<std::string>& words) {
  if (words[0] == "learn") return learn(words[1], json::parse(std::cin));
  if (words[0] == "adamw") return optimise(json::parse(std::cin));
  if (words[0] == "write") {
    const std::string bytes(std::stoul(words[2]), 'x');
    return bitfit::write_file(words[1], bytes.data(), bytes.size());
  }
  if (words[0] == "halves") {
    std::vector<int> bits;
    for (std::size_t i = 1; i < words.size(); ++i) bits.push_back(bitfit::float16_of(std::stof(words[i])));
    return say(bits);
  }
  std::vector<std::uint64_t> seed;
  for (std::size_t i = 1; i < words.size(); ++i) seed.push_back(std::stoull(words[i]));
  print_random(seed);
}

}  // namespace

int main(int count, char** words) {
  const bitfit::Status status = bitfit::guard([&] { run({words + 1, words + count}); });
  if (!status.ok()) std::cerr << status.message << '\n';
  return status.ok() ? 0 : 1;
}
