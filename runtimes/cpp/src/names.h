// The names of the frozen model's interface, and the limits of what is read, in bytes where they are sizes:
// docs/files.md. spec/generate.py makes this file from spec/names.toml.

#ifndef BITFIT_SRC_NAMES_H
#define BITFIT_SRC_NAMES_H

#include <cstdint>

namespace bitfit::names {

// Files of a bundle.
inline constexpr const char* manifest_file = "manifest.json";
inline constexpr const char* model_file = "model.onnx";
inline constexpr const char* weights_file = "model.onnx.data";
inline constexpr const char* tokenizer_file = "tokenizer.json";

// Graph inputs that a text becomes. A model without segments lacks the last one.
inline constexpr const char* input_ids = "input_ids";
inline constexpr const char* attention_mask = "attention_mask";
inline constexpr const char* token_type_ids = "token_type_ids";

// Graph inputs that bring biases. TASK_IDS (the slot of each batch item; [1] is one slot for the whole batch) and
// BIAS_TABLE (the values of all loaded rows) are those of the layout table, PACKED_BIAS is that of packed. In named
// each bias has its own name.
inline constexpr const char* task_ids = "task_ids";
inline constexpr const char* bias_table = "bias_table";
inline constexpr const char* packed_bias = "bias";

// Graph inputs that bring a head, in the order in which a row stores them.
inline constexpr const char* head_pooling = "head.pooling";
inline constexpr const char* head_dense_weight = "head.dense.weight";
inline constexpr const char* head_dense_bias = "head.dense.bias";
inline constexpr const char* head_choice = "head.choice";
inline constexpr const char* head_weight = "head.classifier.weight";
inline constexpr const char* head_bias = "head.classifier.bias";

// Graph outputs: [batch, labels], and [batch, sequence, labels] where a bundle has token or span tasks.
inline constexpr const char* logits = "logits";
inline constexpr const char* token_logits = "token_logits";

// Entries of an ONNX model's metadata.
inline constexpr const char* metadata_prefix = "bitfit_export.";
inline constexpr const char* layout_digest_key = "bitfit_export.layout_digest";

// How biases enter the graph.
inline constexpr const char* layout_kinds[] = {"table", "packed", "named"};

}  // namespace bitfit::names

namespace bitfit::limits {

inline constexpr std::uint64_t max_manifest_size = 16777216;
inline constexpr std::uint64_t max_tokenizer_size = 134217728;
inline constexpr std::uint64_t max_model_size = 2147483647;
inline constexpr std::uint64_t max_line_size = 16777216;
inline constexpr std::uint64_t max_depth = 64;
inline constexpr std::uint64_t max_dimensions = 8;
inline constexpr std::uint64_t max_name_bytes = 1024;

}  // namespace bitfit::limits

#endif  // BITFIT_SRC_NAMES_H
