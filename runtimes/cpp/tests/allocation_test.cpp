// Counts what a run allocates outside of ONNX Runtime: after the first run of a shape, nothing.
//
//     allocation_test BUNDLE TASK...       batches of one task, and of one task per item where there are several
//
// Every operator new of the program comes here. ONNX Runtime is reached by a table of functions, of which this program
// gives out a copy: within one of these that a run calls, allocations are ONNX Runtime's own.

#include <bitfit/session.h>

#include <onnxruntime_cxx_api.h>
#include <cstdio>
#include <cstdlib>
#include <new>

namespace {

thread_local int inside = 0;  // functions of ONNX Runtime
thread_local long allocations = 0;

OrtApi api;
const OrtApi* real = nullptr;

struct Inside {
  Inside() { ++inside; }
  ~Inside() { --inside; }
};

OrtStatusPtr ORT_API_CALL run(OrtSession* session, const OrtRunOptions* options, const char* const* input_names,
                              const OrtValue* const* inputs, size_t input_count, const char* const* output_names,
                              size_t output_count, OrtValue** outputs) NO_EXCEPTION {
  const Inside mark;
  return real->Run(session, options, input_names, inputs, input_count, output_names, output_count, outputs);
}

OrtStatusPtr ORT_API_CALL create_tensor(const OrtMemoryInfo* info, void* data, size_t size, const int64_t* shape,
                                        size_t rank, ONNXTensorElementDataType type, OrtValue** out) NO_EXCEPTION {
  const Inside mark;
  return real->CreateTensorWithDataAsOrtValue(info, data, size, shape, rank, type, out);
}

void ORT_API_CALL release_value(OrtValue* value) NO_EXCEPTION {
  const Inside mark;
  real->ReleaseValue(value);
}

void* allocate(std::size_t size) {
  if (inside == 0) ++allocations;
  if (void* const memory = std::malloc(size == 0 ? 1 : size)) return memory;
  std::abort();
}

void require(const bitfit::Status& status) {
  if (status.ok()) return;
  std::fprintf(stderr, "%s\n", status.text().c_str());
  std::exit(2);
}

}  // namespace

void* operator new(std::size_t size) { return allocate(size); }
void* operator new[](std::size_t size) { return allocate(size); }
void operator delete(void* memory) noexcept { std::free(memory); }
void operator delete[](void* memory) noexcept { std::free(memory); }
void operator delete(void* memory, std::size_t) noexcept { std::free(memory); }
void operator delete[](void* memory, std::size_t) noexcept { std::free(memory); }

int main(int count, char** words) {
  if (count < 3) return 2;
  real = &Ort::GetApi();
  api = *real;
  api.Run = run;
  api.CreateTensorWithDataAsOrtValue = create_tensor;
  api.ReleaseValue = release_value;
  Ort::Global<void>::api_ = &api;

  std::unique_ptr<bitfit::Session> session;
  bitfit::SessionOptions options;
  options.threads = 1;
  require(bitfit::Session::open(words[1], options, &session));
  const std::vector<std::string_view> tasks(words + 2, words + count);
  const std::size_t items = tasks.size() == 1 ? 3 : tasks.size(), tokens = 8;
  const std::vector<std::int64_t> ids(items * tokens, 7), mask(items * tokens, 1);
  const bitfit::Batch batch{ids.data(), mask.data(), nullptr, items, tokens};
  std::vector<float> values(session->logits_capacity(items, tokens));
  bitfit::Logits logits{values.data(), values.size(), 0, 0, 0};
  bitfit::Workspace workspace;
  std::vector<std::vector<float>> room;
  std::vector<bitfit::Output> outputs;
  for (const std::string& name : session->outputs()) {
    std::vector<float>& of = room.emplace_back(session->output_capacity(name, items, tokens));
    outputs.push_back({name, {of.data(), of.size(), 0, 0, 0}});
  }
  long first = 0, later = 0;
  for (int i = 0; i < 10; ++i) {
    allocations = 0;
    require(session->run(tasks.data(), tasks.size(), batch, &workspace, &logits));
    require(session->run_outputs(tasks.data(), tasks.size(), batch, &workspace, outputs.data(), outputs.size()));
    (i == 0 ? first : later) += allocations;
  }
  std::printf("{\"first\": %ld, \"later\": %ld}\n", first, later);
  return later == 0 ? 0 : 1;
}
