// The C API's part for sessions: the C++ one, with strings and codes.

#include <bitfit/bitfit.h>
#include <bitfit/onnxruntime.h>
#include <bitfit/qnn.h>
#include <bitfit/session.h>

#include "c_support.h"

struct bitfit_engine {
  std::shared_ptr<const bitfit::Engine> engine;
};

struct bitfit_workspace {
  bitfit::Workspace workspace;
  std::vector<std::string_view> tasks;
  std::vector<bitfit::Output> outputs;
};

namespace {

// A list with what its pointers point to.
struct TaskList : bitfit_task_list {
  std::vector<bitfit::TaskInfo> infos;
  std::vector<std::vector<const char*>> labels;  // of each task
  std::vector<bitfit_task> entries;
};

using bitfit::copy_text;
using bitfit::guard;
using bitfit::known;
using bitfit::report;
using bitfit::require;
using bitfit::Status;
using bitfit::text_or_empty;

bitfit::ExecutionProvider provider_of(const bitfit_provider& given) {
  require(given.name, "the name of a provider");
  bitfit::ExecutionProvider provider{given.name, {}};
  for (size_t i = 0; i < given.count; ++i) {
    require(given.keys, "keys");
    require(given.values, "values");
    require(given.keys[i], "a key");
    require(given.values[i], "a value");
    provider.options[given.keys[i]] = given.values[i];
  }
  return provider;
}

void name_tasks(bitfit_workspace* workspace, const char* const* tasks, size_t count) {
  require(workspace, "workspace");
  require(tasks, "tasks");
  workspace->tasks.clear();
  for (size_t i = 0; i < count; ++i) {
    require(tasks[i], "a task");
    workspace->tasks.emplace_back(tasks[i]);
  }
}

bitfit::Batch batch_of(const bitfit_batch* batch) {
  require(batch, "batch");
  return {batch->input_ids, batch->attention_mask, batch->token_type_ids, batch->items, batch->tokens};
}

bitfit_logits logits_of(const bitfit::Logits& logits) {
  return {logits.values, logits.capacity, logits.items, logits.tokens, logits.labels};
}

}  // namespace

extern "C" {

bitfit_engine* bitfit_onnxruntime_new(const bitfit_onnxruntime_options* options, bitfit_error* error) {
  bitfit_engine* made = nullptr;
  const Status status = guard([&] {
    const bitfit_onnxruntime_options given = known(options);
    bitfit::OnnxRuntimeOptions chosen;
    if (given.provider_count > 0) require(given.providers, "providers");
    for (size_t i = 0; i < given.provider_count; ++i) chosen.providers.push_back(provider_of(given.providers[i]));
    chosen.inter_threads = given.inter_threads;
    chosen.share_threads = given.share_threads != 0;
    chosen.threads = given.threads;
    chosen.environment = given.environment;
    auto engine = std::make_unique<bitfit_engine>();
    bitfit::check(bitfit::make_onnxruntime_engine(chosen, &engine->engine));
    made = engine.release();
  });
  report(status, error);
  return made;
}

bitfit_engine* bitfit_qnn_new(const bitfit_qnn_options* options, bitfit_error* error) {
  bitfit_engine* made = nullptr;
  const Status status = guard([&] {
    const bitfit_qnn_options given = known(options);
    bitfit::QnnOptions chosen;
    if (given.library != nullptr) chosen.library = given.library;
    chosen.htp_arch = given.htp_arch;
    auto engine = std::make_unique<bitfit_engine>();
    bitfit::check(bitfit::make_qnn_engine(chosen, &engine->engine));
    made = engine.release();
  });
  report(status, error);
  return made;
}

void bitfit_engine_free(bitfit_engine* engine) { delete engine; }

bitfit_session* bitfit_open(const char* folder, int threads, bitfit_error* error) {
  bitfit_options options = {};
  options.size = sizeof options;
  options.threads = threads;
  return bitfit_open_with(folder, &options, error);
}

bitfit_session* bitfit_open_with(const char* folder, const bitfit_options* options, bitfit_error* error) {
  bitfit_session* opened = nullptr;
  const Status status = guard([&] {
    require(folder, "folder");
    const bitfit_options given = known(options);
    auto session = std::make_unique<bitfit_session>();
    bitfit::SessionOptions chosen;
    chosen.threads = given.threads;
    chosen.check_hashes = given.check_hashes != 0;
    if (given.engine != nullptr) chosen.engine = given.engine->engine;
    if (given.trusted_key_count > 0) require(given.trusted_keys, "trusted_keys");
    if (given.trusted_keys != nullptr) chosen.trusted_keys.emplace();
    for (size_t i = 0; i < given.trusted_key_count; ++i) {
      require(given.trusted_keys[i], "a trusted key");
      chosen.trusted_keys->emplace_back(given.trusted_keys[i]);
    }
    chosen.state = text_or_empty(given.state);
    bitfit::check(bitfit::Session::open(folder, chosen, &session->session));
    opened = session.release();
  });
  report(status, error);
  return opened;
}

void bitfit_close(bitfit_session* session) { delete session; }

bitfit_code bitfit_load_task(bitfit_session* session, const char* path, const char* name, bitfit_error* error) {
  return report(guard([&] {
                  require(session, "session");
                  require(path, "path");
                  bitfit::check(session->session->load_task(std::string(path), text_or_empty(name)));
                }),
                error);
}

bitfit_code bitfit_load_task_bytes(bitfit_session* session, const void* data, size_t size, const char* name,
                                   bitfit_error* error) {
  return report(guard([&] {
                  require(session, "session");
                  require(data, "data");
                  bitfit::check(session->session->load_task(data, size, text_or_empty(name)));
                }),
                error);
}

bitfit_code bitfit_unload_task(bitfit_session* session, const char* name, bitfit_error* error) {
  return report(guard([&] {
                  require(session, "session");
                  require(name, "name");
                  bitfit::check(session->session->unload_task(name));
                }),
                error);
}

bitfit_task_list* bitfit_list_tasks(const bitfit_session* session, bitfit_error* error) {
  bitfit_task_list* made = nullptr;
  const Status status = guard([&] {
    require(session, "session");
    auto list = std::make_unique<TaskList>();
    bitfit::check(session->session->tasks(&list->infos));
    list->labels.reserve(list->infos.size());
    for (const bitfit::TaskInfo& info : list->infos) {
      auto& labels = list->labels.emplace_back();
      for (const std::string& label : info.labels) labels.push_back(label.c_str());
      list->entries.push_back({info.name.c_str(), labels.empty() ? nullptr : labels.data(),
                               static_cast<uint32_t>(info.problem_type), info.label_count, info.task_version,
                               info.warning.c_str()});
    }
    list->tasks = list->entries.data();
    list->count = list->entries.size();
    made = list.release();
  });
  report(status, error);
  return made;
}

void bitfit_task_list_free(bitfit_task_list* list) { delete static_cast<TaskList*>(list); }

void bitfit_device(const bitfit_session* session, char* device, size_t size) {
  if (device != nullptr && size > 0) *device = '\0';
  [[maybe_unused]] const Status status = guard([&] {
    if (session != nullptr) copy_text(session->session->device(), device, size);
  });
}

size_t bitfit_max_tokens(const bitfit_session* session) {
  return session == nullptr ? 0 : session->session->max_tokens();
}

size_t bitfit_logits_capacity(const bitfit_session* session, size_t items, size_t tokens) {
  return session == nullptr ? 0 : session->session->logits_capacity(items, tokens);
}

bitfit_workspace* bitfit_workspace_new(void) {
  bitfit_workspace* workspace = nullptr;
  const Status status = guard([&] { workspace = std::make_unique<bitfit_workspace>().release(); });
  return status.ok() ? workspace : nullptr;
}

void bitfit_workspace_free(bitfit_workspace* workspace) { delete workspace; }

bitfit_code bitfit_run(const bitfit_session* session, const char* const* tasks, size_t task_count,
                       const bitfit_batch* batch, bitfit_workspace* workspace, bitfit_logits* logits,
                       bitfit_error* error) {
  return report(guard([&] {
                  require(session, "session");
                  require(logits, "logits");
                  name_tasks(workspace, tasks, task_count);
                  bitfit::Logits found{logits->values, logits->capacity, 0, 0, 0};
                  bitfit::check(session->session->run(workspace->tasks.data(), task_count, batch_of(batch),
                                                      &workspace->workspace, &found));
                  *logits = logits_of(found);
                }),
                error);
}

const char* bitfit_output_name(const bitfit_session* session, size_t index) {
  if (session == nullptr || index >= session->session->outputs().size()) return nullptr;
  return session->session->outputs()[index].c_str();
}

size_t bitfit_output_capacity(const bitfit_session* session, const char* name, size_t items, size_t tokens) {
  return session == nullptr || name == nullptr ? 0 : session->session->output_capacity(name, items, tokens);
}

bitfit_code bitfit_run_outputs(const bitfit_session* session, const char* const* tasks, size_t task_count,
                               const bitfit_batch* batch, bitfit_workspace* workspace, bitfit_output* outputs,
                               size_t output_count, bitfit_error* error) {
  return report(
      guard([&] {
        require(session, "session");
        require(outputs, "outputs");
        name_tasks(workspace, tasks, task_count);
        workspace->outputs.clear();
        for (size_t i = 0; i < output_count; ++i) {
          require(outputs[i].name, "the name of an output");
          const bitfit_logits& logits = outputs[i].logits;
          workspace->outputs.push_back({outputs[i].name, {logits.values, logits.capacity, 0, 0, 0}});
        }
        bitfit::check(session->session->run_outputs(workspace->tasks.data(), task_count, batch_of(batch),
                                                    &workspace->workspace, workspace->outputs.data(), output_count));
        for (size_t i = 0; i < output_count; ++i) {
          outputs[i].logits = logits_of(workspace->outputs[i].logits);
        }
      }),
      error);
}

bitfit_code bitfit_predict(const bitfit_session* session, const char* task, const char* text, const char* text_pair,
                           char* label, size_t label_size, double* score, bitfit_error* error) {
  return report(guard([&] {
                  require(session, "session");
                  require(task, "task");
                  require(text, "text");
                  bitfit::Text asked{text};
                  if (text_pair != nullptr) asked.second = text_pair;
                  std::vector<bitfit::Result> results;
                  std::vector<bitfit::TaskInfo> answered;
                  bitfit::check(session->session->predict({asked}, {task}, {}, &results, &answered));
                  if (answered[0].problem_type == bitfit::ProblemType::token || results[0].size() != 1) {
                    bitfit::fail(bitfit::StatusCode::input_error,
                                 bitfit::text_of("the task ", answered[0].name,
                                                 " answers words, expected a sentence or span task"));
                  }
                  const bitfit::Prediction& found = results[0][0];
                  copy_text(found.label.empty() ? found.text : found.label, label, label_size);
                  if (score != nullptr) *score = found.score;
                }),
                error);
}

}  // extern "C"
