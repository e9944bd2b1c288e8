/* Learning from C:  c_learn_test BUNDLE ROW CHECKPOINT  learns the task mood from eight texts and writes its row. It
 * prints the plan, the last step of each epoch and the epoch, the best epoch, an answer of the session with the row, and
 * then what wrong calls say. */

#include <bitfit/learn.h>
#include <stdio.h>
#include <string.h>

static const double bad = 0, good = 1, odd = 2;
static const bitfit_example moods[] = {
    {"good fine lovely", NULL, &good, 1}, {"a lovely day", NULL, &good, 1},   {"fine and good", NULL, &good, 1},
    {"good food", NULL, &good, 1},        {"bad awful", NULL, &bad, 1},       {"an awful day", NULL, &bad, 1},
    {"bad and poor", NULL, &bad, 1},      {"awful people", "or not", &bad, 1}};
static const char* const labels[] = {"bad", "good"};

typedef struct progress {
  size_t ends_at; /* the step that ends learning; 0 for none */
  size_t begun;   /* the first step that was told */
  double loss;
} progress;

static int say_plan(void* context, const bitfit_learning_plan* plan) {
  (void)context;
  printf("plan %u %u %u %d\n", (unsigned)plan->steps, (unsigned)plan->part_items, (unsigned)plan->part_tokens,
         plan->values > 0);
  return 0;
}

static int on_step(void* context, size_t step, size_t steps, double loss) {
  progress* const so_far = context;
  if (so_far->begun == 0) so_far->begun = step;
  so_far->loss = loss;
  return step == so_far->ends_at && step < steps;
}

static int on_epoch(void* context, size_t epoch, const char* metric, double score, double loss) {
  printf("epoch %u %s %.4f %.6f %.6f\n", (unsigned)epoch, metric, score, loss, ((const progress*)context)->loss);
  return 0;
}

static bitfit_learning mood(progress* so_far) {
  bitfit_learning learning;
  memset(&learning, 0, sizeof learning);
  learning.size = sizeof learning;
  learning.task = "mood";
  learning.problem_type = BITFIT_PROBLEM_SINGLE_LABEL;
  learning.labels = labels;
  learning.label_count = 2;
  learning.train = learning.held_out = moods;
  learning.train_count = learning.held_out_count = sizeof moods / sizeof moods[0];
  learning.learning_rate = 5e-3;
  learning.epochs = 3;
  learning.batch_size = 4;
  learning.checkpoint_steps = 1;
  learning.metric = "f1";
  learning.on_step = on_step;
  learning.context = so_far;
  return learning;
}

/* What a learning that cannot be says. */
static void print_refusal(const bitfit_trainer* trainer, const bitfit_learning* learning) {
  bitfit_error error;
  bitfit_learned* const learned = bitfit_learn(trainer, learning, &error);
  printf("%d %s\n", (int)error.code, learned != NULL ? "learnt" : error.message);
  bitfit_learned_free(learned);
}

static void print_wrong_calls(const bitfit_trainer* trainer) {
  progress so_far = {0, 0, 0};
  bitfit_learning learning = mood(&so_far);
  bitfit_example examples[2] = {{"a", NULL, &bad, 1}, {"b", NULL, &odd, 1}};
  bitfit_error error;
  print_refusal(trainer, NULL);
  print_refusal(NULL, &learning);
  learning.train = examples;
  learning.train_count = 2;
  print_refusal(trainer, &learning);
  examples[1].label = NULL;
  print_refusal(trainer, &learning);
  learning.problem_type = BITFIT_PROBLEM_TOKEN;
  examples[1].label = &good;
  print_refusal(trainer, &learning);
  learning.task = NULL;
  print_refusal(trainer, &learning);
  printf("%d %d\n", bitfit_trainer_open(NULL, &error) == NULL && error.code == BITFIT_USAGE_ERROR,
         bitfit_learned_save(NULL, "x", NULL) == BITFIT_USAGE_ERROR && bitfit_learned_row(NULL, NULL) == NULL &&
             bitfit_learned_epoch(NULL) == 0);
}

int main(int count, char** words) {
  bitfit_error error;
  progress first = {4, 0, 0}, second = {0, 0, 0};
  bitfit_learning learning;
  bitfit_session* session;
  bitfit_trainer* trainer;
  bitfit_learned* learned;
  const void* row;
  size_t size;
  char label[16];
  if (count != 4) return 2;
  session = bitfit_open(words[1], 1, &error);
  trainer = session == NULL ? NULL : bitfit_trainer_open(session, &error);
  if (trainer == NULL) {
    printf("%d %s (%s)\n", (int)error.code, error.message, error.hint);
    bitfit_close(session);
    return 0;
  }
  learning = mood(&first); /* which ends at the fourth step */
  learning.checkpoint = words[3];
  print_refusal(trainer, &learning);

  learning.on_plan = say_plan;
  learning.on_epoch = on_epoch;
  learning.context = &second;
  learned = bitfit_learn(trainer, &learning, &error);
  if (learned == NULL || bitfit_learned_save(learned, words[2], &error) != BITFIT_OK) {
    fprintf(stderr, "%d: %s (%s)\n", (int)error.code, error.message, error.hint);
    return 1;
  }
  printf("resumed at %u, best %u\n", (unsigned)second.begun, (unsigned)bitfit_learned_epoch(learned));
  row = bitfit_learned_row(learned, &size);
  if (bitfit_load_task_bytes(session, row, size, "mood", &error) == BITFIT_OK &&
      bitfit_predict(session, "mood", "a lovely day", NULL, label, sizeof label, NULL, &error) == BITFIT_OK) {
    printf("%s\n", label);
  }
  print_wrong_calls(trainer);
  bitfit_learned_free(learned);
  bitfit_trainer_free(trainer);
  bitfit_close(session);
  return 0;
}
