#include <bitfit/tokenizer.h>

#include "added_tokens.h"
#include "failure.h"
#include "manifest.h"
#include "read_file.h"
#include "scheme.h"

#include <algorithm>
#include <map>

namespace bitfit {
namespace {

// A place of the sequence that the model wants: a token of its own, or a text.
struct Slot {
  std::int32_t side;  // Token::none for tokens of the model's own
  std::int32_t type_id;
  std::vector<std::int64_t> ids;  // of those tokens
};

struct Templates {
  std::vector<Slot> single;
  std::vector<Slot> pair;
};

[[noreturn]] void refuse(const Record& record, const std::string& found, const char* expected) {
  fail(StatusCode::bundle_error, text_of(record.where(), " is ", found, ", expected ", expected));
}

std::int32_t type_id_of(const Record& record) {
  const std::int64_t type = record.integer("type_id");
  if (type < 0 || type > 1) refuse(record, text_of("of type_id ", type), "0 or 1");
  return static_cast<std::int32_t>(type);
}

std::int64_t checked_id(const Record& record, std::int64_t id) {
  if (id < 0 || id > INT32_MAX) refuse(record, text_of("the id ", id), "0 or more");
  return id;
}

std::vector<Slot> read_template(const Record& processor, const char* key,
                                const std::map<std::string, std::vector<std::int64_t>>& special) {
  std::vector<Slot> slots;
  for (const Record& each : processor.records(key)) {
    if (each.has("Sequence")) {
      const Record sequence = each.record("Sequence");
      const std::string side = sequence.text("id");
      if (side != "A" && side != "B") refuse(sequence, shown(side), "A or B");
      slots.push_back({side == "A" ? 0 : 1, type_id_of(sequence), {}});
      continue;
    }
    const Record token = each.record("SpecialToken");
    const auto found = special.find(token.text("id"));
    if (found == special.end()) refuse(token, shown(token.text("id")), "one of special_tokens");
    slots.push_back({Token::none, type_id_of(token), found->second});
  }
  const auto count = [&slots](std::int32_t side) {
    return std::count_if(slots.begin(), slots.end(), [side](const Slot& slot) { return slot.side == side; });
  };
  const bool is_pair = std::string_view(key) == "pair";
  if (count(0) != 1 || count(1) != (is_pair ? 1 : 0)) refuse(processor, "malformed", "each text once in a template");
  return slots;
}

Templates read_template_processing(const Record& processor) {
  std::map<std::string, std::vector<std::int64_t>> special;
  for (const auto& [name, token] : processor.named_records("special_tokens")) {
    special[name] = token.integers("ids");
    for (const std::int64_t id : special[name]) checked_id(token, id);
  }
  return {read_template(processor, "single", special), read_template(processor, "pair", special)};
}

// `sep` and `cls` of the processors that BERT and RoBERTa had before there were templates: a token and its id.
std::int64_t named_token(const Record& processor, const char* key) {
  const auto values = processor.integers_or_texts(key);
  if (values.size() != 2 || !values[1].integer) refuse(processor, "malformed", "a token and its id");
  return checked_id(processor, *values[1].integer);
}

Templates read_templates(const Record& file) {
  if (!file.has("post_processor")) return {{{0, 0, {}}}, {{0, 0, {}}, {1, 1, {}}}};
  const Record processor = file.record("post_processor");
  const std::string type = processor.text("type");
  if (type == "TemplateProcessing") return read_template_processing(processor);
  if (type == "ByteLevel") return {{{0, 0, {}}}, {{0, 0, {}}, {1, 1, {}}}};
  if (type != "BertProcessing" && type != "RobertaProcessing") {
    refuse(processor, shown(type), "TemplateProcessing, BertProcessing, RobertaProcessing or ByteLevel");
  }
  const std::int64_t start = named_token(processor, "cls"), end = named_token(processor, "sep");
  const std::vector<Slot> single = {{Token::none, 0, {start}}, {0, 0, {}}, {Token::none, 0, {end}}};
  if (type == "BertProcessing") {
    return {single, {single[0], single[1], single[2], {1, 1, {}}, {Token::none, 1, {end}}}};
  }
  return {single, {single[0], single[1], {Token::none, 0, {end, end}}, {1, 0, {}}, single[2]}};
}

std::unique_ptr<Scheme> read_scheme(const Record& file) {
  const std::string model = file.record("model").text("type");
  const std::string splitter = file.has("pre_tokenizer") ? file.record("pre_tokenizer").text("type") : "null";
  if (model == "WordPiece" && splitter == "BertPreTokenizer") return make_wordpiece(file);
  if (model == "BPE" && splitter == "ByteLevel") return make_byte_level(file);
  fail(StatusCode::bundle_error,
       text_of(file.where(), " has the model ", shown(model), " and the pre_tokenizer ", shown(splitter),
               ", expected WordPiece and BertPreTokenizer, or BPE and ByteLevel"),
       "tokenise elsewhere and run ids");
}

}  // namespace

struct Tokenizer::Parts {
  explicit Parts(const Record& file)
      : scheme(read_scheme(file)), added(file, *scheme), templates(read_templates(file)) {
    largest_id = std::max(scheme->largest_id(), added.largest_id());
    for (const std::vector<Slot>* slots : {&templates.single, &templates.pair}) {
      for (const Slot& slot : *slots) {
        for (const std::int64_t id : slot.ids) largest_id = std::max(largest_id, id);
      }
    }
  }

  void append_text(const Characters& text, std::int32_t side, bool in_list, Tokens* out) const;
  void append_side(const Text& text, std::int32_t side, Tokens* out) const;

  std::unique_ptr<Scheme> scheme;
  AddedTokens added;
  Templates templates;
  std::int64_t largest_id = 0;
};

// What Python's str.isspace() counts as a space.
bool is_blank(const Character& character) noexcept {
  return unicode::is_space(character.code) || (character.code >= 0x1C && character.code <= 0x1F);
}

// Spaces around a word are not of it: byte-level words, and some added tokens, begin with the space before them.
Stretch without_spaces(Stretch word) noexcept {
  while (!word.empty() && is_blank(*word.first)) ++word.first;
  while (!word.empty() && is_blank(word.last[-1])) --word.last;
  return word;
}

// Append the tokens of a text. Words of a text are numbered from 0; those of a list are one word each, whose number
// and place are filled in later.
void Tokenizer::Parts::append_text(const Characters& text, std::int32_t side, bool in_list, Tokens* out) const {
  std::int32_t word = 0;
  std::vector<std::int64_t> ids;
  const auto append_word = [&](Stretch with_spaces) {
    const Stretch characters = without_spaces(with_spaces);
    const std::uint32_t start = characters.empty() ? 0 : characters.first->origin;
    const std::uint32_t end = characters.empty() ? 0 : characters.last[-1].origin + 1;
    for (const std::int64_t id : ids) out->push_back({id, 0, side, word, start, end});
    ids.clear();
    ++word;
  };
  for (const AddedTokens::Part& raw : added.cut(stretch_of(text), false)) {
    if (raw.id != AddedTokens::Part::no_id) {
      ids = {raw.id};
      append_word(raw.text);
      continue;
    }
    const Characters normalized = scheme->normalize(raw.text);
    for (const AddedTokens::Part& part : added.cut(stretch_of(normalized), true)) {
      if (part.id != AddedTokens::Part::no_id) {
        ids = {part.id};
        append_word(part.text);
        continue;
      }
      Characters ordinary(part.text.first, part.text.last);
      for (const Stretch& each : scheme->split(&ordinary, in_list)) {
        scheme->append_ids(each, &ids);
        append_word(each);
      }
    }
  }
}

void Tokenizer::Parts::append_side(const Text& text, std::int32_t side, Tokens* out) const {
  if (text.words.empty()) {
    append_text(decode_utf8(side == 0 ? text.first : *text.second), side, false, out);
    return;
  }
  std::uint32_t start = 0;
  for (std::size_t number = 0; number < text.words.size(); ++number) {
    const std::size_t before = out->size();
    const Characters word = decode_utf8(text.words[number]);
    const std::uint32_t end = start + static_cast<std::uint32_t>(word.size());
    append_text(word, side, true, out);
    for (std::size_t i = before; i < out->size(); ++i) {
      Token& token = (*out)[i];
      token.word = static_cast<std::int32_t>(number);
      token.start = start;
      token.end = end;
    }
    start = end + 1;
  }
}

Tokenizer::Tokenizer(std::unique_ptr<Parts> parts) noexcept : parts_(std::move(parts)) {}
Tokenizer::~Tokenizer() = default;

Status Tokenizer::open(const std::string& path, std::unique_ptr<Tokenizer>* out) noexcept {
  Status status;
  const Status opened = guard([&] { status = parse(text_in(read_file(path, max_tokenizer_size)), path, out); });
  return opened.ok() ? status : opened;
}

Status Tokenizer::parse(std::string_view bytes, const std::string& where, std::unique_ptr<Tokenizer>* out) noexcept {
  return guard([&] {
    const Document document(bytes, where);
    auto parts = std::make_unique<Parts>(document.root());
    out->reset(new Tokenizer(std::move(parts)));
  });
}

Status Tokenizer::encode(const Text& text, Tokens* out) const noexcept {
  return guard([&] {
    if (!text.words.empty() && text.second) {
      fail(StatusCode::usage_error, "a list of words has a second text, expected none");
    }
    out->clear();
    const bool pair = text.words.empty() && text.second.has_value();
    for (const Slot& slot : pair ? parts_->templates.pair : parts_->templates.single) {
      const std::size_t before = out->size();
      for (const std::int64_t id : slot.ids) out->push_back({id, 0, Token::none, Token::none, 0, 0});
      if (slot.side != Token::none) parts_->append_side(text, slot.side, out);
      for (std::size_t i = before; i < out->size(); ++i) (*out)[i].type_id = slot.type_id;
    }
  });
}

std::int64_t Tokenizer::largest_id() const noexcept { return parts_->largest_id; }

}  // namespace bitfit
