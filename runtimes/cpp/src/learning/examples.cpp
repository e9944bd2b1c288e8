#include "learning/examples.h"

#include "failure.h"
#include "record.h"

#include <algorithm>
#include <cmath>
#include <set>

namespace bitfit {
namespace {

constexpr std::size_t group_batches = 50;  // whose examples are sorted by length together, so that little is padded

bool fits(const std::vector<double>& label, ProblemType type, std::size_t count) noexcept {
  if (type == ProblemType::multi_label) {
    return label.size() == count &&
           std::all_of(label.begin(), label.end(), [](double each) { return each == 0 || each == 1; });
  }
  if (label.size() != 1 || !std::isfinite(label[0])) return false;
  if (type == ProblemType::regression) return true;
  return label[0] == std::floor(label[0]) && label[0] >= 0 && label[0] < static_cast<double>(count);
}

std::string shown_label(const std::vector<double>& label) {
  std::string text;
  for (const double each : label) text += text_of(text.empty() ? "" : ", ", each);
  return shown(text);
}

std::string expected_label(const TaskToLearn& task) {
  const std::size_t count = task.labels.size();
  if (task.problem_type == ProblemType::regression) return "a finite number";
  if (task.problem_type == ProblemType::multi_label) return text_of("a 0 or a 1 for each of ", count, " labels");
  std::string names;
  for (std::size_t i = 0; i < std::min<std::size_t>(count, 10); ++i) {
    names += (i > 0 ? ", " : "") + shown(task.labels[i]);
  }
  return text_of("0 to ", count - 1, ", one of ", names);
}

}  // namespace

void check_task(const TaskToLearn& task) {
  if (!is_task_name(task.name)) {
    fail(StatusCode::usage_error,
         text_of("the task name is \"", shown(task.name), "\", expected letters, digits, '.', '_' or '-'"));
  }
  const std::size_t count = task.labels.size();
  const bool is_regression = task.problem_type == ProblemType::regression;
  if (!is_regression && task.problem_type != ProblemType::single_label &&
      task.problem_type != ProblemType::multi_label) {
    fail(StatusCode::usage_error,
         text_of("the problem type is ", problem_type_name(task.problem_type),
                 ", expected single_label, multi_label or regression"),
         "this runtime learns sentence tasks only; learn token and span tasks with the Python package");
  }
  if (is_regression ? count != 0 : count < 2 || count > max_labels) {
    fail(StatusCode::usage_error, text_of("a ", problem_type_name(task.problem_type), " task has ", count,
                                          " labels, expected ", is_regression ? "none" : "at least two"));
  }
  const Status names = guard([&] { check_names(task.labels, "a label"); });
  if (!names.ok()) fail(StatusCode::usage_error, names.message);
}

std::uint32_t label_count(const TaskToLearn& task) noexcept {
  return task.problem_type == ProblemType::regression ? 1 : static_cast<std::uint32_t>(task.labels.size());
}

void check_examples(const std::vector<LabelledText>& examples, const TaskToLearn& task, const char* what) {
  if (examples.empty()) fail(StatusCode::input_error, text_of(what, " has no examples, expected at least one"));
  for (std::size_t i = 0; i < examples.size(); ++i) {
    if (fits(examples[i].label, task.problem_type, task.labels.size())) continue;
    fail(StatusCode::input_error, text_of(what, ": example ", i + 1, " has the label ", shown_label(examples[i].label),
                                          ", expected ", expected_label(task)));
  }
}

void check_varied(const std::vector<LabelledText>& examples, const TaskToLearn& task) {
  const double first = examples[0].label[0];
  for (const LabelledText& each : examples) {
    if (each.label[0] != first) return;
  }
  fail(StatusCode::input_error,
       text_of("the training set has examples of the label ", shown(task.labels[static_cast<std::size_t>(first)]),
               " alone, expected at least two labels"),
       "add examples of another label");
}

TokenizedTexts::TokenizedTexts(const Session::Parts& session, const std::vector<LabelledText>& examples,
                               std::size_t limit, const char* what)
    : pad_token_id_(session.manifest.pad_token_id) {
  if (!session.tokenizer) check(session.tokenizer_status);
  Tokens tokens;
  for (std::size_t i = 0; i < examples.size(); ++i) {
    const auto refuse = [&](const std::string& why) {
      fail(StatusCode::input_error, text_of(what, ": example ", i + 1, ' ', why));
    };
    if (!examples[i].text.words.empty()) refuse("is a list of words, expected a text or a pair of texts");
    Status status = session.tokenizer->encode(examples[i].text, &tokens);
    if (status.code == StatusCode::input_error) refuse("is refused: " + status.message);
    check(std::move(status));
    check(truncate(&tokens, limit));
    if (tokens.empty()) refuse("has no token, expected at least one");
    lengths_.push_back(tokens.size());
    starts_.push_back(tokens_.size());
    for (const Token& token : tokens) {
      if (token.id >= session.manifest.vocab_size) {
        refuse(text_of("has ", token.id, " in input_ids, expected 0 to ", session.manifest.vocab_size - 1));
      }
      tokens_.push_back({static_cast<std::int32_t>(token.id), token.type_id});
    }
  }
}

std::size_t TokenizedTexts::bytes() const noexcept {
  return tokens_.capacity() * sizeof(IdAndType) + (lengths_.capacity() + starts_.capacity()) * sizeof(std::size_t);
}

void TokenizedTexts::pad(const std::vector<std::size_t>& places, Padded* padded) const {
  std::size_t longest = 0;
  for (const std::size_t place : places) longest = std::max(longest, lengths_[place]);
  padded->assign(places.size(), longest, pad_token_id_);
  for (std::size_t row = 0; row < places.size(); ++row) {
    const IdAndType* const tokens = tokens_.data() + starts_[places[row]];
    for (std::size_t i = 0; i < lengths_[places[row]]; ++i) padded->set(row, i, tokens[i].id, tokens[i].type);
  }
}

std::vector<std::vector<std::size_t>> batches_of(const std::vector<std::size_t>& lengths, std::size_t batch_size,
                                                 NumpyRandom* random) {
  batch_size = std::min(batch_size, lengths.size());
  const std::size_t span = group_batches * batch_size;
  std::vector<std::size_t> order = random->permutation(lengths.size());
  std::vector<std::vector<std::size_t>> batches;
  for (std::size_t start = 0; start < order.size(); start += span) {
    const std::size_t end = std::min(start + span, order.size());
    std::stable_sort(order.begin() + static_cast<std::ptrdiff_t>(start),
                     order.begin() + static_cast<std::ptrdiff_t>(end),
                     [&](std::size_t left, std::size_t right) { return lengths[left] < lengths[right]; });
    for (std::size_t first = start; first < end; first += batch_size) {
      const std::size_t last = std::min(first + batch_size, end);
      batches.emplace_back(order.begin() + static_cast<std::ptrdiff_t>(first),
                           order.begin() + static_cast<std::ptrdiff_t>(last));
    }
  }
  std::vector<std::vector<std::size_t>> shuffled;
  for (const std::size_t place : random->permutation(batches.size())) shuffled.push_back(std::move(batches[place]));
  return shuffled;
}

std::vector<float> targets_of(const std::vector<LabelledText>& examples, const TaskToLearn& task) {
  const std::size_t count = label_count(task);
  std::vector<float> targets(multiply({examples.size(), count}));
  for (std::size_t i = 0; i < examples.size(); ++i) {
    float* const own = targets.data() + i * count;
    const std::vector<double>& label = examples[i].label;
    if (task.problem_type == ProblemType::single_label) {
      own[static_cast<std::size_t>(label[0])] = 1;
    } else {
      std::transform(label.begin(), label.end(), own, [](double each) { return static_cast<float>(each); });
    }
  }
  return targets;
}

std::vector<float> weights_of(const std::vector<LabelledText>& examples, const TaskToLearn& task, bool balance) {
  std::vector<float> weights(examples.size(), 1.0f);
  if (!balance || task.problem_type != ProblemType::single_label) return weights;
  std::vector<std::size_t> found(task.labels.size());
  for (const LabelledText& each : examples) ++found[static_cast<std::size_t>(each.label[0])];
  const auto classes =
      static_cast<double>(found.size()) - static_cast<double>(std::count(found.begin(), found.end(), std::size_t{0}));
  for (std::size_t i = 0; i < examples.size(); ++i) {
    const auto own = static_cast<double>(found[static_cast<std::size_t>(examples[i].label[0])]);
    weights[i] = static_cast<float>(static_cast<double>(examples.size()) / (classes * own));
  }
  return weights;
}

}  // namespace bitfit
