#include "engine_choice.h"

#include <bitfit/onnxruntime.h>
#include <bitfit/qnn.h>

#include "program.h"

#include <cstdio>

#if __has_include(<unistd.h>)
#include <unistd.h>
#endif

void EngineChoice::add_option(const std::string& word) {
  const std::size_t equals = word.find('=');
  if (equals == 0 || equals == std::string::npos) {
    refuse("--engine-option is " + bitfit::shown(word) + ", expected NAME=VALUE");
  }
  const std::string option = word.substr(0, equals);
  if (!options.emplace(option, word.substr(equals + 1)).second) {
    refuse("--engine-option has " + bitfit::shown(option) + " twice, expected one value");
  }
}

std::shared_ptr<const bitfit::Engine> EngineChoice::make() const {
  if (name.empty() && !options.empty()) refuse("--engine-option is there without --engine, expected both");
  if (name.empty()) return nullptr;
  std::shared_ptr<const bitfit::Engine> engine;
  if (name == "onnxruntime") {
    if (!options.empty()) refuse("the engine onnxruntime has no options here, expected none");
    check(bitfit::make_onnxruntime_engine({}, &engine));
  } else if (name == "qnn") {
    bitfit::QnnOptions chosen;
    for (const auto& [option, value] : options) {
      if (option == "library") {
        chosen.library = value;
      } else if (option == "htp_arch") {
        chosen.htp_arch = number_of("htp_arch", value);
      } else {
        refuse("the engine qnn has no option " + bitfit::shown(option) + ", expected one of htp_arch, library");
      }
    }
    check(bitfit::make_qnn_engine(chosen, &engine));
  } else {
    refuse("the engine is " + bitfit::shown(name) + ", expected one of onnxruntime, qnn");
  }
  return engine;
}

#if __has_include(<unistd.h>)

StdoutIsStderr::StdoutIsStderr() : kept_(dup(STDOUT_FILENO)) {
  if (kept_ >= 0) dup2(STDERR_FILENO, STDOUT_FILENO);
}

StdoutIsStderr::~StdoutIsStderr() {
  if (kept_ < 0) return;
  std::fflush(stdout);
  dup2(kept_, STDOUT_FILENO);
  close(kept_);
}

#else

StdoutIsStderr::StdoutIsStderr() = default;
StdoutIsStderr::~StdoutIsStderr() = default;

#endif
