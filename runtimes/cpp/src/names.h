// The names of the frozen model's interface, and the limits of what is read: docs/files.md.
// spec/generate.py makes this file from spec/names.toml.

#ifndef BITFIT_SRC_NAMES_H
#define BITFIT_SRC_NAMES_H

#include <cstdint>

namespace bitfit {

// Files of a bundle.
inline constexpr const char* manifest_file = "manifest.json";
inline constexpr const char* model_file = "model.onnx";
inline constexpr const char* weights_file = "model.onnx.data";
inline constexpr const char* tokenizer_file = "tokenizer.json";
inline constexpr const char* train_step_file = "train_step.onnx";
inline constexpr const char* base_row_file = "base.bias";

// A signature file: what its name ends in, and what its bytes begin with.
inline constexpr const char* signature_suffix = ".sig";
inline constexpr const char* signature_magic = "BITFSIG1";

// Graph inputs that a text becomes. A model without segments lacks the last one.
inline constexpr const char* input_ids_input = "input_ids";
inline constexpr const char* attention_mask_input = "attention_mask";
inline constexpr const char* token_type_ids_input = "token_type_ids";

// Graph inputs that bring biases. TASK_IDS (the slot of each batch item; [1] is one slot for the whole batch) and
// BIAS_TABLE (the values of all loaded rows) are those of the layout table, PACKED_BIAS is that of packed. In named
// each bias has its own name.
inline constexpr const char* task_ids_input = "task_ids";
inline constexpr const char* bias_table_input = "bias_table";
inline constexpr const char* packed_bias_input = "bias";

// Graph inputs that bring a head, in the order in which a row stores them.
inline constexpr const char* head_pooling_input = "head.pooling";
inline constexpr const char* head_dense_weight_input = "head.dense.weight";
inline constexpr const char* head_dense_bias_input = "head.dense.bias";
inline constexpr const char* head_choice_input = "head.choice";
inline constexpr const char* head_weight_input = "head.classifier.weight";
inline constexpr const char* head_bias_input = "head.classifier.bias";

// Graph outputs: [batch, labels], and [batch, sequence, labels] where a bundle has token or span tasks.
inline constexpr const char* logits_output = "logits";
inline constexpr const char* token_logits_output = "token_logits";

// Graph inputs of the program train_step beside those of infer: what is to be learnt, and how much each item counts.
// docs/learning.md says what each holds.
inline constexpr const char* targets_input = "targets";
inline constexpr const char* token_targets_input = "token_targets";
inline constexpr const char* problem_type_ids_input = "problem_types";
inline constexpr const char* label_counts_input = "label_counts";
inline constexpr const char* item_weights_input = "item_weights";

// Graph outputs of the program train_step beside the logits and the gradients.
inline constexpr const char* loss_output = "loss";
inline constexpr const char* item_losses_output = "item_losses";

// The gradient of a graph input is an output that has the input's name behind this prefix, and its shape.
inline constexpr const char* gradient_prefix = "gradient.";

// Entries of an ONNX model's metadata.
inline constexpr const char* metadata_prefix = "bitfit_export.";
inline constexpr const char* layout_digest_key = "bitfit_export.layout_digest";

// Programs by their purpose, and what their inputs and outputs can be. AT_LOAD is how much an engine has to optimise
// when it loads a program: nothing, constants alone, or all.
inline constexpr const char* infer_program = "infer";
inline constexpr const char* train_step_program = "train_step";
inline constexpr const char* at_load[] = {"none", "basic", "all"};
inline constexpr const char* input_roles[] = {"token_ids", "attention_mask", "token_types", "pixels", "samples",
                                              "task_ids", "biases", "head", "targets", "token_targets", "problem_types",
                                              "label_counts", "item_weights"};
inline constexpr const char* output_roles[] = {"logits", "token_logits", "loss", "item_losses", "bias_gradients",
                                               "head_gradients"};
inline constexpr const char* dtypes[] = {"float32", "float16", "int64", "int32"};

// What a base model reads.
inline constexpr const char* modalities[] = {"text", "image", "audio"};

// How biases enter the graph.
inline constexpr const char* layout_kinds[] = {"table", "packed", "named"};

// Sizes are in bytes.
inline constexpr std::uint64_t max_manifest_size = 16777216;
inline constexpr std::uint64_t max_tokenizer_size = 134217728;
inline constexpr std::uint64_t max_model_size = 2147483647;
inline constexpr std::uint64_t max_line_size = 16777216;
inline constexpr std::uint64_t max_json_depth = 64;
inline constexpr std::uint64_t max_dimensions = 8;
inline constexpr std::uint64_t max_name_bytes = 1024;

}  // namespace bitfit

#endif  // BITFIT_SRC_NAMES_H
