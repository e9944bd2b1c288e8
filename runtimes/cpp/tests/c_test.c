/* The C API from C:  c_test BUNDLE TASK TEXT ROW [KEY [STATE]]  prints the answer of TASK to TEXT as "label score", then the logits
 * of a small batch, then what wrong calls say, then the loaded tasks. ROW is the task's row file. */

#include <bitfit/bitfit.h>
#include <stdio.h>
#include <stdlib.h>

static char row[1 << 22];

static int fail(const bitfit_error* error) {
  fprintf(stderr, "%d: %s (%s)\n", (int)error->code, error->message, error->hint);
  return 1;
}

static size_t read_row(const char* path) {
  FILE* file = fopen(path, "rb");
  size_t size = 0;
  if (file == NULL) return 0;
  size = fread(row, 1, sizeof row, file);
  fclose(file);
  return size;
}

/* Whether each function with a NULL argument says so. */
static void print_null_calls(bitfit_session* session) {
  const uint8_t digest[32] = {0};
  bitfit_row found;
  bitfit_error error;
  printf("%d %d %d ", bitfit_row_read(NULL, 1, digest, 1, &found),
         bitfit_row_read(row, BITFIT_ROW_HEADER_SIZE, NULL, 1, &found),
         bitfit_row_read(row, BITFIT_ROW_HEADER_SIZE, digest, 1, NULL));
  printf("%d %s ", bitfit_row_read(NULL, 0, digest, 1, &found), bitfit_row_status_text(BITFIT_ROW_NULL_ARGUMENT));
  printf("%d ", bitfit_row_value(NULL, 0) != bitfit_row_value(NULL, 0));
  printf("%d ", bitfit_open(NULL, 1, &error) == NULL && error.code == BITFIT_USAGE_ERROR);
  printf("%d ", bitfit_open_with("x", NULL, &error) == NULL && error.code == BITFIT_USAGE_ERROR);
  printf("%d ", bitfit_list_tasks(NULL, &error) == NULL && error.code == BITFIT_USAGE_ERROR);
  printf("%d ", bitfit_max_tokens(NULL) == 0 && bitfit_logits_capacity(NULL, 1, 1) == 0);
  printf("%d ", (int)bitfit_load_task(session, NULL, NULL, &error));
  printf("%d\n", (int)bitfit_run(session, NULL, 1, NULL, NULL, NULL, NULL));
}

/* The number of tokens and of values that a run of 2 texts needs, then a line for each task. */
static int print_tasks(const bitfit_session* session) {
  bitfit_error error;
  bitfit_task_list* list = bitfit_list_tasks(session, &error);
  size_t i, label;
  if (list == NULL) return fail(&error);
  printf("%u %u\n", (unsigned)bitfit_max_tokens(session), (unsigned)bitfit_logits_capacity(session, 2, 8));
  for (i = 0; i < list->count; ++i) {
    const bitfit_task* task = &list->tasks[i];
    printf("%s %u %u %u", task->name, (unsigned)task->problem_type, (unsigned)task->label_count,
           (unsigned)task->task_version);
    for (label = 0; task->labels != NULL && label < task->label_count; ++label) printf(" %s", task->labels[label]);
    printf("\n");
  }
  bitfit_task_list_free(list);
  return 0;
}

int main(int count, char** words) {
  bitfit_error error;
  bitfit_session* session;
  bitfit_workspace* workspace;
  char label[64];
  double score;
  const int64_t ids[4] = {1, 2, 3, 4}, mask[4] = {1, 1, 1, 0};
  float values[64];
  bitfit_batch batch = {ids, mask, NULL, 2, 2};
  bitfit_logits logits = {values, 64, 0, 0, 0};
  const char* tasks[1];
  const char* keys[1];
  bitfit_options options = {0};
  size_t i, size;
  if (count < 5) return 2;
  options.size = sizeof options;
  options.threads = 1;
  options.check_hashes = 1;
  if (count >= 7) options.state = words[6];
  if (count >= 6) {
    options.trusted_keys = keys;
    options.trusted_key_count = 1;
    keys[0] = words[5];
  }
  session = bitfit_open_with(words[1], &options, &error);
  if (session == NULL) return fail(&error);
  if (bitfit_predict(session, words[2], words[3], NULL, label, sizeof label, &score, &error)) return fail(&error);
  printf("%s %.6f\n", label, score);

  size = read_row(words[4]);
  if (count > 5) { /* with a trusted key: what a row in memory and a row file of it are told */
    printf("%d ", (int)bitfit_load_task_bytes(session, row, size, "copy", &error));
    printf("%d %s\n", (int)bitfit_load_task(session, words[4], "copy", &error), error.message);
    bitfit_close(session);
    return 0;
  }
  if (bitfit_load_task_bytes(session, row, size, "copy", &error)) return fail(&error);
  if (bitfit_load_task(session, words[4], "copy", &error)) return fail(&error);
  row[size - 1] ^= 1;
  printf("%s\n", bitfit_load_task_bytes(session, row, size, "copy", &error) == BITFIT_ROW_ERROR ? "refused" : "taken");

  workspace = bitfit_workspace_new();
  tasks[0] = "copy";
  batch.items = 1;
  batch.tokens = 4;
  if (bitfit_run(session, tasks, 1, &batch, workspace, &logits, &error)) return fail(&error);
  for (i = 0; i < logits.items * logits.labels; ++i) printf("%s%.6f", i ? " " : "", (double)values[i]);
  printf("\n");
  if (bitfit_unload_task(session, "copy", &error)) return fail(&error);
  printf("%d ", (int)bitfit_run(session, tasks, 1, &batch, workspace, &logits, &error));
  printf("%s\n", error.message);
  printf("%d %s\n", (int)bitfit_predict(session, "\033[2J\nerror: forged", "text", NULL, NULL, 0, NULL, &error),
         error.message);
  print_null_calls(session);
  if (print_tasks(session)) return 1;
  bitfit_workspace_free(workspace);
  bitfit_close(session);
  return 0;
}
