// A complete application: it opens a bundle once, answers each line of stdin for every sentence task that was asked
// for, and takes a new row when a file appears, without a pause.
//
//     moderate BUNDLE NEW_ROW TASK...
//
// For each line it prints a line: the task, the label and the score, for each task. When NEW_ROW can be read, it is
// loaded in place of its task; a row that is damaged or was made for another model is reported, and the old one stays.

#include <bitfit/session.h>

#include <cstdio>
#include <fstream>
#include <iostream>
#include <memory>
#include <string>
#include <vector>

namespace {

int report(const bitfit::Status& status) {
  std::fprintf(stderr, "error: %s\n", status.text().c_str());
  if (!status.hint.empty()) std::fprintf(stderr, "hint: %s\n", status.hint.c_str());
  return 2;
}

// Load a row that has arrived; true until it was tried.
bool waits_for_row(bitfit::Session* session, const std::string& path) {
  if (!std::ifstream(path)) return true;
  const bitfit::Status status = session->load_task(path);
  if (status.ok()) {
    std::fprintf(stderr, "loaded %s\n", path.c_str());
  } else {
    report(status);
  }
  return false;
}

}  // namespace

int main(int count, char** words) {
  if (count < 4) {
    std::fprintf(stderr, "usage: moderate BUNDLE NEW_ROW TASK...\n");
    return 2;
  }
  const std::string new_row = words[2];
  const std::vector<std::string> tasks(words + 3, words + count);

  std::unique_ptr<bitfit::Session> session;
  bitfit::SessionOptions options;
  options.threads = 1;
  bitfit::Status status = bitfit::Session::open(words[1], options, &session);
  if (!status.ok()) return report(status);

  bool waits = true;
  std::vector<bitfit::Result> results;
  for (std::string line; std::getline(std::cin, line);) {
    if (waits) waits = waits_for_row(session.get(), new_row);
    // The same text for every task is one batch, in which every item is another task.
    const std::vector<bitfit::Text> texts(tasks.size(), bitfit::Text{line});
    status = session->predict(texts, tasks, {}, &results);
    if (!status.ok()) return report(status);
    for (std::size_t i = 0; i < tasks.size(); ++i) {
      const bitfit::Prediction& answer = results[i].front();
      std::printf("%s%s %s %.6f", i == 0 ? "" : "  ", tasks[i].c_str(), answer.label.c_str(), answer.score);
    }
    std::printf("\n");
  }
  return 0;
}
