#include "learning/train_step.h"

#include "bundle_files.h"
#include "failure.h"

#include <algorithm>
#include <set>

namespace bitfit {
namespace {

constexpr const char* export_trainable = "export the bundle again with --trainable";

bool has(const std::vector<std::string>& names, std::string_view name) noexcept {
  return std::find(names.begin(), names.end(), name) != names.end();
}

const ProgramRecord& record_in(const Manifest& manifest) {
  const auto found = manifest.programs.find(train_step_program);
  if (found == manifest.programs.end()) {
    fail(StatusCode::usage_error, text_of("the bundle has no program ", train_step_program, ", expected one"),
         export_trainable);
  }
  return found->second;
}

// A program that the manifest describes, with inputs that all are fed.
void check_program(const GraphInfo& graph, const ProgramRecord& record, const Manifest& manifest) {
  std::set<std::string> known = {targets_input, token_targets_input, problem_type_ids_input, label_counts_input,
                                 item_weights_input};
  known.insert(manifest.infer().inputs.begin(), manifest.infer().inputs.end());
  for (const std::string& name : record.inputs) {
    if (known.count(name) > 0) continue;
    fail(StatusCode::bundle_error,
         text_of("the program ", record.file, " has the input ", shown(name), ", which this runtime does not feed"),
         "export the bundle without it, or learn with the Python package");
  }
  const auto digest = graph.metadata.find(layout_digest_key);
  bool is_same = digest != graph.metadata.end() && digest->second == manifest.layout.digest &&
                 graph.inputs.size() == record.inputs.size();
  for (const std::string& name : record.inputs) is_same = is_same && graph.inputs.count(name) > 0;
  if (is_same) return;
  fail(StatusCode::bundle_error, text_of("the program ", record.file, " is not the one that the manifest describes"),
       copy_again);
}

}  // namespace

std::vector<InputArray> text_inputs_of(const Padded& padded, const ProgramRecord& program, std::int64_t* shape) {
  shape[0] = static_cast<std::int64_t>(padded.batch.items);
  shape[1] = static_cast<std::int64_t>(padded.batch.tokens);
  const std::pair<const char*, const std::int64_t*> known[] = {{input_ids_input, padded.batch.input_ids},
                                                               {attention_mask_input, padded.batch.attention_mask},
                                                               {token_type_ids_input, padded.batch.token_type_ids}};
  std::vector<InputArray> arrays;
  for (const auto& [name, values] : known) {
    if (has(program.inputs, name)) arrays.push_back({name, ElementType::int64, values, shape, 2});
  }
  return arrays;
}

TrainStep::TrainStep(const Session::Parts& session)
    : record_(record_in(session.manifest)), reads_tokens_(has(record_.inputs, token_targets_input)) {
  const BundleFiles files(session.folder, session.manifest, record_, session.trusted != nullptr);
  program_ = open_program(session.model.engine(), session.folder, record_, files.model, session.threads, false);
  files.check_unchanged();
  check_program(program_->graph(), record_, session.manifest);
}

std::unique_ptr<const Bound> TrainStep::bind(const RowParameters& parameters) const {
  const std::vector<InputArray> arrays = parameters.inputs();
  std::unique_ptr<Bound> bound;
  check_engine(program_->bind(arrays.data(), arrays.size(), &bound));
  return bound;
}

float TrainStep::run(const RowParameters& parameters, const Bound& bound, const Items& items,
                     std::unique_ptr<Scratch>* scratch, std::vector<float>* gradient) const {
  const std::size_t count = items.text.batch.items;
  std::int64_t text_shape[2];
  const auto labels = static_cast<std::int64_t>(parameters.row.labels);
  const std::int64_t shape[] = {static_cast<std::int64_t>(count), labels};
  const std::int64_t token_shape[] = {shape[0], static_cast<std::int64_t>(items.text.batch.tokens), labels};
  const std::vector<std::int64_t> types(count, static_cast<std::int64_t>(parameters.row.problem_type));
  const std::vector<std::int64_t> counts(count, labels);
  std::vector<float> no_tokens;

  std::vector<InputArray> inputs = text_inputs_of(items.text, record_, text_shape);
  inputs.push_back({targets_input, ElementType::float32, items.targets.data(), shape, 2});
  if (reads_tokens_) {
    no_tokens.resize(multiply({count, items.text.batch.tokens, parameters.row.labels}));
    inputs.push_back({token_targets_input, ElementType::float32, no_tokens.data(), token_shape, 3});
  }
  inputs.push_back({problem_type_ids_input, ElementType::int64, types.data(), shape, 1});
  inputs.push_back({label_counts_input, ElementType::int64, counts.data(), shape, 1});
  inputs.push_back({item_weights_input, ElementType::float32, items.weights.data(), shape, 1});

  float loss = 0;
  const std::int64_t one[] = {1};
  std::vector<OutputArray> outputs = parameters.gradients(gradient->data());
  outputs.push_back({loss_output, &loss, one, 1});
  check_engine(program_->run({inputs.data(), inputs.size(), &bound, outputs.data(), outputs.size(), scratch}));
  return loss;
}

}  // namespace bitfit
