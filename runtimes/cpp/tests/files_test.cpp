// What the library makes of files, for tests. Each answer is a line of JSON.
//
//     files_test manifests FILE...             {"code", "message"} of each manifest
//     files_test rows LAYOUT FILE...           the status of each row, compared with the layout of a manifest
//     files_test signed KEYS FILE...           the fault of the signature of each file, for keys with commas between
//     files_test questions TASK FILE...        {"questions"} of each file of JSON lines, or {"error"}
//     files_test external MODEL...             the files that each ONNX model names
//     files_test unchanged BUNDLE              checks a bundle's files, and again after a line of stdin
//     files_test answers INDEX                 the answers to each case of logits in conformance/answers
//     files_test batches INDEX                 the batches of each case in conformance/batches
//     files_test crc                           compares CRC-32C with and without the processor's instruction
//     files_test sha                           SHA-256 of each line of stdin with and without the instructions, whole
//                                              and in pieces
//     files_test integers                      the int32 of each line of stdin, {"values", "scales"}
//     files_test shown                         how each line of stdin, a JSON string, is shown in a message

#include "batches.h"
#include "bundle_files.h"
#include "crc32c.h"
#include "external_data.h"
#include "failure.h"
#include "manifest.h"
#include "predictions.h"
#include "program.h"
#include "questions.h"
#include "read_file.h"
#include "record.h"
#include "row_values.h"
#include "sha256.h"
#include "signatures.h"

#include <fstream>
#include <iostream>
#include <nlohmann/json.hpp>
#include <random>
#include <sstream>

namespace {

using bitfit::Status;
using bitfit::text_in;
using nlohmann::json;

constexpr std::uint64_t any_size = std::uint64_t{1} << 40;

json json_of(const Status& status) {
  return {{"code", static_cast<int>(status.code)}, {"message", status.text()}, {"hint", status.hint}};
}

json read_manifest(const std::string& path) {
  return json_of(bitfit::guard([&] { bitfit::parse_manifest(text_in(bitfit::read_file(path, any_size)), path); }));
}

bitfit::Layout read_layout(const std::string& path) {
  const bitfit::Document document(text_in(bitfit::read_file(path, any_size)), path);
  return bitfit::layout_of(document.root());
}

json read_row(const bitfit::Layout& layout, const std::string& path) {
  const bitfit::Bytes bytes = bitfit::read_file(path, any_size);
  bitfit::BiasRowView row;
  bitfit::RowProblem problem;
  bitfit::RowStatus status = bitfit::read_bias_row(bytes.data(), bytes.size(), &row, &problem);
  if (status == bitfit::RowStatus::ok) status = layout.check(row, &problem);
  if (status != bitfit::RowStatus::ok && problem.status != status) return "the problem has another status";
  return static_cast<int>(status);
}

json questions_of(const std::string& path, const std::string& task) {
  std::ifstream stream(path, std::ios::binary);
  json questions = json::array();
  try {
    Questions source(stream, path, task);
    for (Question question; source.next(&question);) {
      json found = {{"task", question.task}};
      if (question.text.words.empty()) {
        found["text"] = question.text.first;
        if (question.text.second) found["text_pair"] = *question.text.second;
      } else {
        found["tokens"] = question.text.words;
      }
      questions.push_back(found);
    }
  } catch (const Error& error) {
    return {{"error", error.message}};
  }
  return {{"questions", questions}};
}

json files_of(const std::string& path) {
  json found;
  const Status status = bitfit::guard([&] {
    const bitfit::ExternalFiles files = bitfit::external_files(text_in(bitfit::read_file(path, any_size)));
    found = {{"weights", files.weights}, {"binaries", files.binaries}};
  });
  return status.ok() ? found : json_of(status);
}

int convert() {
  for (std::string line; std::getline(std::cin, line);) {
    const json biases = json::parse(line);
    const auto values = biases["values"].get<std::vector<float>>();
    std::vector<std::int32_t> integers(values.size());
    const std::size_t saturated =
        bitfit::to_integers(values.data(), biases["scales"].get<std::vector<float>>(), integers.data());
    std::cout << json{{"integers", integers}, {"saturated", saturated}}.dump() << '\n';
  }
  return 0;
}

json check_twice(const std::string& bundle) {
  return json_of(bitfit::guard([&] {
    const auto manifest =
        bitfit::parse_manifest(text_in(bitfit::read_file(bundle + "/manifest.json", any_size)), bundle);
    const bitfit::BundleFiles files(bundle, manifest, manifest.infer(), false);
    std::cout << "checked" << std::endl;
    std::string line;
    std::getline(std::cin, line);
    files.check_unchanged();
  }));
}

json fault_of(const std::string& keys, const std::string& path) {
  std::vector<std::string> trusted;
  std::stringstream words(keys);
  for (std::string key; std::getline(words, key, ',');) trusted.push_back(key);
  const Status status =
      bitfit::guard([&] { bitfit::TrustedKeys(trusted).check(bitfit::read_file(path, any_size), path); });
  return {{"code", static_cast<int>(status.code)},
          {"fault", static_cast<int>(status.signature_fault)},
          {"message", status.message},
          {"hint", status.hint}};
}

bitfit::Tokens tokens_of(const json& list) {
  bitfit::Tokens tokens;
  for (const json& each : list) {
    bitfit::Token token;
    if (!each[0].is_null()) token.side = each[0].get<std::int32_t>();
    if (!each[1].is_null()) token.word = each[1].get<std::int32_t>();
    token.start = each[2].get<std::uint32_t>();
    token.end = each[3].get<std::uint32_t>();
    tokens.push_back(token);
  }
  return tokens;
}

// A list of lists of numbers, one after the other.
std::vector<float> flat(const json& lists) {
  std::vector<float> values;
  for (const json& list : lists) {
    for (const json& value : list) values.push_back(value.get<float>());
  }
  return values;
}

bitfit::Result answers_to(const json& one) {
  bitfit::TaskInfo task;
  const std::string kind = one["problem_type"];
  for (const auto type : {bitfit::ProblemType::single_label, bitfit::ProblemType::multi_label,
                          bitfit::ProblemType::regression, bitfit::ProblemType::token, bitfit::ProblemType::span}) {
    if (kind == bitfit::problem_type_name(type)) task.problem_type = type;
  }
  task.labels = one["labels"].get<std::vector<std::string>>();
  task.label_count = std::max<std::uint32_t>(1, static_cast<std::uint32_t>(task.labels.size()));
  if (kind == "token") {
    bitfit::Text text;
    if (one.contains("words")) text.words = one["words"].get<std::vector<std::string>>();
    if (one.contains("text")) text.first = one["text"];
    return bitfit::label_words(task, flat(one["logits"]).data(), task.label_count, tokens_of(one["tokens"]), text);
  }
  if (kind != "span") return bitfit::rank_labels(task, one["logits"].get<std::vector<float>>().data());
  constexpr std::size_t all = 1000;
  bitfit::Result answers;
  for (const json& window : one["windows"]) {
    const bitfit::Result found =
        bitfit::find_answers(flat(window["logits"]).data(), task.label_count, tokens_of(window["tokens"]),
                             one["context"], one["max_answer_tokens"].get<std::size_t>(), all);
    for (const bitfit::Prediction& answer : found) bitfit::add_answer(answer, all, &answers);
  }
  return answers;
}

int answer(const std::string& path) {
  std::ifstream stream(path);
  for (const json& one : json::parse(stream)) {
    json list = json::array();
    for (const bitfit::Prediction& each : answers_to(one)) {
      list.push_back({{"label", each.label},
                      {"score", each.score},
                      {"text", each.text},
                      {"start", each.start},
                      {"end", each.end}});
    }
    std::cout << list.dump() << '\n';
  }
  return 0;
}

// At every start and size near those that the processor's instruction is used for, and in pieces.
int check_crc() {
  const auto fast = bitfit::detail::crc32c_with_instruction();
  std::mt19937 random(0);
  bitfit::Bytes bytes(40'000);
  for (std::uint8_t& byte : bytes) byte = static_cast<std::uint8_t>(random());
  int wrong = 0;
  for (std::size_t size = 0; size <= bytes.size(); size += size < 64 ? 1 : 1021) {
    const std::uint8_t* const start = bytes.data() + size % 8;
    const std::size_t count = std::min(size, bytes.size() - 8);
    const std::uint32_t expected = bitfit::detail::crc32c(start, count);
    bitfit::Crc32c whole, pieces;
    whole.update(start, count);
    pieces.update(start, count / 3);
    pieces.update(start + count / 3, count - count / 3);
    const std::uint32_t slow = bitfit::detail::crc32c_without_instruction(0xFFFFFFFFu, start, count) ^ 0xFFFFFFFFu;
    wrong += whole.value() != expected || pieces.value() != expected || slow != expected;
  }
  std::cout << json{{"wrong", wrong}, {"instruction", fast != nullptr}}.dump() << '\n';
  return wrong == 0 ? 0 : 1;
}

int hash_lines() {
  using bitfit::detail::sha256_with_instructions;
  using bitfit::detail::sha256_without_instructions;
  std::vector<bitfit::detail::Sha256Step> steps = {sha256_without_instructions};
  if (sha256_with_instructions() != nullptr) steps.push_back(sha256_with_instructions());
  for (std::string line; std::getline(std::cin, line);) {
    json digests = json::array();
    for (const auto step : steps) {
      bitfit::Sha256 whole(step), pieces(step);
      whole.update(line);
      const std::string_view text = line;
      for (std::size_t at = 0, size = 1; at < text.size(); at += size, size = size * 2 + 1) {
        pieces.update(text.substr(at, size));
      }
      digests.push_back(bitfit::hex_of(whole.finish()));
      digests.push_back(bitfit::hex_of(pieces.finish()));
    }
    std::cout << digests.dump() << '\n';
  }
  return 0;
}

int plan(const std::string& index) {
  for (const json& each : json::parse(text_in(bitfit::read_file(index, any_size)))) {
    const auto lengths = each["lengths"].get<std::vector<std::size_t>>();
    std::vector<std::string> groups(lengths.size());
    if (each.contains("groups")) groups = each["groups"].get<std::vector<std::string>>();
    const auto batches = bitfit::plan_batches(lengths, groups, each["batch_size"].get<std::size_t>(),
                                              each["batch_tokens"].get<std::size_t>());
    std::cout << json(batches).dump() << '\n';
  }
  return 0;
}

int show() {
  for (std::string line; std::getline(std::cin, line);) {
    std::cout << json(bitfit::shown(json::parse(line).get<std::string>())).dump() << '\n';
  }
  return 0;
}

}  // namespace

int main(int count, char** words) {
  const std::string what = count > 1 ? words[1] : "";
  if (what == "crc") return check_crc();
  if (what == "sha") return hash_lines();
  if (what == "shown") return show();
  if (what == "integers") return convert();
  if (what == "answers") return answer(words[2]);
  if (what == "batches") return plan(words[2]);
  const bool has_context = what == "rows" || what == "questions" || what == "signed";
  bitfit::Layout layout;
  if (what == "rows") layout = read_layout(words[2]);
  for (int i = has_context ? 3 : 2; i < count; ++i) {
    const std::string path = words[i];
    const json found = what == "manifests"   ? read_manifest(path)
                       : what == "rows"      ? read_row(layout, path)
                       : what == "questions" ? questions_of(path, words[2])
                       : what == "signed"    ? fault_of(words[2], path)
                       : what == "unchanged" ? check_twice(path)
                                             : files_of(path);
    std::cout << found.dump() << '\n';
  }
  return 0;
}
