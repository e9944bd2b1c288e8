// Sequences that are too long: cut, or read in windows.

#include <bitfit/tokenizer.h>

#include "failure.h"

#include <algorithm>
#include <utility>

namespace bitfit {
namespace {

std::size_t count_side(const Tokens& tokens, std::int32_t side) {
  return static_cast<std::size_t>(
      std::count_if(tokens.begin(), tokens.end(), [side](const Token& token) { return token.side == side; }));
}

}  // namespace

Status truncate(Tokens* tokens, std::size_t limit) noexcept {
  return guard([&] {
    if (tokens->size() <= limit) return;
    const std::size_t first = count_side(*tokens, 0), second = count_side(*tokens, 1);
    const std::size_t special = tokens->size() - first - second;
    if (limit < special) {
      fail(StatusCode::usage_error,
           text_of("max_length is ", limit, ", expected at least ", special, ", the number of special tokens"));
    }
    // A side that takes at most half of the room stays whole; else each gets half, and the longer one, or of two equal
    // ones the second, the odd token.
    const std::size_t room = limit - special;
    const std::size_t shorter = std::min({first, second, room / 2});
    std::size_t left[2] = {first <= second ? shorter : room - shorter, first <= second ? room - shorter : shorter};
    const auto cut = [&left](const Token& token) {
      if (token.side == Token::none) return false;
      std::size_t& rest = left[token.side];
      return rest == 0 || (--rest, false);
    };
    tokens->erase(std::remove_if(tokens->begin(), tokens->end(), cut), tokens->end());
  });
}

Status cut_windows(const Tokens& pair, std::size_t limit, std::size_t overlap, std::vector<Tokens>* out) noexcept {
  return guard([&] {
    const std::size_t context = count_side(pair, 1), question = pair.size() - context;
    if (question >= limit) {
      fail(StatusCode::input_error,
           text_of("the question has ", question, " tokens with the special ones, expected fewer than ", limit),
           "shorten the question");
    }
    const auto in_context = [](const Token& token) { return token.side == 1 && token.has_text(); };
    if (std::none_of(pair.begin(), pair.end(), in_context)) {
      fail(StatusCode::input_error, "the context has no word, expected at least one");
    }
    // The tokens of a text stand together.
    const auto is_second = [](const Token& token) { return token.side == 1; };
    const auto first = std::find_if(pair.begin(), pair.end(), is_second);
    const auto last = first + static_cast<std::ptrdiff_t>(context);
    const std::size_t room = limit - question;
    const std::size_t step = room - std::min(overlap, room / 2);
    out->clear();
    for (std::size_t start = 0;; start += step) {
      const auto at = first + static_cast<std::ptrdiff_t>(start);
      const std::size_t taken = std::min(room, context - start);
      Tokens window(pair.begin(), first);
      window.insert(window.end(), at, at + static_cast<std::ptrdiff_t>(taken));
      window.insert(window.end(), last, pair.end());
      out->push_back(std::move(window));
      if (start + room >= context) return;
    }
  });
}

}  // namespace bitfit
