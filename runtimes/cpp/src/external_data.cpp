#include "external_data.h"

#include "failure.h"

#include <algorithm>
#include <cstdint>
#include <iterator>

namespace bitfit {
namespace {

// The messages of onnx.proto on the way from a model to a tensor.
enum class Message { model, training, function, graph, node, attribute, sparse, tensor, entry };

// A field of a message that is a message itself.
struct Child {
  Message parent;
  std::uint64_t field;
  Message message;
};

constexpr Child children[] = {
    {Message::model, 7, Message::graph},         {Message::model, 20, Message::training},
    {Message::model, 25, Message::function},     {Message::training, 1, Message::graph},
    {Message::training, 2, Message::graph},      {Message::function, 7, Message::node},
    {Message::function, 11, Message::attribute}, {Message::graph, 1, Message::node},
    {Message::graph, 5, Message::tensor},        {Message::graph, 15, Message::sparse},
    {Message::node, 5, Message::attribute},      {Message::attribute, 5, Message::tensor},
    {Message::attribute, 6, Message::graph},     {Message::attribute, 10, Message::tensor},
    {Message::attribute, 11, Message::graph},    {Message::attribute, 22, Message::sparse},
    {Message::attribute, 23, Message::sparse},   {Message::sparse, 1, Message::tensor},
    {Message::sparse, 2, Message::tensor},       {Message::tensor, 13, Message::entry},
};

// A message that has a name and a text, and the numbers of these fields.
struct Pair {
  Message message;
  std::uint64_t key, value;
};

constexpr Pair pairs[] = {{Message::attribute, 1, 4}, {Message::entry, 1, 2}};

const Pair* pair_of(Message message) noexcept {
  const auto* const found =
      std::find_if(std::begin(pairs), std::end(pairs), [&](const Pair& each) { return each.message == message; });
  return found == std::end(pairs) ? nullptr : found;
}

constexpr int max_depth = 100;  // as protobuf's own readers

class Walker {
 public:
  ExternalFiles found;

  void walk(Message message, std::string_view bytes, int depth) {
    if (depth > max_depth) malformed();
    const Pair* const pair = pair_of(message);
    std::string_view key, value;  // of the message, where it is a pair
    while (!bytes.empty()) {
      const std::uint64_t tag = take_number(&bytes);
      const std::string_view content = take_content(tag & 7, &bytes);
      if ((tag & 7) != length_delimited) continue;
      if (pair != nullptr && tag >> 3 == pair->key) key = content;
      if (pair != nullptr && tag >> 3 == pair->value) value = content;
      for (const Child& child : children) {
        if (child.parent == message && child.field == tag >> 3) walk(child.message, content, depth + 1);
      }
    }
    if (message == Message::entry && key == "location") found.weights.emplace(value);
    if (message == Message::attribute && key == "ep_cache_context") found.binaries.emplace_back(value);
  }

 private:
  static constexpr std::uint64_t length_delimited = 2;

  [[noreturn]] static void malformed() {
    fail(StatusCode::bundle_error, "the model is not an ONNX file (truncated or malformed)", copy_again);
  }

  static std::string_view take(std::string_view* bytes, std::uint64_t size) {
    if (size > bytes->size()) malformed();
    const std::string_view taken = bytes->substr(0, static_cast<std::size_t>(size));
    bytes->remove_prefix(taken.size());
    return taken;
  }

  static std::uint64_t take_number(std::string_view* bytes) {
    std::uint64_t number = 0;
    for (unsigned shift = 0; shift < 64; shift += 7) {
      const auto byte = static_cast<unsigned char>(take(bytes, 1)[0]);
      number |= std::uint64_t{byte & 0x7Fu} << shift;
      if (byte < 0x80) return number;
    }
    malformed();
  }

  // The bytes of a field; what they mean is looked at for one with a length alone.
  static std::string_view take_content(std::uint64_t wire_type, std::string_view* bytes) {
    switch (wire_type) {
      case 0: return take_number(bytes), std::string_view();
      case 1: return take(bytes, 8);
      case length_delimited: return take(bytes, take_number(bytes));
      case 5: return take(bytes, 4);
      default: malformed();  // groups, which ONNX has none of
    }
  }
};

}  // namespace

ExternalFiles external_files(std::string_view model) {
  Walker walker;
  walker.walk(Message::model, model, 0);
  return std::move(walker.found);
}

}  // namespace bitfit
