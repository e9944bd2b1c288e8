// BERT's WordPiece: BertNormalizer, BertPreTokenizer and the greedy longest match of the model WordPiece.

#include "failure.h"
#include "scheme.h"

#include <algorithm>
#include <functional>
#include <string>
#include <string_view>
#include <unordered_map>
#include <vector>

namespace bitfit {
namespace {

struct Normalizer {
  bool clean_text;
  bool handle_chinese_chars;
  bool strip_accents;
  bool lowercase;
};

class WordPiece final : public Scheme {
 public:
  explicit WordPiece(const Record& file);

  Characters normalize(Stretch text) const override;
  std::vector<Stretch> split(Characters* text, bool in_list) const override;
  void append_ids(Stretch word, std::vector<std::int64_t>* ids) const override;
  std::int64_t largest_id() const noexcept override { return largest_id_; }

 private:
  using Vocabulary = std::unordered_map<std::string_view, std::int64_t>;

  void read_vocabulary(const Record& model);
  std::size_t match(const Vocabulary& vocabulary, std::string_view rest, std::int64_t* id) const;

  Normalizer normalizer_ = {};
  std::vector<std::pair<std::string, std::int64_t>> entries_;  // the maps' keys point into these
  Vocabulary whole_;                                           // every entry, for the start of a word
  Vocabulary continuing_;                                      // entries with the prefix ##, without it
  std::vector<std::size_t> sizes_;                             // of the maps' keys in bytes, each once, largest first
  std::size_t most_characters_ = 0;                            // of a word that is not unknown
  std::int64_t unknown_ = 0;
  std::int64_t largest_id_ = 0;
};

WordPiece::WordPiece(const Record& file) {
  const Record normalizer = file.record("normalizer");
  const std::string type = normalizer.text("type");
  if (type != "BertNormalizer") {
    fail(StatusCode::bundle_error, text_of(normalizer.where(), " is ", shown(type), ", expected BertNormalizer"));
  }
  normalizer_.clean_text = normalizer.boolean("clean_text");
  normalizer_.handle_chinese_chars = normalizer.boolean("handle_chinese_chars");
  normalizer_.lowercase = normalizer.boolean("lowercase");
  normalizer_.strip_accents =
      normalizer.has("strip_accents") ? normalizer.boolean("strip_accents") : normalizer_.lowercase;
  read_vocabulary(file.record("model"));
}

void WordPiece::read_vocabulary(const Record& model) {
  const std::string prefix = model.text("continuing_subword_prefix");
  const std::string unknown = model.text("unk_token");
  const std::int64_t most = model.integer("max_input_chars_per_word");
  if (most < 0 || most > INT32_MAX) {
    fail(StatusCode::bundle_error,
         text_of(model.where(), ": max_input_chars_per_word is ", most, ", expected 0 or more"));
  }
  most_characters_ = static_cast<std::size_t>(most);
  entries_ = model.named_integers("vocab");
  whole_.reserve(entries_.size());
  continuing_.reserve(entries_.size());
  for (const auto& [token, id] : entries_) {
    if (id < 0 || id > INT32_MAX) {
      fail(StatusCode::bundle_error,
           text_of(model.where(), ": vocab[\"", shown(token), "\"] is ", id, ", expected an id"));
    }
    whole_.emplace(token, id);
    sizes_.push_back(token.size());
    largest_id_ = std::max(largest_id_, id);
    if (token.compare(0, prefix.size(), prefix) == 0) {
      continuing_.emplace(std::string_view(token).substr(prefix.size()), id);
      sizes_.push_back(token.size() - prefix.size());
    }
  }
  std::sort(sizes_.begin(), sizes_.end(), std::greater<>());
  sizes_.erase(std::unique(sizes_.begin(), sizes_.end()), sizes_.end());
  const auto found = whole_.find(unknown);
  if (found == whole_.end()) {
    fail(StatusCode::bundle_error, text_of(model.where(), ": vocab lacks the unk_token \"", shown(unknown), '"'));
  }
  unknown_ = found->second;
}

Characters WordPiece::normalize(Stretch text) const {
  Characters result;
  result.reserve(text.size());
  for (const Character* each = text.first; each != text.last; ++each) {
    Character character = *each;
    if (normalizer_.clean_text) {
      if (unicode::is_control(character.code)) continue;
      if (unicode::is_space(character.code)) character.code = U' ';
    }
    const bool alone = normalizer_.handle_chinese_chars && unicode::is_chinese(character.code);
    if (alone) result.push_back({U' ', character.origin});
    result.push_back(character);
    if (alone) result.push_back({U' ', character.origin});
  }
  if (normalizer_.strip_accents) {
    result = unicode::decompose(result);
    const auto is_mark = [](const Character& each) { return unicode::is_nonspacing_mark(each.code); };
    result.erase(std::remove_if(result.begin(), result.end(), is_mark), result.end());
  }
  return normalizer_.lowercase ? unicode::lower(result) : result;
}

std::vector<Stretch> WordPiece::split(Characters* text, bool) const {
  std::vector<Stretch> words;
  const Stretch all = stretch_of(*text);
  const Character* start = all.first;
  const auto end_word = [&](const Character* end) {
    if (start != end) words.push_back({start, end});
  };
  for (const Character* each = all.first; each != all.last; ++each) {
    const bool punctuation = unicode::is_punctuation(each->code);
    if (!punctuation && !unicode::is_space(each->code)) continue;
    end_word(each);
    if (punctuation) words.push_back({each, each + 1});
    start = each + 1;
  }
  end_word(all.last);
  return words;
}

// The length in bytes of the longest entry that `rest` begins with; 0 where there is none.
std::size_t WordPiece::match(const Vocabulary& vocabulary, std::string_view rest, std::int64_t* id) const {
  for (const std::size_t size : sizes_) {
    if (size > rest.size() || size == 0) continue;
    const auto found = vocabulary.find(rest.substr(0, size));
    if (found == vocabulary.end()) continue;
    *id = found->second;
    return size;
  }
  return 0;
}

void WordPiece::append_ids(Stretch word, std::vector<std::int64_t>* ids) const {
  const std::size_t before = ids->size();
  std::string bytes;
  for (const Character* each = word.first; each != word.last; ++each) append_utf8(each->code, &bytes);
  bool known = word.size() <= most_characters_;
  for (std::string_view rest = bytes; known && !rest.empty();) {
    std::int64_t id = 0;
    const std::size_t size = match(rest.size() == bytes.size() ? whole_ : continuing_, rest, &id);
    known = size > 0;
    rest.remove_prefix(size);
    ids->push_back(id);
  }
  if (known) return;
  ids->resize(before);
  ids->push_back(unknown_);
}

}  // namespace

std::unique_ptr<Scheme> make_wordpiece(const Record& file) { return std::make_unique<WordPiece>(file); }

}  // namespace bitfit
