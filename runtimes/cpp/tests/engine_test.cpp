// Sessions on engines of one's own, and on ONNX Runtime with options, for tests.
//
//     engine_test log BUNDLE [library=PATH] TASK...
//                                         runs the tasks in turn on an engine that notes what it is given; the notes
//                                         are the lines of stdout, and the last one is the logits. The library is that
//                                         of the engine qnn.
//     engine_test fault BUNDLE FAULT ...  opens and runs a session on an engine with a fault; prints the status. More
//                                         words are an adapter's task to load.
//     engine_test options BUNDLE TASK     each line of stdin is JSON: options of ONNX Runtime. Opens and runs a
//     session;
//                                         prints its status or logits, and the number of threads of this process. A
//                                         session stays open until the end where "keep" is set.

#include <bitfit/engine.h>
#include <bitfit/onnxruntime.h>
#include <bitfit/qnn.h>
#include <bitfit/session.h>

#include "engine_choice.h"

#include <onnxruntime_cxx_api.h>
#include <cstring>
#include <fstream>
#include <iostream>
#include <nlohmann/json.hpp>
#include <stdexcept>

namespace {

using bitfit::Session;
using bitfit::Status;
using bitfit::StatusCode;
using nlohmann::json;

constexpr const char* codes[] = {"ok", "bundle_error", "row_error", "input_error", "usage_error", "failure"};

json json_of(const Status& status) {
  return {{"code", codes[static_cast<int>(status.code)]}, {"message", status.text()}, {"hint", status.hint}};
}

void require(const Status& status) {
  if (status.ok()) return;
  std::cerr << status.text() << '\n';
  std::exit(2);
}

std::shared_ptr<const bitfit::Engine> onnxruntime() {
  std::shared_ptr<const bitfit::Engine> engine;
  require(bitfit::make_onnxruntime_engine({}, &engine));
  return engine;
}

std::shared_ptr<const bitfit::Engine> qnn(const std::string& library) {
  const StdoutIsStderr prints;
  std::shared_ptr<const bitfit::Engine> engine;
  require(bitfit::make_qnn_engine({library}, &engine));
  return engine;
}

// Three items of two tokens, and logits that a run of any task has room in.
struct Run {
  explicit Run(const Session& session) : values(session.logits_capacity(3, 2)) {
    logits = {values.data(), values.size(), 0, 0, 0};
  }

  Status of(const Session& session, std::string_view task) {
    return session.run(task, {ids, mask, nullptr, 3, 2}, &workspace, &logits);
  }

  json found() const { return {{"logits", std::vector<float>(logits.values, logits.values + logits.size())}}; }

  const std::int64_t ids[6] = {1, 2, 3, 4, 5, 6}, mask[6] = {1, 1, 1, 0, 1, 1};
  std::vector<float> values;
  bitfit::Logits logits;
  bitfit::Workspace workspace;
};

// Delegates, and notes what it is given. Bounds are numbered in the order in which they were made.
class LoggedProgram : public bitfit::Program {
 public:
  explicit LoggedProgram(std::unique_ptr<bitfit::Program> inner) : inner_(std::move(inner)) {}

  const bitfit::GraphInfo& graph() const override { return inner_->graph(); }

  Status bind(const bitfit::InputArray* arrays, std::size_t count, std::unique_ptr<bitfit::Bound>* out) const override {
    std::cout << "bind";
    for (std::size_t i = 0; i < count; ++i) std::cout << ' ' << arrays[i].name;
    std::cout << '\n';
    Status status = inner_->bind(arrays, count, out);
    bounds_.push_back(out->get());
    return status;
  }

  Status run(const bitfit::Call& call) const override {
    std::cout << "run";
    for (std::size_t i = 0; i < call.input_count; ++i) std::cout << ' ' << call.inputs[i].name;
    std::size_t number = 0;
    while (bounds_[number] != call.bound) ++number;
    std::cout << " bound " << number;
    for (std::size_t i = 0; i < call.output_count; ++i) std::cout << " -> " << call.outputs[i].name;
    if (call.outputs[0].values == wanted) std::cout << " in place";
    std::cout << '\n';
    return inner_->run(call);
  }

  inline static const float* wanted = nullptr;  // where the caller has its logits

 private:
  std::unique_ptr<bitfit::Program> inner_;
  mutable std::vector<const bitfit::Bound*> bounds_;
};

class Logging : public bitfit::Engine {
 public:
  explicit Logging(std::shared_ptr<const bitfit::Engine> engine) : engine_(std::move(engine)) {}

  const char* name() const override { return "logging"; }
  std::vector<std::string> targets() const override { return engine_->targets(); }

  Status open(const bitfit::ProgramFiles& files, int threads, std::unique_ptr<bitfit::Program>* out) const override {
    std::cout << "open " << files.path.substr(files.folder.size() + 1) << " load_time "
              << static_cast<int>(files.load_time) << " threads " << threads << '\n';
    std::unique_ptr<bitfit::Program> inner;
    Status status = engine_->open(files, threads, &inner);
    if (status.ok()) *out = std::make_unique<LoggedProgram>(std::move(inner));
    return status;
  }

 private:
  std::shared_ptr<const bitfit::Engine> engine_;
};

int log(const std::string& bundle, std::vector<std::string> tasks) {
  bitfit::SessionOptions options;
  options.threads = 1;
  const bool is_qnn = tasks[0].rfind("library=", 0) == 0;
  options.engine = std::make_shared<Logging>(is_qnn ? qnn(tasks[0].substr(8)) : onnxruntime());
  if (is_qnn) tasks.erase(tasks.begin());
  std::unique_ptr<Session> session;
  require(Session::open(bundle, options, &session));
  options.engine.reset();  // the session keeps it
  std::cout << "opened\n";
  Run run(*session);
  LoggedProgram::wanted = run.values.data();
  for (const std::string& task : tasks) require(run.of(*session, task));
  std::cout << run.found().dump() << '\n';
  return 0;
}

// Fails in one place. It takes no adapters.
class FaultyProgram : public bitfit::Program {
 public:
  FaultyProgram(std::unique_ptr<bitfit::Program> inner, std::string fault)
      : inner_(std::move(inner)), fault_(std::move(fault)), graph_(inner_->graph()) {
    if (fault_ == "no digest") graph_.metadata.clear();
  }

  const bitfit::GraphInfo& graph() const override { return graph_; }

  Status bind(const bitfit::InputArray* arrays, std::size_t count, std::unique_ptr<bitfit::Bound>* out) const override {
    if (fault_ == "bind") return {StatusCode::bundle_error, "no room on the chip"};
    return inner_->bind(arrays, count, out);
  }

  Status run(const bitfit::Call& call) const override {
    if (fault_ == "run") return {StatusCode::input_error, "a token type\n\x1b[2J"};
    if (fault_ == "throw") throw std::runtime_error("the chip is too hot");
    return inner_->run(call);
  }

 private:
  std::unique_ptr<bitfit::Program> inner_;
  std::string fault_;
  bitfit::GraphInfo graph_;
};

class Faulty : public bitfit::Engine {
 public:
  explicit Faulty(std::string fault) : fault_(std::move(fault)) {}

  const char* name() const override { return "faulty"; }

  std::vector<std::string> targets() const override {
    return fault_ == "targets" ? std::vector<std::string>{"chip", "card"} : std::vector<std::string>{"ort"};
  }

  Status open(const bitfit::ProgramFiles& files, int threads, std::unique_ptr<bitfit::Program>* out) const override {
    if (fault_ == "open") return {StatusCode::bundle_error, "the chip has no such operator", "buy another"};
    if (fault_ == "nothing") return {};
    std::unique_ptr<bitfit::Program> inner;
    Status status = engine_->open(files, threads, &inner);
    if (status.ok()) *out = std::make_unique<FaultyProgram>(std::move(inner), fault_);
    return status;
  }

 private:
  std::string fault_;
  std::shared_ptr<const bitfit::Engine> engine_ = onnxruntime();
};

int fault(const std::string& bundle, const std::string& fault, const std::vector<std::string>& adapters) {
  bitfit::SessionOptions options;
  options.threads = 1;
  options.engine = std::make_shared<Faulty>(fault);
  std::unique_ptr<Session> session;
  Status status = Session::open(bundle, options, &session);
  if (status.ok() && adapters.empty()) status = Run(*session).of(*session, "two_way");
  for (const std::string& task : adapters) status = session->load_adapter(task);
  std::cout << json_of(status).dump() << '\n';
  return 0;
}

// Of this process; 0 where the system does not say.
int count_threads() {
  std::ifstream status("/proc/self/status");
  for (std::string word; status >> word;) {
    int count = 0;
    if (word == "Threads:" && status >> count) return count;
  }
  return 0;
}

bitfit::OnnxRuntimeOptions options_of(const json& command) {
  bitfit::OnnxRuntimeOptions options;
  for (const json& provider : command.value("providers", json::array())) {
    options.providers.push_back({provider["name"], provider.value("options", std::map<std::string, std::string>())});
  }
  options.inter_threads = command.value("inter_threads", 0);
  options.share_threads = command.value("share_threads", false);
  options.threads = command.value("threads", 0);
  return options;
}

// The application's own environment, with threads to share or without.
Ort::Env environment_of(const std::string& kind) {
  if (kind != "pools") return Ort::Env(ORT_LOGGING_LEVEL_FATAL, "application");
  Ort::ThreadingOptions threads;
  threads.SetGlobalIntraOpNumThreads(2);
  return Ort::Env(threads, ORT_LOGGING_LEVEL_FATAL, "application");
}

int options(const std::string& bundle, const std::string& task) {
  std::vector<std::unique_ptr<Session>> kept;
  Ort::Env environment{nullptr};
  for (std::string line; std::getline(std::cin, line);) {
    const json command = json::parse(line);
    bitfit::OnnxRuntimeOptions engine = options_of(command);
    if (command.contains("environment")) {
      if (environment == nullptr) environment = environment_of(command["environment"]);
      engine.environment = environment;
    }
    std::unique_ptr<Session> session;
    bitfit::SessionOptions options;
    options.threads = command.value("session_threads", 0);
    Status status = bitfit::make_onnxruntime_engine(engine, &options.engine);
    json answer;
    if (status.ok()) status = Session::open(bundle, options, &session);
    if (status.ok()) {
      Run run(*session);
      status = run.of(*session, task);
      answer = run.found();
    }
    answer.update(json_of(status));
    answer["threads"] = count_threads();
    std::cout << answer.dump() << std::endl;
    if (command.value("keep", false)) kept.push_back(std::move(session));
  }
  return 0;
}

}  // namespace

int main(int count, char** words) {
  const std::string what = count > 3 ? words[1] : "";
  if (what == "log") return log(words[2], {words + 3, words + count});
  if (what == "fault") return fault(words[2], words[3], {words + 4, words + count});
  if (what == "options") return options(words[2], words[3]);
  std::cerr << "usage: engine_test log BUNDLE TASK..., fault BUNDLE FAULT [ADAPTER], or options BUNDLE TASK\n";
  return 2;
}
