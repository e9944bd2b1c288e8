#include "added_tokens.h"

#include "failure.h"

#include <algorithm>

namespace bitfit {

AddedTokens::AddedTokens(const Record& file, const Scheme& scheme) {
  for (const Record& each : file.records("added_tokens")) {
    const std::string content = each.text("content");
    if (each.boolean("single_word")) {
      fail(StatusCode::bundle_error,
           text_of(each.where(), ": single_word is true for \"", shown(content), "\", expected false"));
    }
    Entry entry{{}, each.integer("id"), each.boolean("normalized"), each.boolean("lstrip"), each.boolean("rstrip")};
    if (entry.id < 0 || entry.id > INT32_MAX) {
      fail(StatusCode::bundle_error, text_of(each.where(), ": id is ", entry.id, ", expected 0 or more"));
    }
    Characters characters = decode_utf8(content);
    if (entry.normalized) characters = scheme.normalize(stretch_of(characters));
    for (const Character& character : characters) entry.content += character.code;
    largest_id_ = std::max(largest_id_, entry.id);
    if (!entry.content.empty()) entries_.push_back(std::move(entry));
  }
  const auto longer = [](const Entry& left, const Entry& right) { return left.content.size() > right.content.size(); };
  std::stable_sort(entries_.begin(), entries_.end(), longer);
}

const AddedTokens::Entry* AddedTokens::match(const Character* at, const Character* end,
                                             bool normalized) const noexcept {
  const auto same = [](char32_t wanted, const Character& found) { return wanted == found.code; };
  for (const Entry& entry : entries_) {
    if (entry.normalized != normalized || entry.content.size() > static_cast<std::size_t>(end - at)) continue;
    if (std::equal(entry.content.begin(), entry.content.end(), at, same)) return &entry;
  }
  return nullptr;
}

std::vector<AddedTokens::Part> AddedTokens::cut(Stretch text, bool normalized) const {
  std::vector<Part> parts;
  const Character* start = text.first;  // of the ordinary text before the next token
  for (const Character* at = text.first; at < text.last;) {
    const Entry* const entry = match(at, text.last, normalized);
    if (entry == nullptr) {
      ++at;
      continue;
    }
    const Character* first = at;
    const Character* last = at + entry->content.size();
    while (entry->strip_left && first > start && unicode::is_space(first[-1].code)) --first;
    while (entry->strip_right && last < text.last && unicode::is_space(last->code)) ++last;
    if (first > start) parts.push_back({{start, first}, Part::no_id});
    parts.push_back({{first, last}, entry->id});
    at = start = last;
  }
  if (start < text.last) parts.push_back({{start, text.last}, Part::no_id});
  return parts;
}

}  // namespace bitfit
