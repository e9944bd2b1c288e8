// Texts to answers: tokenised, run in batches of similar length, and read.

#include "batches.h"
#include "failure.h"
#include "padded.h"
#include "predictions.h"
#include "session_parts.h"

#include <algorithm>
#include <cmath>
#include <utility>

namespace bitfit {
namespace {

// A sequence to run: a text, or a window of one.
struct Chunk {
  std::size_t item;
  Tokens tokens;
};

constexpr std::size_t window_overlap = 128;

void check_kind(const Text& text, const TaskInfo& task, std::size_t item) {
  const bool pair = text.second.has_value(), words = !text.words.empty();
  if (task.problem_type == ProblemType::span    ? pair && !words
      : task.problem_type == ProblemType::token ? !pair
                                                : !words) {
    return;
  }
  const char* const found = words ? "a list of words" : pair ? "a pair of texts" : "a text";
  const char* const expected = task.problem_type == ProblemType::span    ? "a question and a context"
                               : task.problem_type == ProblemType::token ? "a text or a list of words"
                                                                         : "a text or a pair of texts";
  fail_item(item, text_of("is ", found, ", expected ", expected, " for the task ", task.name));
}

// Tokenise each text for its task.
class Cutter {
 public:
  Cutter(const Tokenizer& tokenizer, const PredictOptions& options, std::size_t max_tokens)
      : tokenizer_(tokenizer), truncate_(options.truncate), limit_(options.max_length) {
    if (limit_ > max_tokens) {
      fail(StatusCode::usage_error, text_of("max_length is ", limit_, ", expected 1 to ", max_tokens, " tokens"));
    }
    if (limit_ == 0) limit_ = max_tokens;
  }

  void cut(std::size_t item, const Text& text, const TaskInfo& task, std::vector<Chunk>* chunks) const {
    check_kind(text, task, item);
    Tokens tokens;
    at_item(item, tokenizer_.encode(text, &tokens));
    if (task.problem_type == ProblemType::span) {
      std::vector<Tokens> windows;
      at_item(item, cut_windows(tokens, limit_, window_overlap, &windows));
      for (Tokens& window : windows) chunks->push_back({item, std::move(window)});
      return;
    }
    if (tokens.size() > limit_ && !truncate_) {
      fail_item(item, text_of("has ", tokens.size(), " tokens, expected at most ", limit_),
                "shorten the text, or truncate it");
    }
    check(truncate(&tokens, limit_));
    if (tokens.empty()) fail_item(item, "has no token, expected at least one");
    chunks->push_back({item, std::move(tokens)});
  }

 private:
  static void at_item(std::size_t item, Status status) {
    if (status.code == StatusCode::input_error) fail_item(item, "is refused: " + status.message, status.hint);
    check(std::move(status));
  }

  const Tokenizer& tokenizer_;
  bool truncate_;
  std::size_t limit_;
};

// Chunks padded to the longest.
void pad(const std::vector<const Chunk*>& chunks, std::int64_t pad_token_id, Padded* padded) {
  std::size_t longest = 0;
  for (const Chunk* chunk : chunks) longest = std::max(longest, chunk->tokens.size());
  padded->assign(chunks.size(), longest, pad_token_id);
  for (std::size_t item = 0; item < chunks.size(); ++item) {
    const Tokens& tokens = chunks[item]->tokens;
    for (std::size_t i = 0; i < tokens.size(); ++i) padded->set(item, i, tokens[i].id, tokens[i].type_id);
  }
}

// Runs chunks and reads what comes out.
class Runner {
 public:
  Runner(const Session::Parts& session, const std::vector<Text>& texts, const Lease& lease,
         const PredictOptions& options)
      : session_(session), texts_(texts), lease_(lease), options_(options), results_(texts.size()) {}

  std::vector<Result> run(const std::vector<Chunk>& chunks) {
    std::vector<std::size_t> lengths;
    std::vector<Group> groups;
    for (const Chunk& chunk : chunks) {
      lengths.push_back(chunk.tokens.size());
      groups.push_back(group_of(chunk));
    }
    for (const auto& places : plan_batches(lengths, groups, options_.batch_size, options_.batch_tokens)) {
      std::vector<const Chunk*> batch;
      for (const std::size_t place : places) batch.push_back(&chunks[place]);
      run_batch(batch);
    }
    return std::move(results_);
  }

 private:
  const std::shared_ptr<const LoadedTask>& task_of(const Chunk* chunk) const {
    return lease_.tasks[lease_.tasks.size() == 1 ? 0 : chunk->item];
  }

  // Chunks of one group can be run together.
  using Group = std::pair<bool, std::string_view>;

  Group group_of(const Chunk& chunk) const {
    const TaskInfo& info = task_of(&chunk)->info;
    return {is_token_task(info), session_.store->mixes_tasks() ? std::string_view() : info.name};
  }

  void run_batch(const std::vector<const Chunk*>& chunks) {
    pad(chunks, session_.manifest.pad_token_id, &padded_);
    workspace_.lease.clear();
    workspace_.lease.table = lease_.table;
    std::size_t labels = 1;
    for (const Chunk* chunk : chunks) {
      workspace_.lease.tasks.push_back(task_of(chunk));
      labels = std::max<std::size_t>(labels, task_of(chunk)->info.label_count);
    }
    if (lease_.tasks.size() == 1) workspace_.lease.tasks.resize(1);
    values_.resize(multiply({padded_.batch.items, padded_.batch.tokens, labels}));
    Logits logits{values_.data(), values_.size(), 0, 0, 0};
    try {
      session_.run(padded_.batch, &workspace_, &logits);
    } catch (Failure& failure) {
      // An item of the batch is a chunk of some text.
      if (failure.status.item != Status::no_item) {
        failure.status.item = static_cast<std::ptrdiff_t>(chunks[static_cast<std::size_t>(failure.status.item)]->item);
      }
      throw;
    }
    const std::size_t per_item = logits.size() / logits.items;
    for (std::size_t i = 0; i < chunks.size(); ++i) read(*chunks[i], logits.values + i * per_item, logits.labels);
  }

  void read(const Chunk& chunk, const float* logits, std::size_t labels_of_run) {
    const TaskInfo& info = task_of(&chunk)->info;
    const Text& text = texts_[chunk.item];
    Result& result = results_[chunk.item];
    check_finite(info, chunk, logits, labels_of_run);
    if (info.problem_type == ProblemType::token) {
      result = label_words(info, logits, labels_of_run, chunk.tokens, text);
    } else if (info.problem_type == ProblemType::span) {
      Result answers =
          find_answers(logits, labels_of_run, chunk.tokens, *text.second, options_.max_answer_tokens, options_.top_k);
      for (Prediction& answer : answers) add_answer(std::move(answer), options_.top_k, &result);
    } else {
      result = rank_labels(info, logits);
      result.resize(std::min(result.size(), options_.top_k));
    }
  }

  static void check_finite(const TaskInfo& info, const Chunk& chunk, const float* logits, std::size_t labels_of_run) {
    const std::size_t tokens = is_token_task(info) ? chunk.tokens.size() : 1;
    for (std::size_t token = 0; token < tokens; ++token) {
      const float* const first = logits + token * labels_of_run;
      if (std::all_of(first, first + info.label_count, [](float value) { return std::isfinite(value); })) continue;
      fail_item(chunk.item, text_of("has logits that are not finite numbers from the task ", info.name),
                "its biases may be too large for the model");
    }
  }

  const Session::Parts& session_;
  const std::vector<Text>& texts_;
  const Lease& lease_;
  const PredictOptions& options_;
  std::vector<Result> results_;
  Workspace::Parts workspace_;
  Padded padded_;
  std::vector<float> values_;
};

void check_counts(const std::vector<Text>& texts, const std::vector<std::string>& tasks,
                  const PredictOptions& options) {
  if (texts.empty()) fail(StatusCode::input_error, "there is no text, expected at least one");
  if (tasks.size() != 1 && tasks.size() != texts.size()) {
    fail(StatusCode::input_error, text_of("there are ", tasks.size(), " tasks for ", texts.size(),
                                          " texts, expected one task, or one for each text"));
  }
  if (options.batch_size == 0 || options.batch_tokens == 0 || options.max_answer_tokens == 0 || options.top_k == 0) {
    fail(StatusCode::usage_error, "batch_size, batch_tokens, max_answer_tokens or top_k is 0, expected 1 or more");
  }
}

void check_top_k(const Lease& lease, const PredictOptions& options) {
  if (options.top_k == 1) return;
  for (const auto& task : lease.tasks) {
    if (task->info.problem_type == ProblemType::token) {
      fail(StatusCode::usage_error,
           text_of("top_k is ", options.top_k, ", expected 1 for the token task ", task->info.name));
    }
  }
}

}  // namespace

Status Session::predict(const std::vector<Text>& texts, const std::vector<std::string>& tasks,
                        const PredictOptions& options, std::vector<Result>* out,
                        std::vector<TaskInfo>* answered) const noexcept {
  return guard([&] {
    check_counts(texts, tasks, options);
    if (!parts_->tokenizer) check(parts_->tokenizer_status);
    Lease lease;
    const std::vector<std::string_view> names(tasks.begin(), tasks.end());
    parts_->store->hold(names.data(), names.size(), &lease);
    check_top_k(lease, options);
    const Cutter cutter(*parts_->tokenizer, options, parts_->max_tokens());
    std::vector<Chunk> chunks;
    for (std::size_t item = 0; item < texts.size(); ++item) {
      cutter.cut(item, texts[item], lease.tasks[lease.tasks.size() == 1 ? 0 : item]->info, &chunks);
    }
    std::vector<TaskInfo> infos;  // as the lease has them: a task may be replaced meanwhile
    for (const auto& task : lease.tasks) {
      if (answered != nullptr) infos.push_back(task->info);
    }
    *out = Runner(*parts_, texts, lease, options).run(chunks);
    if (answered != nullptr) *answered = std::move(infos);
  });
}

}  // namespace bitfit
