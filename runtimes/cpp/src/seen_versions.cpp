#include "seen_versions.h"

#include "failure.h"
#include "file_lock.h"
#include "json.h"
#include "manifest.h"
#include "read_file.h"
#include "write_file.h"

#include <algorithm>
#include <filesystem>
#include <nlohmann/json.hpp>

namespace bitfit {
namespace {

using nlohmann::json;

constexpr int format_version = 1;
constexpr std::uint64_t largest_file = std::uint64_t{1} << 24;

[[noreturn]] void refuse_state(const std::string& path, const std::string& reason) {
  fail(StatusCode::usage_error, text_of(path, " does not have the versions of tasks: ", reason),
       "restore it; without it older rows are accepted again");
}

std::uint32_t version_of(const std::string& path, const std::string& task, const json& value) {
  const bool is_version = value.is_number_unsigned() || (value.is_number_integer() && value.get<std::int64_t>() >= 0);
  if (!is_task_name(task) || !is_version || value.get<std::uint64_t>() == 0) {
    refuse_state(path, text_of('"', shown(task), "\" has ", shown(value.dump()), ", expected a version from 1"));
  }
  return static_cast<std::uint32_t>(std::min<std::uint64_t>(value.get<std::uint64_t>(), UINT32_MAX));
}

Versions versions_in(std::string_view text, const std::string& path) {
  json value;
  try {
    value = parse_json(text);
  } catch (const JsonError& error) {
    refuse_state(path, "it " + error.message);
  }
  const auto member = [&](const char* name) -> const json& {
    static const json nothing;
    const auto found = value.is_object() ? value.find(name) : value.end();
    return value.is_object() && found != value.end() ? *found : nothing;
  };
  if (member("format_version") != format_version || !member("tasks").is_object()) {
    refuse_state(path, text_of("expected tasks in format ", format_version));
  }
  Versions versions;
  for (const auto& [task, version] : member("tasks").items()) versions[task] = version_of(path, task, version);
  return versions;
}

Versions read_versions(const std::string& path) {
  std::error_code error;
  if (std::filesystem::status(path, error).type() == std::filesystem::file_type::not_found) return {};
  Bytes file;
  const Status read = guard([&] { file = read_file(path, largest_file); });
  if (!read.ok()) fail(StatusCode::usage_error, "the versions in " + read.message);
  return versions_in(text_in(file), path);
}

// Beside the file, as the Python package names it.
std::string lock_of(const std::string& path) {
  const std::filesystem::path file(path);
  return (file.parent_path() / ("." + file.filename().string() + ".lock")).string();
}

}  // namespace

SeenVersions::SeenVersions(std::string path) : path_(std::move(path)), seen_(read_versions(path_)) {}

void SeenVersions::take(const Versions& versions) {
  const std::lock_guard<std::mutex> guarded(mutex_);
  const auto is_known = [&](const Versions& seen) {
    return std::all_of(versions.begin(), versions.end(), [&](const auto& each) {
      const auto found = seen.find(each.first);
      return found != seen.end() && found->second == each.second;
    });
  };
  if (is_known(seen_)) return;
  const FileLock lock(lock_of(path_), text_of(path_, " is in use by another process"));
  Versions seen = read_versions(path_);
  for (const auto& [task, version] : versions) {
    const auto found = seen.find(task);
    if (found == seen.end() || version >= found->second) continue;
    fail(StatusCode::input_error,
         text_of("the task ", task, " has version ", version, ", expected ", found->second,
                 " or more, the version that ", path_, " has seen"),
         text_of("take ", task, " out of that file to go back to an older version"));
  }
  if (!is_known(seen)) {
    for (const auto& [task, version] : versions) seen[task] = version;
    const std::string text = json{{"format_version", format_version}, {"tasks", seen}}.dump(2) + "\n";
    write_file(path_, text.data(), text.size());
  }
  seen_ = std::move(seen);
}

}  // namespace bitfit
