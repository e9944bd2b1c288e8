/* Engines and outputs of the C API from C:  c_engine_test BUNDLE TASK TOKEN_TASK  prints what wrong options say, then
 * the outputs of a batch of one item of each task, which is run on an engine that two sessions share. */

#include <bitfit/bitfit.h>
#include <stdio.h>
#include <string.h>

static int fail(const bitfit_error* error) {
  fprintf(stderr, "%d: %s (%s)\n", (int)error->code, error->message, error->hint);
  return 1;
}

/* The code and the message of an engine that cannot be. */
static void print_refusal(const bitfit_onnxruntime_options* options) {
  bitfit_error error;
  if (bitfit_onnxruntime_new(options, &error) != NULL) printf("made\n");
  printf("%d %s\n", (int)error.code, error.message);
}

/* The same of Qualcomm's, whose library is not there. */
static void print_no_library(void) {
  bitfit_qnn_options options;
  bitfit_error error;
  memset(&options, 0, sizeof options);
  options.size = sizeof options;
  options.htp_arch = 74;
  if (bitfit_qnn_new(&options, &error) != NULL) printf("made\n");
  printf("%d %s\n", (int)error.code, error.message);
  options.htp_arch = 73;
  options.library = "no/such.so";
  if (bitfit_qnn_new(&options, &error) != NULL) printf("made\n");
  printf("%d %.44s\n", (int)error.code, error.message);
}

static void print_wrong_options(const char* bundle) {
  struct {
    bitfit_options options;
    int later; /* a field of a release that is yet to come */
  } newer;
  const char* const no_key = NULL;
  bitfit_provider provider = {"TPU", NULL, NULL, 0};
  bitfit_onnxruntime_options options;
  bitfit_options old;
  bitfit_error error;
  bitfit_session* session;
  print_refusal(NULL);
  memset(&options, 0, sizeof options);
  print_refusal(&options);
  options.size = sizeof options;
  options.provider_count = 1;
  print_refusal(&options);
  options.providers = &provider;
  print_refusal(&options);
  provider.name = "CPU";
  provider.count = 1;
  print_refusal(&options);
  provider.keys = provider.values = &no_key;
  print_refusal(&options);
  provider.name = NULL;
  print_refusal(&options);
  options.provider_count = 0;
  options.threads = 2;
  print_refusal(&options);

  memset(&newer, 0, sizeof newer);
  newer.options.size = sizeof newer;
  newer.options.threads = 1;
  session = bitfit_open_with(bundle, &newer.options, &error);
  printf("%s\n", session != NULL ? "taken" : error.message);
  bitfit_close(session);
  newer.later = 1;
  session = bitfit_open_with(bundle, &newer.options, &error);
  printf("%d %s\n", (int)error.code, session != NULL ? "taken" : error.message);
  memset(&old, 1, sizeof old); /* beyond its size it is not looked at */
  old.size = sizeof old.size + sizeof old.threads;
  old.threads = 1;
  session = bitfit_open_with(bundle, &old, &error);
  printf("%s\n", session != NULL ? "taken" : error.message);
  bitfit_close(session);
}

static void print_logits(const char* name, const bitfit_logits* logits) {
  const size_t count = logits->items * (logits->tokens == 0 ? 1 : logits->tokens) * logits->labels;
  size_t i;
  printf("%s %u %u %u", name, (unsigned)logits->items, (unsigned)logits->tokens, (unsigned)logits->labels);
  for (i = 0; i < count; ++i) printf(" %.6f", (double)logits->values[i]);
  printf("\n");
}

int main(int count, char** words) {
  const int64_t ids[6] = {1, 2, 3, 4, 5, 6}, mask[6] = {1, 1, 1, 1, 1, 0};
  const bitfit_batch batch = {ids, mask, NULL, 2, 3};
  bitfit_onnxruntime_options engine_options;
  bitfit_options options;
  bitfit_engine* engine;
  bitfit_session *session, *other;
  bitfit_workspace* workspace;
  bitfit_error error;
  static float values[2][256];
  char device[64];
  bitfit_output outputs[2];
  const char* tasks[2];
  size_t i;
  if (count != 4) return 2;
  print_wrong_options(words[1]);
  print_no_library();

  memset(&engine_options, 0, sizeof engine_options);
  engine_options.size = sizeof engine_options;
  engine_options.share_threads = 1;
  engine_options.threads = 1;
  engine = bitfit_onnxruntime_new(&engine_options, &error);
  if (engine == NULL) return fail(&error);
  memset(&options, 0, sizeof options);
  options.size = sizeof options;
  options.engine = engine;
  session = bitfit_open_with(words[1], &options, &error);
  if (session == NULL) return fail(&error);
  other = bitfit_open_with(words[1], &options, &error);
  if (other == NULL) return fail(&error);
  bitfit_engine_free(engine); /* the sessions keep what they need */
  bitfit_close(other);

  bitfit_device(session, device, sizeof device);
  printf("%s\n", device);
  workspace = bitfit_workspace_new();
  tasks[0] = words[2];
  tasks[1] = words[3];
  for (i = 0; bitfit_output_name(session, i) != NULL; ++i) {
    outputs[i].name = bitfit_output_name(session, i);
    outputs[i].logits.values = values[i];
    outputs[i].logits.capacity = bitfit_output_capacity(session, outputs[i].name, 2, 3);
  }
  if (bitfit_run_outputs(session, tasks, 2, &batch, workspace, outputs, i, &error)) return fail(&error);
  while (i-- > 0) print_logits(outputs[i].name, &outputs[i].logits);
  outputs[1].logits.capacity = 1;
  printf("%d ", (int)bitfit_run_outputs(session, tasks, 2, &batch, workspace, outputs, 2, &error));
  printf("%s\n", error.message);
  outputs[0].name = NULL;
  printf("%d %d %d %d\n", (int)bitfit_run_outputs(session, tasks, 2, &batch, workspace, outputs, 2, &error),
         (int)bitfit_run_outputs(session, tasks, 2, &batch, workspace, NULL, 2, &error),
         (int)bitfit_run_outputs(NULL, NULL, 0, NULL, NULL, NULL, 0, NULL),
         bitfit_output_name(NULL, 0) == NULL && bitfit_output_capacity(NULL, "logits", 1, 1) == 0 &&
             bitfit_output_capacity(session, NULL, 1, 1) == 0 && bitfit_output_capacity(session, "x", 1, 1) == 0);
  bitfit_workspace_free(workspace);
  bitfit_close(session);
  bitfit_engine_free(NULL);
  return 0;
}
