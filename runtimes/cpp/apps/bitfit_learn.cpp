// Learn a task's row from examples: the same as the Python package's `bitfit learn`.

#include <bitfit/trainer.h>

#include "labelled_lines.h"
#include "program.h"

#include <cstdio>
#include <cstdlib>
#include <filesystem>
#include <fstream>
#include <iostream>
#include <iterator>
#include <map>
#include <sstream>

namespace {

using bitfit::ProblemType;

constexpr const char* usage =
    R"(usage: bitfit_learn BUNDLE --task T --output FILE.bias (--data DIR | --train-file FILE --validation-file FILE)
                    [OPTION]...

Learn a task's row from examples. The bundle was exported with --trainable. Scores of each epoch on stderr, the name of
the row on stdout. A run that was interrupted resumes.

  --task T              the task's name
  --output FILE         the row
  --overwrite           replace the row if it exists
  --data DIR            folder with train.jsonl and validation.jsonl or dev.jsonl: a text or a pair, and a label
  --train-file FILE     training examples, instead of --data
  --validation-file FILE  held-out examples, instead of --data
  --labels A,B,...      label names in id order (those of the training examples, sorted)
  --problem-type TYPE   single_label, multi_label or regression (found from the labels)
  --start FILE.bias     a row to start from (the base model's)
  --restart             start again instead of resuming an interrupted run
  --threads N           CPU threads
  --memory MB           refuse to learn where that takes more memory
  --learning-rate X     peak learning rate (0.0004)
  --epochs N            (8)
  --batch-size N        examples in a step (16)
  --part-size N         examples that are computed at once, which bounds the memory (a whole batch)
  --schedule NAME       constant or linear (linear)
  --warmup X            share of the steps in which the rate rises (0.1)
  --weight-decay X      of AdamW (0)
  --clip X              the largest norm of a gradient; 0: any (1)
  --max-length N        tokens at which texts are cut (128)
  --seed N              of the new head and the order of examples (0)
  --patience N          epochs without a better score after which learning ends (never)
  --metric NAME         score that chooses the best epoch: accuracy, f1, matthews_correlation, micro_f1, spearman or
                        pearson (that of bitfit-train for the task)
  --balance             weigh classes by the inverse of their frequency
  --checkpoint-steps N  steps between checkpoints (50)

example: bitfit_learn bundles/minilm-l6 --task spam --data spam/ --output spam.bias
)";

struct Options {
  std::string bundle, task, output, data, train_file, validation_file, labels, problem_type, start;
  bool overwrite = false, restart = false;
  int threads = 0;
  std::size_t memory = 0;  // in bytes
  bitfit::LearningSettings settings;
};

double real_of(const std::string& option, const std::string& word) {
  char* end = nullptr;
  const double number = std::strtod(word.c_str(), &end);
  if (!word.empty() && *end == '\0') return number;
  refuse(option + " is " + bitfit::shown(word) + ", expected a number");
}

std::uint64_t seed_of(const std::string& word) {
  std::uint64_t seed = 0;
  const auto [end, error] = std::from_chars(word.data(), word.data() + word.size(), seed);
  if (error == std::errc() && end == word.data() + word.size()) return seed;
  refuse("--seed is " + bitfit::shown(word) + ", expected a whole number from 0");
}

bitfit::Schedule schedule_of(const std::string& word) {
  if (word == "constant") return bitfit::Schedule::constant;
  if (word == "linear") return bitfit::Schedule::linear;
  refuse("--schedule is " + bitfit::shown(word) + ", expected constant or linear");
}

// Takes an option with its value. False for a word that is none.
bool take(const std::string& option, const std::function<std::string()>& value, Options* options) {
  bitfit::LearningSettings& settings = options->settings;
  const std::map<std::string, std::string*> texts = {
      {"--task", &options->task},
      {"--output", &options->output},
      {"--data", &options->data},
      {"--train-file", &options->train_file},
      {"--validation-file", &options->validation_file},
      {"--labels", &options->labels},
      {"--problem-type", &options->problem_type},
      {"--start", &options->start},
      {"--metric", &settings.metric},
  };
  const std::map<std::string, std::size_t*> counts = {
      {"--epochs", &settings.epochs},       {"--batch-size", &settings.batch_size},
      {"--part-size", &settings.part_size}, {"--max-length", &settings.max_length},
      {"--patience", &settings.patience},   {"--checkpoint-steps", &settings.checkpoint_steps},
  };
  const std::map<std::string, double*> reals = {
      {"--learning-rate", &settings.learning_rate},
      {"--warmup", &settings.warmup},
      {"--weight-decay", &settings.weight_decay},
      {"--clip", &settings.clip},
  };
  const std::map<std::string, bool*> flags = {
      {"--overwrite", &options->overwrite}, {"--restart", &options->restart}, {"--balance", &settings.balance}};
  if (const auto text = texts.find(option); text != texts.end()) {
    *text->second = value();
  } else if (const auto count = counts.find(option); count != counts.end()) {
    *count->second = static_cast<std::size_t>(number_of(option, value()));
  } else if (const auto real = reals.find(option); real != reals.end()) {
    *real->second = real_of(option, value());
  } else if (const auto flag = flags.find(option); flag != flags.end()) {
    *flag->second = true;
  } else if (option == "--threads") {
    options->threads = number_of(option, value());
  } else if (option == "--memory") {
    options->memory = static_cast<std::size_t>(number_of(option, value())) * 1000000;
  } else if (option == "--seed") {
    settings.seed = seed_of(value());
  } else if (option == "--schedule") {
    settings.schedule = schedule_of(value());
  } else {
    return false;
  }
  return true;
}

Options read_options(int count, char** words) {
  Options options;
  for (int i = 1; i < count; ++i) {
    std::string word = words[i];
    const std::size_t equals = word.rfind("--", 0) == 0 ? word.find('=') : std::string::npos;
    const std::string given = equals == std::string::npos ? "" : word.substr(equals + 1);
    word.resize(std::min(word.size(), equals));
    const auto value = [&]() -> std::string {
      if (equals != std::string::npos) return given;
      if (++i == count) refuse(word + " has no value");
      return words[i];
    };
    if (take(word, value, &options)) continue;
    if (word.rfind("--", 0) == 0 || !options.bundle.empty()) refuse("unknown argument " + bitfit::shown(word));
    options.bundle = word;
  }
  const bool has_files = !options.train_file.empty() && !options.validation_file.empty() && options.data.empty();
  const bool has_folder = !options.data.empty() && options.train_file.empty() && options.validation_file.empty();
  if (options.bundle.empty() || options.task.empty() || options.output.empty() || (!has_files && !has_folder)) {
    refuse("expected a bundle, --task, --output, and --data or both files of examples",
           "bitfit_learn BUNDLE --task T --data DIR --output T.bias");
  }
  return options;
}

// The files of --data.
void find_files(Options* options) {
  if (options->data.empty()) return;
  options->train_file = options->data + "/train.jsonl";
  for (const char* name : {"/validation.jsonl", "/dev.jsonl"}) {
    const std::string path = options->data + name;
    if (!std::filesystem::exists(path)) continue;
    if (!options->validation_file.empty()) refuse(options->data + " has validation.jsonl and dev.jsonl, expected one");
    options->validation_file = path;
  }
  if (options->validation_file.empty() || !std::filesystem::exists(options->train_file)) {
    refuse(options->data + " lacks examples, expected train.jsonl, and validation.jsonl or dev.jsonl",
           "write each example as a JSON object on a line of its own");
  }
}

void check_output(const Options& options) {
  const std::filesystem::path output(options.output);
  if (std::filesystem::exists(output) && !options.overwrite) {
    refuse("the output " + options.output + " exists already, expected a new name", "pass --overwrite");
  }
  const std::filesystem::path folder = output.has_parent_path() ? output.parent_path() : ".";
  if (!std::filesystem::is_directory(folder)) {
    refuse("the folder of the output " + options.output + " does not exist", "make the folder first");
  }
}

std::vector<std::string> words_of(const std::string& text) {
  std::vector<std::string> words;
  std::istringstream stream(text);
  for (std::string word; std::getline(stream, word, ',');) words.push_back(word);
  return words;
}

bitfit::TaskToLearn task_of(const Options& options, const std::vector<LabelledLine>& lines) {
  bitfit::TaskToLearn task{options.task};
  const std::string& type = options.problem_type;
  if (type.empty()) {
    task.problem_type = options.labels.empty() || lines[0].is_list ? problem_type_of(lines) : ProblemType::single_label;
  } else if (type == "multi_label" || type == "regression") {
    task.problem_type = type == "regression" ? ProblemType::regression : ProblemType::multi_label;
  } else if (type != "single_label") {
    refuse("--problem-type is " + bitfit::shown(type) + ", expected single_label, multi_label or regression",
           learns_sentences);
  }
  if (!options.labels.empty()) {
    task.labels = words_of(options.labels);
  } else if (task.problem_type != ProblemType::regression) {
    task.labels = labels_of(lines, options.train_file);
  }
  return task;
}

// What bitfit-train chooses the epochs of the task by, where that is not the first score of its problem type: of tasks
// of GLUE.
std::string metric_of(const bitfit::TaskToLearn& task) {
  static const std::map<std::string, std::string> own = {
      {"cola", "matthews_correlation"}, {"mrpc", "f1"}, {"qqp", "f1"}};
  const auto found = own.find(task.name);
  const bool is_own = found != own.end() && task.problem_type == ProblemType::single_label && task.labels.size() == 2;
  return is_own ? found->second : std::string();
}

std::string scores_text(const bitfit::Epoch& epoch) {
  std::string text;
  for (const auto& [name, value] : epoch.scores) {
    char number[32];
    std::snprintf(number, sizeof number, "%.4f", value);
    text += (text.empty() ? "" : ", ") + name + " " + number;
  }
  return text;
}

void say_plan(const bitfit::LearningPlan& plan) {
  std::cerr << "learning " << plan.values << " values in " << plan.steps << " steps; at most " << plan.part_items
            << " texts of " << plan.part_tokens << " tokens at once";
  if (plan.peak_bytes > 0) std::cerr << ", in at most " << (plan.peak_bytes + 999999) / 1000000 << " MB of memory";
  std::cerr << '\n';
}

void say_epoch(const bitfit::Epoch& epoch) {
  std::cerr << "epoch " << epoch.number << ": " << scores_text(epoch) << (epoch.is_best ? " (best so far)" : "")
            << '\n';
}

std::string read_whole(const std::string& path) {
  std::ifstream file(path, std::ios::binary);
  if (!file) refuse("the row " + path + " cannot be read");
  return {std::istreambuf_iterator<char>(file), std::istreambuf_iterator<char>()};
}

void run(Options options) {
  find_files(&options);
  check_output(options);
  std::vector<LabelledLine> lines = read_labelled(options.train_file);
  const bitfit::TaskToLearn task = task_of(options, lines);
  if (options.settings.metric.empty()) options.settings.metric = metric_of(task);
  const auto train = examples_of(std::move(lines), task);
  const auto held_out = examples_of(read_labelled(options.validation_file), task);

  std::unique_ptr<bitfit::Session> session;
  bitfit::SessionOptions session_options;
  session_options.threads = options.threads;
  check(bitfit::Session::open(options.bundle, session_options, &session));
  std::unique_ptr<bitfit::Trainer> trainer;
  check(bitfit::Trainer::open(*session, &trainer));

  bitfit::Learning learning{task, train, held_out, options.settings};
  const std::string start = options.start.empty() ? std::string() : read_whole(options.start);
  if (!options.start.empty()) learning.start = start.data(), learning.start_size = start.size();
  const std::filesystem::path output(options.output);
  learning.checkpoint = (output.parent_path() / ("." + output.filename().string() + ".checkpoint")).string();
  if (options.restart) std::filesystem::remove(learning.checkpoint);
  if (std::filesystem::exists(learning.checkpoint)) std::cerr << "resuming from " << learning.checkpoint << '\n';
  learning.memory_limit = options.memory;
  learning.on_plan = say_plan;
  learning.on_epoch = say_epoch;
  bitfit::LearnedRow learned;
  check(trainer->learn(learning, &learned));
  check(learned.save(options.output));
  std::filesystem::remove(learning.checkpoint);

  std::cerr << "epoch " << learned.best_epoch << " is the best: " << scores_text(learned.epochs[learned.best_epoch - 1])
            << '\n';
  for (std::size_t id = 0; id < learned.labels.size(); ++id) {
    std::cerr << (id == 0 ? "labels in id order: " : ",") << bitfit::shown(learned.labels[id])
              << (id + 1 == learned.labels.size() ? "\n" : "");
  }
  std::cout << options.output << '\n';
}

}  // namespace

int main(int count, char** words) {
  return run_program([&] {
    if (count > 1 && (words[1] == std::string_view("--help") || words[1] == std::string_view("-h"))) {
      std::cout << usage;
    } else {
      run(read_options(count, words));
    }
  });
}
