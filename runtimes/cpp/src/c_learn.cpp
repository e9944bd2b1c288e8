// The C API's part for learning: the C++ trainer, with strings and codes.

#include <bitfit/learn.h>
#include <bitfit/trainer.h>

#include "c_support.h"

#include <vector>

struct bitfit_trainer {
  std::unique_ptr<bitfit::Trainer> trainer;
};

struct bitfit_learned {
  bitfit::LearnedRow row;
};

namespace {

using bitfit::guard;
using bitfit::known;
using bitfit::report;
using bitfit::require;
using bitfit::Status;

std::vector<bitfit::LabelledText> examples_of(const bitfit_example* given, size_t count, const char* name) {
  if (count > 0) require(given, name);
  std::vector<bitfit::LabelledText> examples(count);
  for (size_t i = 0; i < count; ++i) {
    require(given[i].text, "the text of an example");
    require(given[i].label, "the label of an example");
    examples[i].text.first = given[i].text;
    if (given[i].text_pair != nullptr) examples[i].text.second = given[i].text_pair;
    examples[i].label.assign(given[i].label, given[i].label + given[i].label_size);
  }
  return examples;
}

bitfit::TaskToLearn task_of(const bitfit_learning& given) {
  require(given.task, "task");
  bitfit::TaskToLearn task{given.task, static_cast<bitfit::ProblemType>(given.problem_type)};
  if (given.label_count > 0) require(given.labels, "labels");
  for (size_t i = 0; i < given.label_count; ++i) {
    require(given.labels[i], "a label");
    task.labels.emplace_back(given.labels[i]);
  }
  return task;
}

template <class Number>
void set(Number given, Number* setting) {
  if (given != Number{}) *setting = given;
}

bitfit::LearningSettings settings_of(const bitfit_learning& given) {
  bitfit::LearningSettings settings;
  set(given.learning_rate, &settings.learning_rate);
  set(given.epochs, &settings.epochs);
  set(given.batch_size, &settings.batch_size);
  set(given.epsilon, &settings.epsilon);
  set(given.clip, &settings.clip);
  set(given.max_length, &settings.max_length);
  set(given.checkpoint_steps, &settings.checkpoint_steps);
  if (given.clip < 0) settings.clip = 0;
  settings.part_size = given.part_size;
  if (given.constant != 0) settings.schedule = bitfit::Schedule::constant;
  set(given.warmup, &settings.warmup);
  if (given.warmup < 0) settings.warmup = 0;
  settings.weight_decay = given.weight_decay;
  settings.seed = given.seed;
  settings.patience = given.patience;
  settings.balance = given.balance != 0;
  settings.metric = bitfit::text_or_empty(given.metric);
  return settings;
}

void go_on(int answer, const char* function) {
  if (answer == 0) return;
  bitfit::fail(bitfit::StatusCode::failure, bitfit::text_of("learning was ended by ", function));
}

// The functions of the caller, each where there is one. `given` must outlive the run.
void set_callbacks(const bitfit_learning& given, bitfit::Learning* learning) {
  if (given.on_plan != nullptr) {
    learning->on_plan = [&given](const bitfit::LearningPlan& plan) {
      const bitfit_learning_plan said = {plan.values, plan.steps, plan.part_items, plan.part_tokens, plan.peak_bytes};
      go_on(given.on_plan(given.context, &said), "on_plan");
    };
  }
  if (given.on_step != nullptr) {
    learning->on_step = [&given](size_t step, size_t steps, double loss) {
      go_on(given.on_step(given.context, step, steps, loss), "on_step");
    };
  }
  if (given.on_epoch != nullptr) {
    learning->on_epoch = [&given](const bitfit::Epoch& epoch) {
      const auto& [metric, score] = epoch.scores.front();
      go_on(given.on_epoch(given.context, epoch.number, metric.c_str(), score, epoch.scores.back().second), "on_epoch");
    };
  }
}

}  // namespace

extern "C" {

bitfit_trainer* bitfit_trainer_open(const bitfit_session* session, bitfit_error* error) {
  bitfit_trainer* opened = nullptr;
  const Status status = guard([&] {
    require(session, "session");
    auto trainer = std::make_unique<bitfit_trainer>();
    bitfit::check(bitfit::Trainer::open(*session->session, &trainer->trainer));
    opened = trainer.release();
  });
  report(status, error);
  return opened;
}

void bitfit_trainer_free(bitfit_trainer* trainer) { delete trainer; }

bitfit_learned* bitfit_learn(const bitfit_trainer* trainer, const bitfit_learning* learning, bitfit_error* error) {
  bitfit_learned* made = nullptr;
  const Status status = guard([&] {
    require(trainer, "trainer");
    const bitfit_learning given = known(learning);
    const auto train = examples_of(given.train, given.train_count, "train");
    const auto held_out = examples_of(given.held_out, given.held_out_count, "held_out");
    bitfit::Learning chosen{task_of(given), train, held_out, settings_of(given)};
    chosen.start = given.start;
    chosen.start_size = given.start_size;
    chosen.checkpoint = bitfit::text_or_empty(given.checkpoint);
    chosen.memory_limit = given.memory_limit;
    set_callbacks(given, &chosen);
    auto learned = std::make_unique<bitfit_learned>();
    bitfit::check(trainer->trainer->learn(chosen, &learned->row));
    made = learned.release();
  });
  report(status, error);
  return made;
}

const void* bitfit_learned_row(const bitfit_learned* learned, size_t* size) {
  if (size != nullptr) *size = learned == nullptr ? 0 : learned->row.bytes.size();
  return learned == nullptr ? nullptr : learned->row.bytes.data();
}

size_t bitfit_learned_epoch(const bitfit_learned* learned) { return learned == nullptr ? 0 : learned->row.best_epoch; }

bitfit_code bitfit_learned_save(const bitfit_learned* learned, const char* path, bitfit_error* error) {
  return report(guard([&] {
                  require(learned, "learned");
                  require(path, "path");
                  bitfit::check(learned->row.save(path));
                }),
                error);
}

void bitfit_learned_free(bitfit_learned* learned) { delete learned; }

}  // extern "C"
