// The layout of a manifest, its digest, and the last check of a row.

#include "failure.h"
#include "manifest.h"
#include "record.h"
#include "sha256.h"

#include <algorithm>

namespace bitfit {
namespace {

template <class Entry>
void check_entries(const std::vector<Entry>& entries, const std::string& what) {
  std::vector<std::string> names;
  for (const Entry& entry : entries) names.push_back(entry.name);
  check_names(names, what);
}

void check_rank(const Record& entry, std::size_t rank, std::size_t most) {
  if (rank >= 1 && rank <= most) return;
  refuse_bundle(text_of(entry.where(), ": shape has ", rank, " dimensions, expected 1 to ", most));
}

std::vector<BiasEntry> biases_of(const Record& layout) {
  std::vector<BiasEntry> entries;
  std::uint64_t next = 0;
  for (const Record& each : layout.records("biases")) {
    BiasEntry entry{each.text("name"), each.integers("shape"), static_cast<std::size_t>(next), 1};
    check_rank(each, entry.shape.size(), max_dimensions);
    std::uint64_t size = 1;  // below 2^32 before each product, as is what it is multiplied with
    for (const std::int64_t dimension : entry.shape) {
      const bool fits = dimension >= 1 && dimension <= std::int64_t{UINT32_MAX};
      size *= fits ? static_cast<std::uint64_t>(dimension) : 0;
      if (!fits || next + size > UINT32_MAX) refuse_bundle(text_of(each.where(), ": shape is out of range"));
    }
    each.integer("offset", static_cast<std::int64_t>(next), static_cast<std::int64_t>(next));
    entry.size = static_cast<std::size_t>(size);
    next += size;
    entries.push_back(std::move(entry));
  }
  if (entries.empty()) refuse_bundle(text_of(layout.where(), " has no biases, expected at least one"));
  check_entries(entries, "the layout's biases");
  return entries;
}

std::vector<HeadEntry> head_of(const Record& layout) {
  const std::vector<Record> records = layout.records("head");
  if (records.size() > max_head_tensors) {
    refuse_bundle(
        text_of(layout.where(), " has ", records.size(), " head tensors, expected at most ", max_head_tensors));
  }
  std::vector<HeadEntry> entries;
  for (const Record& each : records) {
    HeadEntry entry{each.text("name"), {}};
    std::uint64_t values = 1;  // for one label
    const std::vector<Record::IntegerOrText> shape = each.integers_or_texts("shape");
    check_rank(each, shape.size(), max_head_rank);
    for (const Record::IntegerOrText& dimension : shape) {
      const bool symbolic = dimension.text == "labels";
      const std::int64_t size = dimension.integer.value_or(0);
      if (!symbolic && (size < 1 || size > std::int64_t{UINT32_MAX})) {
        refuse_bundle(text_of(each.where(), ": a dimension is out of range, expected 1 or more, or \"labels\""));
      }
      entry.shape.push_back(symbolic ? HeadEntry::labels : size);
      if (!symbolic) values *= static_cast<std::uint64_t>(size);
      if (values > UINT32_MAX) refuse_bundle(text_of(each.where(), " has more than ", UINT32_MAX, " values"));
    }
    entries.push_back(std::move(entry));
  }
  check_entries(entries, "the layout's head tensors");
  return entries;
}

std::string shape_text(const std::vector<std::int64_t>& shape) {
  std::string text;
  for (const std::int64_t dimension : shape) {
    if (!text.empty()) text += ',';
    text += dimension == HeadEntry::labels ? "labels" : std::to_string(dimension);
  }
  return text;
}

// The bytes that are hashed are specified in docs/bias_row.md.
std::array<std::uint8_t, 32> digest_of_layout(const Layout& layout) {
  using namespace std::string_view_literals;
  Sha256 hash;
  hash.update("bitfit-layout-1\n");
  const auto base = bytes_of_hex(layout.base_digest);
  hash.update(base.data(), base.size());
  for (const BiasEntry& entry : layout.biases) {
    hash.update(text_of("bias\0"sv, entry.name, "\0"sv, shape_text(entry.shape), "\0"sv, entry.offset, '\n'));
  }
  for (const HeadEntry& entry : layout.head) {
    hash.update(text_of("head\0"sv, entry.name, "\0"sv, shape_text(entry.shape), '\n'));
  }
  for (const std::string& pooling : layout.poolings) hash.update(text_of("pooling\0"sv, pooling, '\n'));
  return hash.finish();
}

RowStatus refuse_head(RowProblem* problem, RowStatus fault, const char* what, std::uint64_t found,
                      std::uint64_t expected) {
  *problem = {fault, what, 0, found, expected};
  return fault;
}

// A tensor is whole, or absent: its first dimension is 0. One with labels is whole, so a row with many labels is large.
RowStatus check_tensor(const HeadEntry& entry, const HeadTensor& tensor, std::uint32_t labels, RowProblem* problem) {
  const std::vector<std::int64_t>& shape = entry.shape;
  if (tensor.rank != shape.size()) {
    return refuse_head(problem, RowStatus::bad_head, "rank of a head tensor", tensor.rank, shape.size());
  }
  const bool can_be_absent = std::find(shape.begin(), shape.end(), HeadEntry::labels) == shape.end();
  for (std::size_t axis = 0; axis < shape.size(); ++axis) {
    const bool symbolic = shape[axis] == HeadEntry::labels;
    const std::uint64_t expected = symbolic ? labels : static_cast<std::uint64_t>(shape[axis]);
    if (tensor.dim[axis] == expected || (axis == 0 && can_be_absent && tensor.dim[axis] == 0)) continue;
    return refuse_head(problem, symbolic ? RowStatus::bad_label_count : RowStatus::bad_head,
                       symbolic ? "labels of a head tensor" : "dimension of a head tensor", tensor.dim[axis], expected);
  }
  return RowStatus::ok;
}

// Tensors whose names are equal up to the last dot are one part: all of them are whole, or all absent.
RowStatus check_parts(const std::vector<HeadEntry>& head, const BiasRowView& row, RowProblem* problem) {
  const auto part_of = [](const std::string& name) {
    const std::size_t dot = name.rfind('.');
    return std::string_view(name).substr(0, dot == std::string::npos ? name.size() : dot);
  };
  for (std::size_t t = 0; t < head.size(); ++t) {
    for (std::size_t other = 0; other < t; ++other) {
      const bool is_absent = row.heads[t].size == 0, other_is_absent = row.heads[other].size == 0;
      if (is_absent == other_is_absent || part_of(head[t].name) != part_of(head[other].name)) continue;
      return refuse_head(problem, RowStatus::bad_head, "whole tensors in a part of the head", 1, 2);
    }
  }
  return RowStatus::ok;
}

}  // namespace

Layout layout_of(const Record& manifest) {
  const Record record = manifest.record("layout");
  Layout layout;
  layout.base_digest = record.digest("base_digest");
  layout.biases = biases_of(record);
  layout.head = head_of(record);
  layout.poolings = record.texts("poolings");
  check_names(layout.poolings, "the layout's poolings");
  layout.bias_count = static_cast<std::uint32_t>(layout.biases.back().offset + layout.biases.back().size);
  layout.digest_bytes = digest_of_layout(layout);
  layout.digest = hex_of(layout.digest_bytes);
  const std::string recorded = manifest.digest("layout_digest");
  if (recorded != layout.digest) {
    refuse_bundle(text_of(manifest.where(), ": layout_digest is ", recorded.substr(0, 12), ", the layout gives ",
                          layout.digest.substr(0, 12)));
  }
  const std::string base = manifest.record("base").digest("digest");
  if (base != layout.base_digest) {
    refuse_bundle(
        text_of("the layout is for the base ", layout.base_digest.substr(0, 12), ", expected ", base.substr(0, 12)));
  }
  return layout;
}

std::vector<std::int64_t> HeadEntry::resolve(std::int64_t label_count) const {
  std::vector<std::int64_t> resolved = shape;
  std::replace(resolved.begin(), resolved.end(), labels, label_count);
  return resolved;
}

RowStatus Layout::check(const BiasRowView& row, RowProblem* problem) const {
  RowStatus status = check_layout(row, digest_bytes.data(), bias_count, problem);
  if (status != RowStatus::ok) return status;
  if (row.head_count != head.size()) {
    return refuse_head(problem, RowStatus::bad_head, "head tensors", row.head_count, head.size());
  }
  for (std::size_t t = 0; t < head.size() && status == RowStatus::ok; ++t) {
    status = check_tensor(head[t], row.heads[t], row.labels, problem);
  }
  return status == RowStatus::ok ? check_parts(head, row, problem) : status;
}

}  // namespace bitfit
