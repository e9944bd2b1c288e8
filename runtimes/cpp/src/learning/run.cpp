#include "learning/run.h"

#include "batches.h"
#include "failure.h"
#include "peak_memory.h"
#include "sha256.h"

#include <algorithm>
#include <cmath>
#include <numeric>

namespace bitfit {
namespace {

// Those of PredictOptions.
constexpr std::size_t evaluation_batch = 32, evaluation_tokens = 512;

template <class Value>
void update(Sha256* hash, const Value& value) {
  hash->update(&value, sizeof value);
}

// Texts with their sizes, so that no two lists of them have the same bytes.
void update(Sha256* hash, const std::string& text) {
  update(hash, std::uint64_t{text.size()});
  hash->update(text);
}

void update(Sha256* hash, const std::vector<LabelledText>& examples) {
  update(hash, std::uint64_t{examples.size()});
  for (const LabelledText& each : examples) {
    update(hash, each.text.first);
    update(hash, each.text.second.has_value());
    update(hash, each.text.second.value_or(std::string()));
    for (const double label : each.label) update(hash, label);
  }
}

std::size_t largest_of(const std::vector<std::size_t>& lengths) {
  return static_cast<std::size_t>(std::max_element(lengths.begin(), lengths.end()) - lengths.begin());
}

std::string megabytes(std::size_t bytes) { return text_of((bytes + 999999) / 1000000, " MB"); }

}  // namespace

LearningRun::LearningRun(const Session::Parts& session, const TrainStep& step, const Learning& learning, RowData first)
    : session_(session),
      step_(step),
      learning_(learning),
      settings_(learning.settings),
      train_(session, learning.train, std::min(settings_.max_length, session.max_tokens()), "the training set"),
      held_out_(session, learning.held_out, std::min(settings_.max_length, session.max_tokens()), "the validation set"),
      targets_(targets_of(learning.train, learning.task)),
      held_out_targets_(targets_of(learning.held_out, learning.task)),
      weights_(weights_of(learning.train, learning.task, settings_.balance)),
      parameters_(std::move(first), session.manifest),
      optimiser_(parameters_.row.values.size(), settings_.epsilon, settings_.weight_decay),
      bound_(step.bind(parameters_)),
      evaluation_bound_(session.model.bind(parameters_.inputs())),
      epoch_steps_((train_.size() - 1) / settings_.batch_size + 1),
      steps_(multiply({settings_.epochs, epoch_steps_})),
      digest_(digest_of(parameters_.row)),
      gradient_(parameters_.row.values.size()),
      part_gradient_(parameters_.row.values.size()),
      best_values_(parameters_.row.values) {
  for (const auto& [name, value] : scores(held_out_targets_)) score_names_.push_back(name);
  score_names_.emplace_back("loss");
  state_.vectors = {&parameters_.row.values, &best_values_, &optimiser_.mean, &optimiser_.square};
  if (learning.checkpoint.empty()) return;
  load_state(learning.checkpoint, digest_, score_names_.size(), &state_);
  optimiser_.steps = static_cast<std::size_t>(state_.step);
}

std::array<std::uint8_t, 32> LearningRun::digest_of(const RowData& first) const {
  Sha256 hash;
  const LearningSettings& s = settings_;
  for (const double each : {s.learning_rate, s.warmup, s.weight_decay, s.epsilon, s.clip}) update(&hash, each);
  for (const std::size_t each : {s.epochs, s.batch_size, s.part_size, s.max_length, s.patience}) {
    update(&hash, std::uint64_t{each});
  }
  update(&hash, s.seed);
  update(&hash, s.schedule);
  update(&hash, s.balance);
  update(&hash, s.metric);
  update(&hash, learning_.task.problem_type);
  update(&hash, learning_.train);
  update(&hash, learning_.held_out);
  update(&hash, first.layout_digest);
  hash.update(first.values.data(), first.values.size() * sizeof(float));
  return hash.finish();
}

std::size_t LearningRun::part_items(std::size_t batch) const noexcept {
  return settings_.part_size == 0 ? batch : std::min(settings_.part_size, batch);
}

void LearningRun::prepare() {
  LearningPlan plan;
  const std::size_t longest = largest_of(train_.lengths());
  plan.values = parameters_.row.values.size();
  plan.steps = steps_;
  plan.part_items = part_items(std::min(settings_.batch_size, train_.size()));
  plan.part_tokens = train_.lengths()[longest];
  plan.own_bytes = 6 * plan.values * sizeof(float) + train_.bytes() + held_out_.bytes();
  add_part(Places(plan.part_items, longest), std::vector<float>(plan.part_items, 1.0f), &gradient_);
  const std::size_t held_out = largest_of(held_out_.lengths());
  const std::size_t fitting = std::max<std::size_t>(evaluation_tokens / held_out_.lengths()[held_out], 1);
  std::vector<float> logits(multiply({evaluation_batch, parameters_.row.labels}));
  evaluate(Places(std::min({fitting, evaluation_batch, held_out_.size()}), held_out), logits.data());
  // Later texts read other embeddings, so all of the weights may come to be in memory.
  plan.peak_bytes = peak_memory();
  if (plan.peak_bytes > 0) plan.peak_bytes += unread_of_mapped(std::string("/") + weights_file);
  if (learning_.on_plan) learning_.on_plan(plan);
  if (learning_.memory_limit == 0 || plan.peak_bytes <= learning_.memory_limit) return;
  fail(StatusCode::usage_error,
       text_of("learning needs ", megabytes(plan.peak_bytes), " for ", plan.part_items, " texts of ", plan.part_tokens,
               " tokens at once, expected at most ", megabytes(learning_.memory_limit)),
       plan.part_items > 1 ? text_of("compute fewer at once: part size ", plan.part_items / 2)
                           : std::string("cut texts to fewer tokens by the largest length"));
}

LearnedRow LearningRun::finish() {
  while (state_.step < steps_ && !is_enough()) {
    learn_epoch(static_cast<std::size_t>(state_.step) / epoch_steps_);
    end_epoch();
    save();
  }
  LearnedRow learned;
  learned.labels = learning_.task.labels;
  learned.best_epoch = best_epoch();
  for (std::size_t number = 1; number <= state_.history.size(); ++number) learned.epochs.push_back(epoch(number));
  RowData row = parameters_.row;
  row.task = learning_.task.name;
  row.task_version = 1;
  row.values = best_values_;
  learned.bytes = encode_row(row, session_.manifest.row_dtype);
  return learned;
}

void LearningRun::learn_epoch(std::size_t number) {
  NumpyRandom random({settings_.seed, number});
  const std::vector<Places> batches = batches_of(train_.lengths(), settings_.batch_size, &random);
  for (std::size_t at = static_cast<std::size_t>(state_.step) % epoch_steps_; at < batches.size(); ++at) {
    learn(batches[at]);
    if (state_.step % settings_.checkpoint_steps == 0 && at + 1 < batches.size()) save();
  }
}

void LearningRun::learn(const Places& batch) {
  std::vector<float> weights;
  for (const std::size_t place : batch) weights.push_back(weights_[place]);
  const float sum = std::accumulate(weights.begin(), weights.end(), 0.0f);
  for (float& weight : weights) weight /= sum;

  std::fill(gradient_.begin(), gradient_.end(), 0.0f);
  double loss = 0;
  const std::size_t size = part_items(batch.size());
  for (std::size_t first = 0; first < batch.size(); first += size) {
    const auto from = static_cast<std::ptrdiff_t>(first);
    const auto to = static_cast<std::ptrdiff_t>(std::min(first + size, batch.size()));
    loss += static_cast<double>(add_part({batch.begin() + from, batch.begin() + to},
                                         {weights.begin() + from, weights.begin() + to}, &gradient_));
  }
  if (!std::isfinite(loss) ||
      !std::all_of(gradient_.begin(), gradient_.end(), [](float value) { return std::isfinite(value); })) {
    fail(StatusCode::usage_error,
         text_of("the loss of step ", state_.step + 1, " is ", loss, ", expected a finite number and finite gradients"),
         "lower the learning rate");
  }
  clip(settings_.clip, &gradient_);
  optimiser_.step(parameters_.learnt(), gradient_, rate_at(settings_, static_cast<std::size_t>(state_.step), steps_),
                  &parameters_.row.values);
  ++state_.step;
  state_.loss += loss;
  if (learning_.on_step) learning_.on_step(static_cast<std::size_t>(state_.step), steps_, loss);
}

// Adds the gradient of these examples; returns their part of the loss.
float LearningRun::add_part(const Places& part, const std::vector<float>& weights, std::vector<float>* gradient) {
  const std::size_t labels = parameters_.row.labels;
  train_.pad(part, &padded_);
  part_targets_.resize(part.size() * labels);
  for (std::size_t i = 0; i < part.size(); ++i) {
    std::copy_n(targets_.data() + part[i] * labels, labels, part_targets_.data() + i * labels);
  }
  const float loss = step_.run(parameters_, *bound_, {padded_, part_targets_, weights}, &scratch_, &part_gradient_);
  for (std::size_t i = 0; i < gradient->size(); ++i) (*gradient)[i] += part_gradient_[i];
  return loss;
}

void LearningRun::end_epoch() {
  std::vector<double> scores;
  for (const auto& [name, value] : evaluate_all()) scores.push_back(value);
  scores.push_back(state_.loss / static_cast<double>(epoch_steps_));
  state_.history.push_back(std::move(scores));
  state_.loss = 0;
  const std::size_t number = state_.history.size();
  if (best_epoch() == number) best_values_ = parameters_.row.values;
  if (learning_.on_epoch) learning_.on_epoch(epoch(number));
}

void LearningRun::evaluate(const Places& places, float* logits) {
  std::int64_t text_shape[2];
  held_out_.pad(places, &padded_);
  const std::vector<InputArray> inputs = text_inputs_of(padded_, session_.manifest.infer(), text_shape);
  const std::int64_t shape[] = {text_shape[0], static_cast<std::int64_t>(parameters_.row.labels)};
  const OutputArray output{logits_output, logits, shape, 2};
  session_.model.run({inputs.data(), inputs.size(), evaluation_bound_.get(), &output, 1, &evaluation_scratch_});
}

Scores LearningRun::evaluate_all() {
  const std::size_t labels = parameters_.row.labels;
  std::vector<float> logits(held_out_targets_.size()), some;
  const std::vector<int> one_group(held_out_.size());
  for (const Places& places : plan_batches(held_out_.lengths(), one_group, evaluation_batch, evaluation_tokens)) {
    some.resize(places.size() * labels);
    evaluate(places, some.data());
    for (std::size_t i = 0; i < places.size(); ++i) {
      std::copy_n(some.data() + i * labels, labels, logits.data() + places[i] * labels);
    }
  }
  return scores(logits);
}

// Of the logits of all held-out examples. What chooses the epoch comes first.
Scores LearningRun::scores(const std::vector<float>& logits) const {
  Scores found = scores_of(learning_.task.problem_type, parameters_.row.labels, logits, held_out_targets_);
  if (settings_.metric.empty()) return found;
  const auto chosen =
      std::find_if(found.begin(), found.end(), [&](const auto& each) { return each.first == settings_.metric; });
  if (chosen == found.end()) {
    std::string known;
    for (const auto& [name, value] : found) known += (known.empty() ? "" : ", ") + name;
    fail(StatusCode::usage_error, text_of("the metric is ", shown(settings_.metric), ", expected one of ", known));
  }
  std::rotate(found.begin(), chosen, chosen + 1);
  return found;
}

std::size_t LearningRun::best_epoch() const noexcept {
  const auto& history = state_.history;
  std::size_t best = 0;
  for (std::size_t i = 1; i < history.size(); ++i) best = history[i][0] > history[best][0] ? i : best;
  return best + 1;
}

bool LearningRun::is_enough() const noexcept {
  const std::size_t done = state_.history.size();
  return settings_.patience > 0 && done > 0 && done - best_epoch() >= settings_.patience;
}

Epoch LearningRun::epoch(std::size_t number) const {
  Epoch made{number, {}, true};
  const std::vector<double>& scores = state_.history[number - 1];
  for (std::size_t i = 0; i < scores.size(); ++i) made.scores.emplace_back(score_names_[i], scores[i]);
  for (std::size_t i = 0; i + 1 < number; ++i) made.is_best = made.is_best && state_.history[i][0] < scores[0];
  return made;
}

void LearningRun::save() const {
  if (!learning_.checkpoint.empty()) save_state(learning_.checkpoint, digest_, state_);
}

}  // namespace bitfit
