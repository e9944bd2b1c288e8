// GPT-2's and RoBERTa's byte-level BPE: the pre-tokenizer ByteLevel and the model BPE.

#include "failure.h"
#include "scheme.h"

#include <algorithm>
#include <array>
#include <queue>
#include <string>
#include <string_view>
#include <unordered_map>

namespace bitfit {
namespace {

// The vocabulary writes each byte as a character that can be seen: itself where it can be, else the next from U+0100.
std::array<char32_t, 256> byte_characters() {
  std::array<char32_t, 256> characters = {};
  char32_t next = 0x100;
  for (char32_t byte = 0; byte < 256; ++byte) {
    const bool seen = (byte >= 0x21 && byte <= 0x7E) || (byte >= 0xA1 && byte <= 0xAC) || byte >= 0xAE;
    characters[byte] = seen ? byte : next++;
  }
  return characters;
}

struct Merge {
  std::uint32_t rank;
  std::int32_t id;  // of what the two become
};

// A symbol of a word that is being merged, in a list in which merged ones are skipped.
struct Symbol {
  std::int32_t id;
  std::int32_t before, after;  // places in the list, -1 at its ends
  bool gone;
};

struct Candidate {
  std::uint32_t rank;
  std::int32_t left;  // the place of the left symbol
  std::int32_t id;

  bool operator<(const Candidate& other) const noexcept {  // for a queue that gives the largest first
    return rank != other.rank ? rank > other.rank : left > other.left;
  }
};

class ByteLevel final : public Scheme {
 public:
  explicit ByteLevel(const Record& file);

  Characters normalize(Stretch text) const override { return Characters(text.first, text.last); }
  std::vector<Stretch> split(Characters* text, bool in_list) const override;
  void append_ids(Stretch word, std::vector<std::int64_t>* ids) const override;
  std::int64_t largest_id() const noexcept override { return largest_id_; }

 private:
  void read_vocabulary(const Record& model);
  void read_merges(const Record& model);
  std::int32_t id_of(const std::string& token, const Record& model) const;
  const Merge* find_merge(std::int32_t left, std::int32_t right) const;
  void merge(std::vector<Symbol>* symbols) const;

  bool add_prefix_space_ = false;
  bool ignore_merges_ = false;
  std::array<std::int32_t, 256> byte_ids_ = {};
  std::unordered_map<std::string, std::int32_t> vocabulary_;  // as the file writes tokens
  std::unordered_map<std::uint64_t, Merge> merges_;           // by the ids of both sides
  std::int64_t largest_id_ = 0;
};

std::uint64_t pair_key(std::int32_t left, std::int32_t right) noexcept {
  return std::uint64_t{static_cast<std::uint32_t>(left)} << 32 | static_cast<std::uint32_t>(right);
}

void refuse_set(const Record& record, const char* key) {
  if (record.has(key) && !record.text(key).empty()) {
    fail(StatusCode::bundle_error,
         text_of(record.where(), ": ", key, " is \"", shown(record.text(key)), "\", expected none"));
  }
}

bool flag(const Record& record, const char* key) { return record.has(key) && record.boolean(key); }

ByteLevel::ByteLevel(const Record& file) {
  if (file.has("normalizer")) {
    fail(StatusCode::bundle_error,
         text_of(file.where(), ": normalizer is ", shown(file.record("normalizer").text("type")), ", expected null"));
  }
  const Record splitter = file.record("pre_tokenizer");
  add_prefix_space_ = splitter.boolean("add_prefix_space");
  if (splitter.has("use_regex") && !splitter.boolean("use_regex")) {
    fail(StatusCode::bundle_error, text_of(splitter.where(), ": use_regex is false, expected true"));
  }
  const Record model = file.record("model");
  for (const char* key : {"continuing_subword_prefix", "end_of_word_suffix"}) refuse_set(model, key);
  if (model.has("dropout") || flag(model, "byte_fallback")) {
    fail(StatusCode::bundle_error, text_of(model.where(), " has dropout or byte_fallback, expected neither"));
  }
  ignore_merges_ = flag(model, "ignore_merges");
  read_vocabulary(model);
  read_merges(model);
}

void ByteLevel::read_vocabulary(const Record& model) {
  for (const auto& [token, id] : model.named_integers("vocab")) {
    if (id < 0 || id > INT32_MAX) {
      fail(StatusCode::bundle_error,
           text_of(model.where(), ": vocab[\"", shown(token), "\"] is ", id, ", expected an id"));
    }
    vocabulary_.emplace(token, static_cast<std::int32_t>(id));
    largest_id_ = std::max(largest_id_, id);
  }
  const auto characters = byte_characters();
  for (std::size_t byte = 0; byte < 256; ++byte) {
    std::string token;
    append_utf8(characters[byte], &token);
    byte_ids_[byte] = id_of(token, model);
  }
}

void ByteLevel::read_merges(const Record& model) {
  std::uint32_t rank = 0;
  for (const Record::TextOrTexts& merge : model.texts_or_lists("merges")) {
    std::string left, right;
    if (!merge.text && merge.texts.size() == 2) {
      left = merge.texts[0];
      right = merge.texts[1];
    } else if (merge.text) {
      const std::size_t space = merge.text->find(' ');
      left = merge.text->substr(0, space);
      if (space != std::string::npos) right = merge.text->substr(space + 1);
    }
    if (left.empty() || right.empty()) {
      fail(StatusCode::bundle_error, text_of(model.where(), ": merges[", rank, "] is malformed, expected two tokens"));
    }
    // Of two merges of the same pair the later one counts, as in the library.
    merges_[pair_key(id_of(left, model), id_of(right, model))] = {rank, id_of(left + right, model)};
    ++rank;
  }
}

std::int32_t ByteLevel::id_of(const std::string& token, const Record& model) const {
  const auto found = vocabulary_.find(token);
  if (found == vocabulary_.end()) {
    fail(StatusCode::bundle_error,
         text_of(model.where(), ": vocab lacks \"", shown(token), "\", which a byte or a merge needs"));
  }
  return found->second;
}

// The length of the contraction at `at`, such as 're; 0 where there is none.
std::size_t contraction(const Character* at, const Character* end) noexcept {
  if (at->code != U'\'' || at + 1 == end) return 0;
  const char32_t first = at[1].code;
  if (first == U's' || first == U't' || first == U'm' || first == U'd') return 2;
  if (at + 2 == end) return 0;
  const char32_t second = at[2].code;
  const bool known =
      (first == U'r' && second == U'e') || (first == U'v' && second == U'e') || (first == U'l' && second == U'l');
  return known ? 3 : 0;
}

enum class Kind { letter, number, space, other };

Kind kind_of(char32_t code) noexcept {
  if (unicode::is_letter(code)) return Kind::letter;
  if (unicode::is_number(code)) return Kind::number;
  return unicode::is_regex_space(code) ? Kind::space : Kind::other;
}

// Where the word that starts at `at` ends, by GPT-2's expression:
// 's|'t|'re|'ve|'m|'ll|'d| ?\p{L}+| ?\p{N}+| ?[^\s\p{L}\p{N}]+|\s+(?!\S)|\s+
const Character* word_end(const Character* at, const Character* end) noexcept {
  if (const std::size_t size = contraction(at, end)) return at + size;
  const bool spaced = at->code == U' ' && at + 1 != end && kind_of(at[1].code) != Kind::space;
  const Character* const first = spaced ? at + 1 : at;
  const Kind kind = kind_of(first->code);
  const Character* last = first + 1;
  while (last != end && kind_of(last->code) == kind) ++last;
  // The last of several spaces before a word belongs to the word, if it is a space; else it stands alone.
  if (kind == Kind::space && last != end && last - first > 1) --last;
  return last;
}

std::vector<Stretch> ByteLevel::split(Characters* text, bool in_list) const {
  if ((add_prefix_space_ || in_list) && !text->empty() && text->front().code != U' ') {
    text->insert(text->begin(), {U' ', text->front().origin});
  }
  std::vector<Stretch> words;
  const Stretch all = stretch_of(*text);
  for (const Character* at = all.first; at != all.last;) {
    const Character* const end = word_end(at, all.last);
    words.push_back({at, end});
    at = end;
  }
  return words;
}

const Merge* ByteLevel::find_merge(std::int32_t left, std::int32_t right) const {
  const auto found = merges_.find(pair_key(left, right));
  return found == merges_.end() ? nullptr : &found->second;
}

// Merge pairs, the one of the lowest rank first and of equal ones the leftmost, until none is left. A queue, because
// a word can be as long as the text.
void ByteLevel::merge(std::vector<Symbol>* symbols) const {
  const auto at = [symbols](std::int32_t place) -> Symbol& { return (*symbols)[static_cast<std::size_t>(place)]; };
  std::priority_queue<Candidate> candidates;
  const auto consider = [&](std::int32_t left) {
    if (left < 0 || at(left).after < 0) return;
    if (const Merge* const found = find_merge(at(left).id, at(at(left).after).id)) {
      candidates.push({found->rank, left, found->id});
    }
  };
  for (std::int32_t place = 0; place < static_cast<std::int32_t>(symbols->size()); ++place) consider(place);
  while (!candidates.empty()) {
    const Candidate best = candidates.top();
    candidates.pop();
    Symbol& left = at(best.left);
    if (left.gone || left.after < 0) continue;
    Symbol& right = at(left.after);
    const Merge* const still = find_merge(left.id, right.id);
    if (still == nullptr || still->id != best.id) continue;  // one of the two was merged with another meanwhile
    left.id = best.id;
    left.after = right.after;
    right.gone = true;
    if (left.after >= 0) at(left.after).before = best.left;
    consider(left.before);
    consider(best.left);
  }
}

void ByteLevel::append_ids(Stretch word, std::vector<std::int64_t>* ids) const {
  std::string bytes;
  for (const Character* each = word.first; each != word.last; ++each) append_utf8(each->code, &bytes);
  if (ignore_merges_) {
    static const auto characters = byte_characters();
    std::string token;
    for (const char byte : bytes) append_utf8(characters[static_cast<unsigned char>(byte)], &token);
    if (const auto found = vocabulary_.find(token); found != vocabulary_.end()) {
      ids->push_back(found->second);
      return;
    }
  }
  if (bytes.size() > INT32_MAX) fail(StatusCode::input_error, "a word has 2 GB or more, expected less");
  std::vector<Symbol> symbols;
  symbols.reserve(bytes.size());
  for (const char byte : bytes) {
    const auto place = static_cast<std::int32_t>(symbols.size());
    symbols.push_back({byte_ids_[static_cast<unsigned char>(byte)], place - 1, place + 1, false});
  }
  symbols.back().after = -1;
  merge(&symbols);
  for (const Symbol& symbol : symbols) {
    if (!symbol.gone) ids->push_back(symbol.id);
  }
}

}  // namespace

std::unique_ptr<Scheme> make_byte_level(const Record& file) { return std::make_unique<ByteLevel>(file); }

}  // namespace bitfit
