// The options of programs that run a bundle on an engine of the caller's choice.

#ifndef BITFIT_APPS_ENGINE_CHOICE_H
#define BITFIT_APPS_ENGINE_CHOICE_H

#include <bitfit/engine.h>

#include <map>
#include <memory>
#include <string>

// What --engine and --engine-option say.
struct EngineChoice {
  std::string name;  // empty: the one that the bundle's target has by default
  std::map<std::string, std::string> options;

  // Take a value of --engine-option. Fails with an Error where it is not NAME=VALUE, or the name is there already.
  void add_option(const std::string& word);

  // The engine; null for the default. Fails with an Error.
  std::shared_ptr<const bitfit::Engine> make() const;
};

// What an accelerator's library prints to stdout, which has a program's answers, goes to stderr while this lives.
class StdoutIsStderr {
 public:
  StdoutIsStderr();
  ~StdoutIsStderr();
  StdoutIsStderr(const StdoutIsStderr&) = delete;
  StdoutIsStderr& operator=(const StdoutIsStderr&) = delete;

 private:
  int kept_ = -1;
};

#endif  // BITFIT_APPS_ENGINE_CHOICE_H
