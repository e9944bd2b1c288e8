// A bundle that is ready to run: any of its tasks, or a batch in which every item is another task.
//
//     std::unique_ptr<bitfit::Session> session;
//     bitfit::Status status = bitfit::Session::open("bundles/minilm-l6", {}, &session);
//     std::vector<bitfit::Result> results;
//     if (status.ok()) status = session->predict({{"A warm, funny film."}}, {"sst2"}, {}, &results);
//     if (!status.ok()) report(status.text(), status.hint);
//
// Threads. Any number of threads may use one session, also to load and unload tasks. A run sees one whole row of each
// task, the old one or the new one. A row that is refused changes nothing.
//
// Memory. `run` on ids allocates nothing once its Workspace has seen a batch of that size: the logits go into the
// caller's memory, and everything else is kept in the Workspace, of which each thread has its own. What the engine
// allocates inside of a run is its own business. Everything else may allocate.

#ifndef BITFIT_SESSION_H
#define BITFIT_SESSION_H

#include <bitfit/status.h>
#include <bitfit/tokenizer.h>

#include <cstddef>
#include <cstdint>
#include <memory>
#include <optional>
#include <string>
#include <string_view>
#include <vector>

namespace bitfit {

class Engine;

struct SessionOptions {
  int threads = 0;                 // for one run, at most 4 per core; 0: the engine's choice, one per core
  std::vector<std::string> tasks;  // to load; none: all of the bundle's
  std::size_t room = 0;            // number of tasks to make room for: loading up to that many copies only their rows
  // Compare SHA-256 of every file: it finds a forgery, if the manifest is genuine. Size and CRC-32C, which find damage,
  // are always compared, and so is the SHA-256 of rows.
  bool check_hashes = false;
  // Public keys: of each its 64 hexadecimal digits, or the path of a file that has these. Where this is set, the manifest
  // and every row must be signed by one of them, and check_hashes is on; a list without a key is refused. The library
  // must have been built with BITFIT_SIGNATURES.
  std::optional<std::vector<std::string>> trusted_keys = {};
  // A file that keeps the highest version of each task that was used, so that an older row is refused after a restart
  // as well. It is made when it is not there; several processes may share it. Empty: none.
  std::string state = {};
  // What runs the model: engine.h. Null: ONNX Runtime as it is, and Qualcomm's HTP (qnn.h) for the target qnn.
  std::shared_ptr<const Engine> engine = {};
};

struct TaskInfo {
  std::string name;
  ProblemType problem_type = ProblemType::single_label;
  std::vector<std::string> labels;  // in id order; empty for a regression
  std::uint32_t label_count = 0;    // the number of head outputs
  std::uint32_t task_version = 0;
  // What to know of its row, which runs all the same: values that saturate in a model of integers. Empty: nothing.
  std::string warning = {};
};

// Ids to run. The arrays are the caller's, [items, tokens] in C order.
struct Batch {
  const std::int64_t* input_ids = nullptr;
  const std::int64_t* attention_mask = nullptr;  // 1 for a token, 0 for padding
  const std::int64_t* token_type_ids = nullptr;  // null: zeros
  std::size_t items = 0;
  std::size_t tokens = 0;
};

// Where logits go. The first two are the caller's, a run fills in the others.
//
// A sentence task has [items, labels]; a token or span task [items, tokens, labels]. With tasks of different widths
// `labels` is the largest, and what lies beyond an item's own labels is -infinity.
struct Logits {
  float* values = nullptr;
  std::size_t capacity = 0;  // in values
  std::size_t items = 0;
  std::size_t tokens = 0;  // 0 for a sentence task
  std::size_t labels = 0;

  std::size_t size() const noexcept { return items * (tokens == 0 ? 1 : tokens) * labels; }
};

// An output that `run_outputs` is asked for.
struct Output {
  std::string_view name;
  Logits logits;
};

// What one thread needs for its runs, kept from one to the next.
class Workspace {
 public:
  Workspace();
  ~Workspace();
  Workspace(Workspace&&) noexcept;
  Workspace& operator=(Workspace&&) noexcept;

  struct Parts;  // the library's own

 private:
  friend class Session;
  std::unique_ptr<Parts> parts_;
};

struct PredictOptions {
  bool truncate = false;               // cut a text that is too long instead of refusing it
  std::size_t max_length = 0;          // in tokens; 0: what the model takes
  std::size_t batch_size = 32;         // texts of similar length that are run at once, at most
  std::size_t batch_tokens = 512;      // tokens that are run at once, at most, with padding; a longer text runs alone
  std::size_t max_answer_tokens = 30;  // the longest answer of a span task
  std::size_t top_k = 1;               // labels or answers for each text, best first; a token task takes 1 alone
};

// One label, word or answer. start and end count characters: of the text, of its words with a space between each two,
// or of the context.
struct Prediction {
  std::string label;  // empty for a regression and for an answer
  double score = 0;   // a probability; of a regression the value itself
  std::string text;   // the word, or the answer
  std::size_t start = 0;
  std::size_t end = 0;
};

// Of one text: for a sentence or span task `top_k` predictions, or as many as there are; for a token task one for each
// word.
using Result = std::vector<Prediction>;

class Session {
 public:
  // Open the bundle in `folder`. `*out` is written only when the status is ok.
  //
  // A bundle_error or row_error: a file that is missing or damaged, or does not belong to the others. An input_error: a
  // task that the bundle lacks, or a row that is older than the state has seen. A usage_error: a number of threads that
  // is out of range, a key or a state that cannot be used, or an option that the engine refuses. A signature_error: the
  // manifest or a row that no trusted key has signed.
  static Status open(const std::string& folder, const SessionOptions& options, std::unique_ptr<Session>* out) noexcept;

  ~Session();
  Session(const Session&) = delete;
  Session& operator=(const Session&) = delete;

  // What runs the model, in words: this machine's processor, an accelerator, or an emulator of one; and whether it is
  // an emulator, which takes seconds for what the accelerator does at once.
  std::string device() const;
  bool emulated() const;

  // The loaded tasks, by name.
  Status tasks(std::vector<TaskInfo>* out) const noexcept;
  Status find_task(std::string_view name, TaskInfo* out) const noexcept;

  // Load a row file, or replace the loaded task of the same name.
  //
  // `name` is by default the row's own. `labels` are by default those of the loaded task that it replaces, or of the
  // bundle's task of that name, where type and number are the same; else LABEL_0, LABEL_1, ...
  //
  // A row_error or bundle_error: the file cannot be read, is damaged or was made for another model. An input_error: a
  // name or labels that cannot be, a row that is older than the loaded one or than the state has seen, or one that the
  // model has no output for. A signature_error: no trusted key has signed it.
  Status load_task(const std::string& path, std::string_view name = {},
                   const std::vector<std::string>& labels = {}) noexcept;

  // As `load_task`, from bytes that are only read during the call: a row that comes from flash or over the air. They
  // have no signature, so a session with trusted keys takes none.
  Status load_task(const void* data, std::size_t size, std::string_view name = {},
                   const std::vector<std::string>& labels = {}) noexcept;

  // Load a task of the bundle from tasks/<name>.onnx_adapter by ONNX Runtime's own LoraAdapter, in the layout `named`.
  // An adapter has no checksum and no labels: it must be the one of which the manifest has the SHA-256. Engines of
  // one's own need not take adapters.
  Status load_adapter(const std::string& name) noexcept;

  // Forget a task. Runs under way finish with it.
  Status unload_task(std::string_view name) noexcept;

  // The longest sequence that the model takes, in tokens.
  std::size_t max_tokens() const noexcept;

  // How many values a run of such a batch may need in `Logits`, for the tasks that are loaded now.
  std::size_t logits_capacity(std::size_t items, std::size_t tokens) const noexcept;

  // Run a batch: every item is of the task `task`, or item i of the task `tasks[i]`, of which there are batch.items.
  //
  // An input_error: a task that is not loaded, ids that the model can't take, logits that have no room, sentence tasks
  // together with token or span tasks, or different tasks where the bundle's layout runs one at a time.
  Status run(std::string_view task, const Batch& batch, Workspace* workspace, Logits* logits) const noexcept;
  Status run(const std::string_view* tasks, std::size_t task_count, const Batch& batch, Workspace* workspace,
             Logits* logits) const noexcept;

  // The outputs that the model has: `logits` and, where the bundle was made with token or span tasks, `token_logits`.
  const std::vector<std::string>& outputs() const noexcept;

  // How many values a run of such a batch may need for an output, for the tasks that are loaded now; 0 where the model
  // has no such output.
  std::size_t output_capacity(std::string_view name, std::size_t items, std::size_t tokens) const noexcept;

  // As `run`, for any mix of tasks: the outputs that are named in `outputs`, each once. `logits` is [items, labels],
  // `token_logits` [items, tokens, labels], with -infinity beyond an item's own labels. What a sentence task's item has
  // in `token_logits` means nothing, nor does what a token or span task's item has in `logits`.
  //
  // An input_error: as `run`, but for the mix, and an output that the model does not have.
  Status run_outputs(const std::string_view* tasks, std::size_t task_count, const Batch& batch, Workspace* workspace,
                     Output* outputs, std::size_t output_count) const noexcept;

  // The bundle's tokenizer; null, and the reason in `why`, where this library can't read it.
  const Tokenizer* tokenizer(Status* why = nullptr) const noexcept;

  // Answer texts, each for its task; one task stands for all of them. All texts see the same rows. A context of a span
  // task is never cut: it is read in windows, and the best answer counts.
  //
  // `*answered`, where it is given, gets the tasks as they answered, one for each of `tasks`: somebody may have
  // replaced or unloaded one since.
  Status predict(const std::vector<Text>& texts, const std::vector<std::string>& tasks, const PredictOptions& options,
                 std::vector<Result>* out, std::vector<TaskInfo>* answered = nullptr) const noexcept;

  struct Parts;  // the library's own

 private:
  friend class Trainer;
  explicit Session(std::unique_ptr<Parts> parts) noexcept;
  std::unique_ptr<Parts> parts_;
};

}  // namespace bitfit

#endif  // BITFIT_SESSION_H
