// Drives a session for tests, which say in JSON what to do.
//
//     session_test drive BUNDLE [check_hashes] [task=NAME]... [key=[KEY]]... [state=PATH] [library=PATH [htp_arch=N]]
//                                     each line of stdin is a command; its answer is a line of stdout. The library is
//                                     that of the engine qnn.
//     session_test swap BUNDLE ROW_A ROW_B BAD_ROW THREADS RUNS
//     session_test answered BUNDLE ROW TOKEN_ROW RUNS
//
// `swap` loads two rows in turn under one name while threads run it, and tries a bad one in between. Every output must
// be exactly that of one row or of the other.
//
// `answered` asks a task that another thread makes a sentence task and a token task in turn. What it is said to have
// been must be what answered.

#include <bitfit/qnn.h>
#include <bitfit/session.h>

#include "engine_choice.h"

#include <atomic>
#include <cstring>
#include <iostream>
#include <nlohmann/json.hpp>
#include <thread>

namespace {

using bitfit::Session;
using bitfit::Status;
using nlohmann::json;

constexpr const char* codes[] = {"ok", "bundle_error", "row_error", "input_error", "usage_error", "failure", "signature_error"};

json json_of(const Status& status) {
  json object = {{"code", codes[static_cast<int>(status.code)]}, {"message", status.text()}, {"hint", status.hint}};
  if (status.item != Status::no_item) object["item"] = status.item;
  if (status.signature_fault != bitfit::SignatureFault::none) {
    object["signature_fault"] = static_cast<int>(status.signature_fault);
  }
  if (status.row_status != bitfit::RowStatus::ok) object["row_status"] = static_cast<int>(status.row_status);
  return object;
}

std::vector<std::int64_t> flat(const json& lists) {
  std::vector<std::int64_t> values;
  for (const json& list : lists) {
    for (const json& value : list) values.push_back(value.get<std::int64_t>());
  }
  return values;
}

// JSON has no infinity; null stands for it.
json json_of(const bitfit::Logits& logits) {
  json values = json::array();
  for (std::size_t i = 0; i < logits.size(); ++i) values.push_back(logits.values[i]);
  return {{"items", logits.items}, {"tokens", logits.tokens}, {"labels", logits.labels}, {"values", values}};
}

// The ids of a command, and what points to them.
struct Asked {
  explicit Asked(const json& command)
      : names(command["tasks"].get<std::vector<std::string>>()),
        tasks(names.begin(), names.end()),
        ids(flat(command["input_ids"])),
        mask(flat(command["attention_mask"])),
        types(flat(command.value("token_type_ids", json::array()))) {
    const std::size_t items = command["input_ids"].size();
    batch = {ids.data(), mask.data(), types.empty() ? nullptr : types.data(), items,
             items == 0 ? 0 : ids.size() / items};
  }

  std::vector<std::string> names;
  std::vector<std::string_view> tasks;
  std::vector<std::int64_t> ids, mask, types;
  bitfit::Batch batch;
};

json run_ids(const Session& session, const json& command, bitfit::Workspace* workspace) {
  const Asked asked(command);
  const bitfit::Batch& batch = asked.batch;
  std::vector<float> values(command.value("capacity", session.logits_capacity(batch.items, batch.tokens)));
  bitfit::Logits logits{values.data(), values.size(), 0, 0, 0};
  const Status status = session.run(asked.tasks.data(), asked.tasks.size(), batch, workspace, &logits);
  return status.ok() ? json_of(logits) : json_of(status);
}

// Those in "outputs", or all that the model has. "capacity" is that of the last one.
json run_outputs(const Session& session, const json& command, bitfit::Workspace* workspace) {
  const Asked asked(command);
  const bitfit::Batch& batch = asked.batch;
  const auto names = command.value("outputs", session.outputs());
  std::vector<std::vector<float>> values;
  std::vector<bitfit::Output> outputs;
  for (const std::string& name : names) {
    std::size_t capacity = session.output_capacity(name, batch.items, batch.tokens);
    if (&name == &names.back()) capacity = command.value("capacity", capacity);
    std::vector<float>& room = values.emplace_back(capacity);
    outputs.push_back({name, {room.data(), room.size(), 0, 0, 0}});
  }
  const Status status =
      session.run_outputs(asked.tasks.data(), asked.tasks.size(), batch, workspace, outputs.data(), outputs.size());
  if (!status.ok()) return json_of(status);
  json object = json::object();
  for (const bitfit::Output& output : outputs) object[std::string(output.name)] = json_of(output.logits);
  return object;
}

bitfit::Text text_of(const json& text) {
  if (text.is_string()) return {text.get<std::string>()};
  if (text.is_array()) return {text[0].get<std::string>(), text[1].get<std::string>()};
  return {{}, std::nullopt, text["words"].get<std::vector<std::string>>()};
}

json predict(const Session& session, const json& command) {
  std::vector<bitfit::Text> texts;
  for (const json& text : command["texts"]) texts.push_back(text_of(text));
  bitfit::PredictOptions options;
  options.truncate = command.value("truncate", false);
  options.max_length = command.value("max_length", std::size_t{0});
  options.top_k = command.value("top_k", std::size_t{1});
  std::vector<bitfit::Result> results;
  const Status status = session.predict(texts, command["tasks"].get<std::vector<std::string>>(), options, &results);
  if (!status.ok()) return json_of(status);
  json list = json::array();
  for (const bitfit::Result& result : results) {
    json items = json::array();
    for (const bitfit::Prediction& each : result) {
      items.push_back({{"label", each.label},
                       {"score", each.score},
                       {"text", each.text},
                       {"start", each.start},
                       {"end", each.end}});
    }
    list.push_back(items);
  }
  return {{"results", list}};
}

json tasks_of(const Session& session) {
  std::vector<bitfit::TaskInfo> tasks;
  const Status status = session.tasks(&tasks);
  if (!status.ok()) return json_of(status);
  json object = json::object();
  for (const bitfit::TaskInfo& task : tasks) {
    object[task.name] = {{"labels", task.labels}, {"label_count", task.label_count}, {"version", task.task_version}};
    if (!task.warning.empty()) object[task.name]["warning"] = task.warning;
  }
  return object;
}

json execute(Session* session, const json& command, bitfit::Workspace* workspace) {
  const std::string what = command["do"];
  if (what == "run") return run_ids(*session, command, workspace);
  if (what == "run_outputs") return run_outputs(*session, command, workspace);
  if (what == "predict") return predict(*session, command);
  if (what == "tasks") return tasks_of(*session);
  if (what == "device") return {{"device", session->device()}, {"emulated", session->emulated()}};
  if (what == "unload") return json_of(session->unload_task(command["name"].get<std::string>()));
  if (what == "adapter") return json_of(session->load_adapter(command["name"].get<std::string>()));
  return json_of(session->load_task(command["path"].get<std::string>(), command.value("name", ""),
                                    command.value("labels", std::vector<std::string>())));
}

int drive(const std::string& bundle, const std::vector<std::string>& words) {
  std::unique_ptr<Session> session;
  bitfit::SessionOptions options;
  options.threads = 1;
  bitfit::QnnOptions qnn;
  bool is_qnn = false;
  for (const std::string& word : words) {
    if (word == "check_hashes") options.check_hashes = true;
    if (word.rfind("key=", 0) == 0) {
      if (!options.trusted_keys) options.trusted_keys.emplace();
      if (word.size() > 4) options.trusted_keys->push_back(word.substr(4));
    }
    if (word.rfind("state=", 0) == 0) options.state = word.substr(6);
    if (word.rfind("task=", 0) == 0) options.tasks.push_back(word.substr(5));
    if (word.rfind("library=", 0) == 0) qnn.library = word.substr(8), is_qnn = true;
    if (word.rfind("htp_arch=", 0) == 0) qnn.htp_arch = std::stoi(word.substr(9)), is_qnn = true;
  }
  Status status;
  {
    const StdoutIsStderr prints;
    if (is_qnn) status = bitfit::make_qnn_engine(qnn, &options.engine);
    if (status.ok()) status = Session::open(bundle, options, &session);
  }
  std::cout << json_of(status).dump() << std::endl;
  if (!status.ok()) return 1;
  bitfit::Workspace workspace;
  for (std::string line; std::getline(std::cin, line);) {
    std::cout << execute(session.get(), json::parse(line), &workspace).dump() << std::endl;
  }
  return 0;
}

void require(const Status& status) {
  if (status.ok()) return;
  std::cerr << status.text() << '\n';
  std::exit(2);
}

// One batch of three items, run for the task `swapped`.
class Runner {
 public:
  Runner() {
    for (std::size_t i = 0; i < ids_.size(); ++i) ids_[i] = static_cast<std::int64_t>(i * 31 % 97);
  }

  std::vector<float> run(const Session& session) {
    std::vector<float> values(3 * 2);
    bitfit::Logits logits{values.data(), values.size(), 0, 0, 0};
    require(session.run("swapped", {ids_.data(), mask_.data(), nullptr, 3, 8}, &workspace_, &logits));
    return values;
  }

 private:
  std::vector<std::int64_t> ids_ = std::vector<std::int64_t>(24), mask_ = std::vector<std::int64_t>(24, 1);
  bitfit::Workspace workspace_;
};

int swap(const std::string& bundle, const std::string& row_a, const std::string& row_b, const std::string& bad_row,
         int threads, long runs) {
  std::unique_ptr<Session> session;
  bitfit::SessionOptions options;
  options.threads = 1;
  require(Session::open(bundle, options, &session));
  std::vector<float> expected[2];
  for (int i = 0; i < 2; ++i) {
    require(session->load_task(i == 0 ? row_a : row_b, "swapped"));
    expected[i] = Runner().run(*session);
  }
  if (expected[0] == expected[1]) return std::cerr << "both rows give the same\n", 2;
  std::atomic<long> left{runs}, wrong{0}, seen[2] = {{0}, {0}};
  std::vector<std::thread> workers;
  for (int i = 0; i < threads; ++i) {
    workers.emplace_back([&] {
      Runner runner;
      while (left.fetch_sub(1) > 0) {
        const std::vector<float> found = runner.run(*session);
        if (found == expected[0]) {
          ++seen[0];
        } else if (found == expected[1]) {
          ++seen[1];
        } else {
          ++wrong;
        }
      }
    });
  }
  long swaps = 0, refused = 0;
  for (; left.load() > 0; ++swaps) {
    require(session->load_task(swaps % 2 == 0 ? row_a : row_b, "swapped"));
    if (!session->load_task(bad_row, "swapped").ok()) ++refused;
    if (swaps % 16 == 0) {  // a table that grows and shrinks meanwhile
      require(session->load_task(row_a, "other-" + std::to_string(swaps % 5)));
    }
  }
  for (std::thread& worker : workers) worker.join();
  std::cout << json{{"first", seen[0].load()},
                    {"second", seen[1].load()},
                    {"wrong", wrong.load()},
                    {"swaps", swaps},
                    {"refused", refused}}
                   .dump()
            << '\n';
  return wrong.load() == 0 ? 0 : 1;
}

int answered(const std::string& bundle, const std::string& row, const std::string& token_row, long runs) {
  std::unique_ptr<Session> session;
  bitfit::SessionOptions options;
  options.threads = 1;
  require(Session::open(bundle, options, &session));
  require(session->load_task(row, "swapped"));
  std::atomic<bool> over{false};
  std::thread swapper([&] {
    for (long i = 0; !over; ++i) require(session->load_task(i % 2 == 0 ? token_row : row, "swapped"));
  });
  long wrong = 0, by_token = 0;
  for (long i = 0; i < runs; ++i) {
    std::vector<bitfit::Result> results;
    std::vector<bitfit::TaskInfo> tasks;
    require(session->predict({{"Ada"}}, {"swapped"}, {}, &results, &tasks));
    const bool found = !results[0][0].text.empty(), said = tasks[0].problem_type == bitfit::ProblemType::token;
    wrong += found != said;
    by_token += found;
  }
  over = true;
  swapper.join();
  std::cout << json{{"wrong", wrong}, {"by_token", by_token}}.dump() << '\n';
  return wrong == 0 ? 0 : 1;
}

}  // namespace

int main(int count, char** words) {
  if (count >= 3 && std::strcmp(words[1], "drive") == 0) return drive(words[2], {words + 3, words + count});
  if (count == 6 && std::strcmp(words[1], "answered") == 0) {
    return answered(words[2], words[3], words[4], std::atol(words[5]));
  }
  if (count == 8 && std::strcmp(words[1], "swap") == 0) {
    return swap(words[2], words[3], words[4], words[5], std::atoi(words[6]), std::atol(words[7]));
  }
  std::cerr << "usage: session_test drive BUNDLE [check_hashes] [task=NAME]..., swap BUNDLE ROW_A ROW_B BAD_ROW "
               "THREADS RUNS, or "
               "answered BUNDLE ROW TOKEN_ROW RUNS\n";
  return 2;
}
