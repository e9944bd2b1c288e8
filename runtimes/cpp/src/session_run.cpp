// Running a batch of ids. Nothing here allocates once the workspace has its size, but for what a failure says.

#include "failure.h"
#include "session_parts.h"

#include <algorithm>
#include <limits>

namespace bitfit {

std::size_t Session::Parts::max_tokens() const noexcept {
  return static_cast<std::size_t>(manifest.static_shape ? (*manifest.static_shape)[1] : manifest.max_positions);
}

// ONNX Runtime, for one, takes a negative id as an index from the end and a mask of any numbers, so what an engine
// might not refuse is refused here.
void Session::Parts::check_batch(const Batch& batch) const {
  if (batch.items == 0 || batch.tokens == 0 || batch.input_ids == nullptr || batch.attention_mask == nullptr) {
    fail(StatusCode::input_error, text_of("the batch has ", batch.items, " items of ", batch.tokens,
                                          " tokens, expected ids and a mask for one or more"));
  }
  multiply({batch.items, batch.tokens, sizeof(std::int64_t)});  // no memory has more
  if (batch.tokens > max_tokens()) {
    fail(StatusCode::input_error,
         text_of("the sequence has ", batch.tokens, " tokens, expected at most ", max_tokens()),
         "shorten the text, or truncate it when it is tokenised");
  }
  for (std::size_t item = 0; item < batch.items; ++item) check_item(batch, item);
}

void Session::Parts::check_item(const Batch& batch, std::size_t item) const {
  const std::size_t first = item * batch.tokens;
  std::int64_t kept = 0;
  for (std::size_t i = first; i < first + batch.tokens; ++i) {
    if (batch.input_ids[i] < 0 || batch.input_ids[i] >= manifest.vocab_size) {
      fail_item(item, text_of("has ", batch.input_ids[i], " in input_ids, expected 0 to ", manifest.vocab_size - 1));
    }
    if (batch.attention_mask[i] != 0 && batch.attention_mask[i] != 1) {
      fail_item(item, text_of("has ", batch.attention_mask[i], " in attention_mask, expected 0 or 1"));
    }
    const std::int64_t type = batch.token_type_ids == nullptr ? 0 : batch.token_type_ids[i];
    // The manifest does not say how many types there are; the model refuses one that is too large.
    if (type < 0 || (type > 0 && !has_token_types_)) {
      fail_item(item, text_of("has ", type, " in token_type_ids, expected 0", has_token_types_ ? " or more" : ""));
    }
    kept += batch.attention_mask[i];
  }
  if (kept == 0) fail_item(item, "has an attention_mask of zeros only, expected at least one token");
}

// Whether one run can serve the tasks of a lease, and all of them by one output where it is to have one alone.
void Session::Parts::check_mix(const Lease& lease, bool one_output) const {
  const LoadedTask& first = *lease.tasks.front();
  for (const auto& task : lease.tasks) {
    if (one_output && is_token_task(task->info) != is_token_task(first.info)) {
      fail(StatusCode::input_error,
           text_of("the batch has the ", problem_type_name(first.info.problem_type), " task ", first.info.name,
                   " and the ", problem_type_name(task->info.problem_type), " task ", task->info.name,
                   ", expected sentence tasks alone, or token and span tasks alone"),
           "run_outputs gives the logits of both kinds");
    }
    if (!store->mixes_tasks() && task.get() != &first) {
      fail(StatusCode::input_error,
           text_of("the items of the batch have the tasks ", first.info.name, " and ", task->info.name,
                   ", expected one task: the bundle's layout runs one at a time"),
           "export the bundle with --layout table to mix tasks in a batch");
    }
  }
}

void Session::Parts::run(const Batch& batch, Workspace::Parts* workspace, Logits* logits) const {
  check_batch(batch);
  check_mix(workspace->lease, true);
  const Wanted wanted{is_token_task(workspace->lease.tasks.front()->info), logits};
  run_wanted(batch, workspace, &wanted, 1);
}

void Session::Parts::run_outputs(const Batch& batch, Workspace::Parts* workspace, Output* named,
                                 std::size_t count) const {
  check_batch(batch);
  check_mix(workspace->lease, false);
  Wanted wanted[most_outputs];
  if (count == 0 || count > outputs.size()) {
    fail(StatusCode::input_error,
         text_of(count, " outputs are asked for, expected 1 to ", outputs.size(), ", each once"));
  }
  for (std::size_t i = 0; i < count; ++i) {
    if (std::find(outputs.begin(), outputs.end(), named[i].name) == outputs.end() ||
        (i > 0 && named[i].name == named[0].name)) {
      std::string known = outputs.front();
      if (outputs.size() > 1) known += " and " + outputs.back();
      fail(StatusCode::input_error,
           text_of("the output \"", shown(named[i].name), "\" is asked for, expected ", known, ", each once"));
    }
    wanted[i] = {named[i].name == token_logits_output, &named[i].logits};
  }
  run_wanted(batch, workspace, wanted, count);
}

void Session::Parts::run_wanted(const Batch& batch, Workspace::Parts* workspace, const Wanted* wanted,
                                std::size_t count) const {
  const Lease& lease = workspace->lease;
  std::size_t labels = 0;
  for (const auto& task : lease.tasks) labels = std::max<std::size_t>(labels, task->info.label_count);
  for (std::size_t i = 0; i < count; ++i) {
    Logits* const logits = wanted[i].logits;
    logits->items = batch.items;
    logits->tokens = wanted[i].by_token ? batch.tokens : 0;
    logits->labels = labels;
    const std::size_t size = multiply({batch.items, std::max<std::size_t>(logits->tokens, 1), labels});
    if (logits->values == nullptr || size > logits->capacity) {
      fail(StatusCode::input_error,
           text_of("the logits have room for ", logits->capacity, " values, expected ", size, " or more"));
    }
  }
  if (manifest.static_shape) {
    run_parts(batch, workspace, wanted, count);
  } else {
    run_whole(batch, workspace, wanted, count);
  }
  for (std::size_t i = 0; i < count; ++i) {
    const std::size_t per_item = wanted[i].logits->size() / batch.items;
    for (std::size_t item = 0; item < batch.items; ++item) {
      const std::size_t own = lease.tasks[lease.tasks.size() == 1 ? 0 : item]->info.label_count;
      float* const values = wanted[i].logits->values + item * per_item;
      for (std::size_t at = 0; own < labels && at < per_item; at += labels) {
        std::fill_n(values + at + own, labels - own, -std::numeric_limits<float>::infinity());
      }
    }
  }
}

// Where the model's outputs are as wide as the logits, they go there without a copy.
void Session::Parts::run_whole(const Batch& batch, Workspace::Parts* workspace, const Wanted* wanted,
                               std::size_t count) const {
  const std::int64_t labels = store->output_labels(workspace->lease);
  const std::size_t wide = static_cast<std::size_t>(labels), own = wanted[0].logits->labels;
  float* values[most_outputs] = {};
  for (std::size_t i = 0; i < count; ++i) {
    values[i] = wanted[i].logits->values;
    if (wide == own) continue;
    workspace->whole[i].resize(multiply({wanted[i].logits->size() / own, wide}));
    values[i] = workspace->whole[i].data();
  }
  run_model(batch, labels, workspace, wanted, values, count);
  for (std::size_t i = 0; i < count && wide != own; ++i) {
    const std::size_t groups = wanted[i].logits->size() / own;  // of labels
    for (std::size_t group = 0; group < groups; ++group) {
      std::copy_n(values[i] + group * wide, own, wanted[i].logits->values + group * own);
    }
  }
}

// A model of static shape runs batches of exactly its shape: what a text lacks is padding, and so are missing items.
void Session::Parts::run_parts(const Batch& batch, Workspace::Parts* workspace, const Wanted* wanted,
                               std::size_t count) const {
  const std::size_t items = static_cast<std::size_t>((*manifest.static_shape)[0]), tokens = max_tokens();
  const std::size_t wide = static_cast<std::size_t>(store->output_labels(workspace->lease));
  const std::size_t places = multiply({items, tokens});
  float* values[most_outputs] = {};
  for (std::size_t i = 0; i < count; ++i) {
    workspace->whole[i].resize(multiply({items, wanted[i].by_token ? tokens : 1, wide}));
    values[i] = workspace->whole[i].data();
  }
  for (std::size_t start = 0; start < batch.items; start += items) {
    workspace->ids.assign(places, manifest.pad_token_id);
    workspace->mask.assign(places, 0);
    workspace->types.assign(places, 0);
    const std::size_t present = std::min(items, batch.items - start);
    for (std::size_t item = 0; item < present; ++item) {
      const std::size_t from = (start + item) * batch.tokens, to = item * tokens;
      std::copy_n(batch.input_ids + from, batch.tokens, workspace->ids.data() + to);
      std::copy_n(batch.attention_mask + from, batch.tokens, workspace->mask.data() + to);
      if (batch.token_type_ids) std::copy_n(batch.token_type_ids + from, batch.tokens, workspace->types.data() + to);
    }
    const Batch part{workspace->ids.data(), workspace->mask.data(), workspace->types.data(), items, tokens};
    run_model(part, static_cast<std::int64_t>(wide), workspace, wanted, values, count);
    for (std::size_t i = 0; i < count; ++i) {
      const std::size_t groups = wanted[i].by_token ? batch.tokens : 1, own = wanted[i].logits->labels;
      for (std::size_t item = 0; item < present; ++item) {
        for (std::size_t group = 0; group < groups; ++group) {
          const std::size_t from = (item * (wanted[i].by_token ? tokens : 1) + group) * wide;
          const std::size_t to = ((start + item) * groups + group) * own;
          std::copy_n(values[i] + from, own, wanted[i].logits->values + to);
        }
      }
    }
  }
}

void Session::Parts::run_model(const Batch& batch, std::int64_t labels, Workspace::Parts* workspace,
                               const Wanted* wanted, float* const* values, std::size_t count) const {
  const std::int64_t by_token[3] = {static_cast<std::int64_t>(batch.items), static_cast<std::int64_t>(batch.tokens),
                                    labels};
  const std::int64_t by_item[2] = {by_token[0], labels};
  const Lease& lease = workspace->lease;
  InputArray inputs[4];
  std::size_t input_count = 0;
  const auto add = [&](const char* name, const std::int64_t* ids, const std::int64_t* shape, std::size_t rank) {
    inputs[input_count++] = {name, ElementType::int64, ids, shape, rank};
  };
  add(input_ids_input, batch.input_ids, by_token, 2);
  add(attention_mask_input, batch.attention_mask, by_token, 2);
  if (has_token_types_) {
    if (batch.token_type_ids == nullptr) workspace->zeros.assign(batch.items * batch.tokens, 0);
    add(token_type_ids_input, batch.token_type_ids ? batch.token_type_ids : workspace->zeros.data(), by_token, 2);
  }
  workspace->slots.clear();
  for (const auto& task : lease.tasks) workspace->slots.push_back(task->slot());
  const std::int64_t slot_count = static_cast<std::int64_t>(workspace->slots.size());
  if (lease.table) add(task_ids_input, workspace->slots.data(), &slot_count, 1);
  OutputArray outputs_of_run[most_outputs];
  for (std::size_t i = 0; i < count; ++i) {
    const char* const name = wanted[i].by_token ? token_logits_output : logits_output;
    outputs_of_run[i] = {name, values[i], wanted[i].by_token ? by_token : by_item, wanted[i].by_token ? 3U : 2U};
  }
  const Bound* const bound = lease.table ? lease.table->bound() : lease.tasks.front()->bound();
  model.run({inputs, input_count, bound, outputs_of_run, count, &workspace->scratch});
}

}  // namespace bitfit
