#include "predictions.h"

#include <algorithm>
#include <cmath>
#include <tuple>
#include <utility>

namespace bitfit {
namespace {

// In place; what is subtracted changes nothing but keeps exp from overflowing.
void softmax(std::vector<double>* values) {
  const double largest = *std::max_element(values->begin(), values->end());
  double sum = 0;
  for (double& value : *values) sum += value = std::exp(value - largest);
  for (double& value : *values) value /= sum;
}

// 1 / (1 + exp(-x)) without overflow.
double sigmoid(double value) { return 0.5 * (1.0 + std::tanh(0.5 * value)); }

Prediction most_likely(const TaskInfo& task, std::vector<double>* values) {
  softmax(values);
  const auto best = std::max_element(values->begin(), values->end());
  return {task.labels[static_cast<std::size_t>(best - values->begin())], *best, {}, 0, 0};
}

// The bytes of the characters from start to before end.
std::string part_of(const std::string& text, std::size_t start, std::size_t end) {
  const auto starts_character = [](char byte) { return (static_cast<unsigned char>(byte) & 0xC0) != 0x80; };
  std::size_t character = 0, first = text.size(), last = text.size();
  for (std::size_t at = 0; at < text.size(); ++at) {
    if (!starts_character(text[at])) continue;
    if (character == start) first = at;
    if (character == end) {
      last = at;
      break;
    }
    ++character;
  }
  return text.substr(first, last - first);
}

std::vector<double> probabilities(const float* logits, std::size_t row_labels, std::size_t column,
                                  const std::vector<std::size_t>& places) {
  std::vector<double> values;
  for (const std::size_t place : places) values.push_back(logits[place * row_labels + column]);
  softmax(&values);
  return values;
}

}  // namespace

Result rank_labels(const TaskInfo& task, const float* logits) {
  if (task.problem_type == ProblemType::regression) return {{{}, logits[0], {}, 0, 0}};
  std::vector<double> scores(logits, logits + task.label_count);
  if (task.problem_type == ProblemType::single_label) {
    softmax(&scores);
  } else {
    for (double& score : scores) score = sigmoid(score);
  }
  Result labels;
  for (std::size_t i = 0; i < scores.size(); ++i) labels.push_back({task.labels[i], scores[i], {}, 0, 0});
  std::stable_sort(labels.begin(), labels.end(),
                   [](const Prediction& left, const Prediction& right) { return left.score > right.score; });
  return labels;
}

Result label_words(const TaskInfo& task, const float* logits, std::size_t row_labels, const Tokens& tokens,
                   const Text& text) {
  Result words;
  std::int32_t before = Token::none;
  for (std::size_t i = 0; i < tokens.size(); ++i) {
    const Token& token = tokens[i];
    if (token.word != Token::none && token.word != before && token.has_text()) {
      const float* const row = logits + i * row_labels;
      std::vector<double> values(row, row + task.label_count);
      Prediction word = most_likely(task, &values);
      word.text = text.words.empty() ? part_of(text.first, token.start, token.end)
                                     : text.words[static_cast<std::size_t>(token.word)];
      word.start = token.start;
      word.end = token.end;
      words.push_back(std::move(word));
    }
    before = token.word;
  }
  return words;
}

Result find_answers(const float* logits, std::size_t row_labels, const Tokens& window, const std::string& context,
                    std::size_t max_tokens, std::size_t count) {
  std::vector<std::size_t> places;  // of the first special token, and of the context's tokens
  if (window.front().side == Token::none) places.push_back(0);
  const std::size_t offset = places.size();
  for (std::size_t i = 0; i < window.size(); ++i) {
    if (window[i].side == 1) places.push_back(i);
  }
  const std::vector<double> starts = probabilities(logits, row_labels, 0, places);
  const std::vector<double> ends = probabilities(logits, row_labels, 1, places);
  Result answers;
  for (std::size_t first = offset; first < places.size(); ++first) {
    const Token& start = window[places[first]];
    if (!start.has_text()) continue;
    for (std::size_t last = first; last < std::min(places.size(), first + max_tokens); ++last) {
      const Token& end = window[places[last]];
      if (end.has_text()) add_answer({{}, starts[first] * ends[last], {}, start.start, end.end}, count, &answers);
    }
  }
  for (Prediction& answer : answers) answer.text = part_of(context, answer.start, answer.end);
  return answers;
}

void add_answer(Prediction answer, std::size_t count, Result* answers) {
  const auto is_better = [](const Prediction& left, const Prediction& right) {
    return std::tuple(-left.score, left.start, left.end) < std::tuple(-right.score, right.start, right.end);
  };
  if (answers->size() == count && !is_better(answer, answers->back())) return;
  const auto same = std::find_if(answers->begin(), answers->end(), [&](const Prediction& each) {
    return each.start == answer.start && each.end == answer.end;
  });
  if (same != answers->end()) {
    if (!is_better(answer, *same)) return;
    answers->erase(same);
  }
  answers->insert(std::upper_bound(answers->begin(), answers->end(), answer, is_better), std::move(answer));
  if (answers->size() > count) answers->pop_back();
}

}  // namespace bitfit
