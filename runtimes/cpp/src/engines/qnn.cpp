#include <bitfit/qnn.h>

#include "failure.h"

#include <onnxruntime_cxx_api.h>
#if ORT_API_VERSION >= 22

#include "ort_program.h"
#include "qnn_library.h"

#include <algorithm>
#include <charconv>
#include <filesystem>
#include <mutex>
#include <optional>
#include <utility>

namespace bitfit {
namespace {

constexpr int known_arches[] = {69, 73, 75, 79, 81};
constexpr const char* export_here = "export the bundle again with the onnxruntime-qnn that runs it";

// Of an SDK, such as 2.51.0: its first two numbers, by which releases go together.
std::optional<std::pair<int, int>> release_of(const std::string& sdk) {
  std::pair<int, int> release;
  const char* const end = sdk.data() + sdk.size();
  const auto major = std::from_chars(sdk.data(), end, release.first);
  if (major.ec != std::errc() || major.ptr == end || *major.ptr != '.') return std::nullopt;
  const auto minor = std::from_chars(major.ptr + 1, end, release.second);
  return minor.ec == std::errc() ? std::optional(release) : std::nullopt;
}

// A context binary runs with the SDK that made it, or with a later one of the same major version.
void check_release(const Accelerator& program, const std::string& library) {
  const auto made = release_of(program.sdk), own = release_of(library);
  if (!own) return;  // the library does not say, and is left to refuse what it cannot load
  if (!made) {
    fail(StatusCode::bundle_error,
         text_of("the bundle's SDK is \"", shown(program.sdk), "\", expected a version such as ", library));
  }
  if (made->first == own->first && *made <= *own) return;
  fail(StatusCode::bundle_error,
       text_of("the bundle was compiled with QNN ", shown(program.sdk), ", this is QNN ", shown(library),
               ", which cannot load it"),
       text_of("install a later onnxruntime-qnn, or ", export_here));
}

// One run at a time, as the HTP does.
class QnnProgram final : public Program {
 public:
  QnnProgram(std::unique_ptr<Program> program, bool emulated) : program_(std::move(program)), emulated_(emulated) {}

  const GraphInfo& graph() const override { return program_->graph(); }
  bool emulated() const override { return emulated_; }
  std::string device() const override {
    return emulated_ ? "Qualcomm's emulator of the HTP (no NPU)" : "the HTP of this device";
  }

  Status bind(const InputArray* arrays, std::size_t count, std::unique_ptr<Bound>* out) const override {
    return program_->bind(arrays, count, out);
  }

  Status run(const Call& call) const override {
    const std::lock_guard<std::mutex> guard(running_);
    return program_->run(call);
  }

 private:
  std::unique_ptr<Program> program_;
  bool emulated_;
  mutable std::mutex running_;
};

class QnnEngine final : public Engine {
 public:
  explicit QnnEngine(QnnOptions options) : options_(std::move(options)) {
    if (options_.htp_arch != 0 &&
        std::find(std::begin(known_arches), std::end(known_arches), options_.htp_arch) == std::end(known_arches)) {
      fail(StatusCode::usage_error, text_of("the option htp_arch of the engine qnn is ", options_.htp_arch,
                                            ", expected one of 69, 73, 75, 79, 81"));
    }
    library_ = &QnnLibrary::load(options_.library);
  }

  const char* name() const override { return "qnn"; }
  std::vector<std::string> targets() const override { return {"qnn"}; }

  // Qualcomm's library parses the context binary and trusts it: the session has compared it with the manifest.
  Status open(const ProgramFiles& files, int, std::unique_ptr<Program>* out) const override {
    return guard([&] {
      if (files.accelerator == nullptr) {
        fail(StatusCode::bundle_error,
             text_of(files.path, " was not compiled for an accelerator, expected a bundle of --target qnn"));
      }
      const Accelerator& made = *files.accelerator;
      check_release(made, library_->sdk());
      check_arch(made);
      try {
        Ort::Session session(library_->environment()->env, files.model, files.model_size, options_for(files, made));
        auto program = make_ort_program(library_->environment(), std::move(session), "the HTP");
        *out = std::make_unique<QnnProgram>(std::move(program), library_->emulates());
      } catch (const Ort::Exception& error) {
        fail(StatusCode::bundle_error,
             text_of("the program ", files.path, " cannot be loaded: ", first_line(error.what())),
             text_of("copy the bundle again, or ", export_here));
      }
    });
  }

 private:
  void check_arch(const Accelerator& made) const {
    if (options_.htp_arch == 0 || static_cast<std::uint32_t>(options_.htp_arch) == made.arch) return;
    fail(StatusCode::bundle_error,
         text_of("the bundle was compiled for the HTP ", made.arch, " of ", shown(made.soc), ", this device has ",
                 options_.htp_arch),
         text_of("export the bundle with --htp-arch ", options_.htp_arch));
  }

  Ort::SessionOptions options_for(const ProgramFiles& files, const Accelerator& made) const {
    Ort::SessionOptions options;
    options.SetLogSeverityLevel(ORT_LOGGING_LEVEL_FATAL);  // its failures are reported
    // ONNX Runtime gets the model as bytes; the binary is looked for beside this path.
    options.AddConfigEntry("ep.context_file_path", std::filesystem::absolute(files.path).string().c_str());
    library_->add_to(&options,
                     {{"soc_model", std::to_string(made.soc_model)}, {"htp_arch", std::to_string(made.arch)}});
    return options;
  }

  QnnOptions options_;
  const QnnLibrary* library_ = nullptr;
};

}  // namespace

Status make_qnn_engine(const QnnOptions& options, std::shared_ptr<const Engine>* out) noexcept {
  return guard([&] { *out = std::make_shared<QnnEngine>(options); });
}

}  // namespace bitfit

#else

namespace bitfit {

Status make_qnn_engine(const QnnOptions&, std::shared_ptr<const Engine>*) noexcept {
  return guard([] {
    fail(StatusCode::usage_error, text_of("this library was built for ONNX Runtime 1.", ORT_API_VERSION,
                                          ", expected 1.22 or later for the engine qnn"));
  });
}

}  // namespace bitfit

#endif
