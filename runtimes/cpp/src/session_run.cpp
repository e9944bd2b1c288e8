// Running a batch of ids. Nothing here allocates once the workspace has its size, but for what a failure says.

#include "failure.h"
#include "session_parts.h"

#include <algorithm>
#include <limits>

namespace bitfit {

std::size_t Session::Parts::max_tokens() const noexcept {
  return static_cast<std::size_t>(manifest.static_shape ? (*manifest.static_shape)[1] : manifest.max_positions);
}

// ONNX Runtime takes a negative id as an index from the end and a mask of any numbers, so what it would not refuse is
// refused here.
void Session::Parts::check_batch(const Batch& batch) const {
  if (batch.rows == 0 || batch.tokens == 0 || batch.input_ids == nullptr || batch.attention_mask == nullptr) {
    fail(StatusCode::input_error, text_of("the batch has ", batch.rows, " rows of ", batch.tokens,
                                          " tokens, expected ids and a mask for one or more"));
  }
  multiply({batch.rows, batch.tokens, sizeof(std::int64_t)});  // no memory has more
  if (batch.tokens > max_tokens()) {
    fail(StatusCode::input_error,
         text_of("the sequence has ", batch.tokens, " tokens, expected at most ", max_tokens()),
         "shorten the text, or truncate it when it is tokenised");
  }
  for (std::size_t row = 0; row < batch.rows; ++row) check_row(batch, row);
}

void Session::Parts::check_row(const Batch& batch, std::size_t row) const {
  const std::size_t first = row * batch.tokens;
  std::int64_t kept = 0;
  for (std::size_t i = first; i < first + batch.tokens; ++i) {
    if (batch.input_ids[i] < 0 || batch.input_ids[i] >= manifest.vocab_size) {
      fail_row(row, text_of("has ", batch.input_ids[i], " in input_ids, expected 0 to ", manifest.vocab_size - 1));
    }
    if (batch.attention_mask[i] != 0 && batch.attention_mask[i] != 1) {
      fail_row(row, text_of("has ", batch.attention_mask[i], " in attention_mask, expected 0 or 1"));
    }
    const std::int64_t type = batch.token_type_ids == nullptr ? 0 : batch.token_type_ids[i];
    // The manifest does not say how many types there are; the model refuses one that is too large.
    if (type < 0 || (type > 0 && !has_token_types_)) {
      fail_row(row, text_of("has ", type, " in token_type_ids, expected 0", has_token_types_ ? " or more" : ""));
    }
    kept += batch.attention_mask[i];
  }
  if (kept == 0) fail_row(row, "has an attention_mask of zeros only, expected at least one token");
}

// The one output that all tasks of the lease have their answers in.
const char* Session::Parts::output_of(const Lease& lease) const {
  const LoadedTask& first = *lease.tasks.front();
  for (const auto& task : lease.tasks) {
    if (is_token_task(task->info) != is_token_task(first.info)) {
      fail(StatusCode::input_error,
           text_of("the batch has the ", problem_type_name(first.info.problem_type), " task ", first.info.name,
                   " and the ", problem_type_name(task->info.problem_type), " task ", task->info.name,
                   ", expected sentence tasks alone, or token and span tasks alone"));
    }
    if (!store->mixes_tasks() && task.get() != &first) {
      fail(StatusCode::input_error,
           text_of("the rows of the batch have the tasks ", first.info.name, " and ", task->info.name,
                   ", expected one task: the bundle's layout runs one at a time"),
           "export the bundle with --layout table to mix tasks in a batch");
    }
  }
  return is_token_task(first.info) ? token_logits_output : logits_output;
}

void Session::Parts::run(const Batch& batch, Workspace::Parts* workspace, Logits* logits) const {
  check_batch(batch);
  const Lease& lease = workspace->lease;
  const char* const output = output_of(lease);
  logits->rows = batch.rows;
  logits->tokens = output == token_logits_output ? batch.tokens : 0;
  logits->labels = 0;
  for (const auto& task : lease.tasks) logits->labels = std::max<std::size_t>(logits->labels, task->info.label_count);
  const std::size_t size = multiply({batch.rows, std::max<std::size_t>(logits->tokens, 1), logits->labels});
  if (logits->values == nullptr || size > logits->capacity) {
    fail(StatusCode::input_error,
         text_of("the logits have room for ", logits->capacity, " values, expected ", size, " or more"));
  }
  if (manifest.static_shape) {
    run_parts(batch, output, workspace, logits);
  } else {
    run_whole(batch, output, workspace, logits);
  }
  const std::size_t width = logits->labels, per_row = size / logits->rows;
  for (std::size_t row = 0; row < batch.rows; ++row) {
    const std::size_t own = lease.tasks[lease.tasks.size() == 1 ? 0 : row]->info.label_count;
    float* const values = logits->values + row * per_row;
    for (std::size_t at = 0; own < width && at < per_row; at += width) {
      std::fill_n(values + at + own, width - own, -std::numeric_limits<float>::infinity());
    }
  }
}

// Where the model's output is as wide as the logits, it goes there without a copy.
void Session::Parts::run_whole(const Batch& batch, const char* output, Workspace::Parts* workspace,
                               Logits* logits) const {
  const std::int64_t labels = store->output_labels(workspace->lease);
  const std::size_t wide = static_cast<std::size_t>(labels);
  if (wide == logits->labels) return run_model(batch, output, labels, workspace, logits->values);
  const std::size_t groups = logits->size() / logits->labels;  // of labels
  workspace->whole.resize(multiply({groups, wide}));
  run_model(batch, output, labels, workspace, workspace->whole.data());
  for (std::size_t group = 0; group < groups; ++group) {
    std::copy_n(workspace->whole.data() + group * wide, logits->labels, logits->values + group * logits->labels);
  }
}

// A model of static shape runs batches of exactly its shape: what a text lacks is padding, and so are missing rows.
void Session::Parts::run_parts(const Batch& batch, const char* output, Workspace::Parts* workspace,
                               Logits* logits) const {
  const std::size_t rows = static_cast<std::size_t>((*manifest.static_shape)[0]), tokens = max_tokens();
  const std::size_t wide = static_cast<std::size_t>(store->output_labels(workspace->lease));
  const bool by_token = logits->tokens > 0;
  workspace->whole.resize(multiply({rows, by_token ? tokens : 1, wide}));
  const std::size_t places = multiply({rows, tokens});
  for (std::size_t start = 0; start < batch.rows; start += rows) {
    workspace->ids.assign(places, manifest.pad_token_id);
    workspace->mask.assign(places, 0);
    workspace->types.assign(places, 0);
    const std::size_t count = std::min(rows, batch.rows - start);
    for (std::size_t row = 0; row < count; ++row) {
      const std::size_t from = (start + row) * batch.tokens, to = row * tokens;
      std::copy_n(batch.input_ids + from, batch.tokens, workspace->ids.data() + to);
      std::copy_n(batch.attention_mask + from, batch.tokens, workspace->mask.data() + to);
      if (batch.token_type_ids) std::copy_n(batch.token_type_ids + from, batch.tokens, workspace->types.data() + to);
    }
    const Batch part{workspace->ids.data(), workspace->mask.data(), workspace->types.data(), rows, tokens};
    run_model(part, output, static_cast<std::int64_t>(wide), workspace, workspace->whole.data());
    for (std::size_t row = 0; row < count; ++row) {
      const std::size_t groups = by_token ? batch.tokens : 1;
      for (std::size_t group = 0; group < groups; ++group) {
        const std::size_t from = (row * (by_token ? tokens : 1) + group) * wide;
        const std::size_t to = ((start + row) * groups + group) * logits->labels;
        std::copy_n(workspace->whole.data() + from, logits->labels, logits->values + to);
      }
    }
  }
}

void Session::Parts::run_model(const Batch& batch, const char* output, std::int64_t labels, Workspace::Parts* workspace,
                               float* values) const {
  const std::size_t count = batch.rows * batch.tokens;
  const std::int64_t shape[3] = {static_cast<std::int64_t>(batch.rows), static_cast<std::int64_t>(batch.tokens),
                                 labels};
  const Lease& lease = workspace->lease;
  Feeds& feeds = workspace->feeds;
  feeds.clear();
  const Ort::Value ids = tensor_over(batch.input_ids, count, shape, 2);
  const Ort::Value mask = tensor_over(batch.attention_mask, count, shape, 2);
  feeds.add("input_ids", ids);
  feeds.add("attention_mask", mask);
  Ort::Value types{nullptr}, slots{nullptr};
  if (has_token_types_) {
    if (batch.token_type_ids == nullptr) workspace->zeros.assign(count, 0);
    types = tensor_over(batch.token_type_ids ? batch.token_type_ids : workspace->zeros.data(), count, shape, 2);
    feeds.add("token_type_ids", types);
  }
  const OrtRunOptions* options = nullptr;
  if (lease.table) {
    workspace->slots.clear();
    for (const auto& task : lease.tasks) workspace->slots.push_back(task->slot());
    const std::int64_t slot_count = static_cast<std::int64_t>(workspace->slots.size());
    slots = tensor_over(workspace->slots.data(), workspace->slots.size(), &slot_count, 1);
    feeds.add("task_ids", slots);
    lease.table->feed(&feeds);
  } else {
    options = lease.tasks.front()->feed(&feeds);
  }
  const bool by_token = output == token_logits_output;
  const std::int64_t by_row[2] = {shape[0], labels};
  const std::size_t size = (by_token ? count : batch.rows) * static_cast<std::size_t>(labels);
  Ort::Value result = by_token ? tensor_over(values, size, shape, 3) : tensor_over(values, size, by_row, 2);
  model.run(options, feeds, output, result);
}

}  // namespace bitfit
