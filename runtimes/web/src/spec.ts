// The numbers of the row format, the names of the frozen model's interface, and the limits of what is read:
// docs/bias_row.md and docs/files.md. spec/generate.py makes this file from the two TOML files in spec/.

export const MAGIC = [0x89, 0x42, 0x46, 0x52, 0x0d, 0x0a, 0x1a, 0x0a];
export const FORMAT_VERSION = 1;
export const HEADER_SIZE = 448;
export const MAX_ROW_SIZE = 1073741824;
export const MAX_LABELS = 65536;
export const MAX_HEAD_TENSORS = 16;
export const MAX_HEAD_RANK = 3;
export const TASK_NAME = /^[A-Za-z0-9][A-Za-z0-9._-]{0,62}$/;

// Where each field of the header is.
export const AT = {
  magic: 0,
  version: 8,
  header_size: 12,
  flags: 16,
  dtype: 20,
  file_size: 24,
  layout_digest: 32,
  bias_count: 64,
  head_count: 68,
  labels: 72,
  problem_type: 76,
  task_version: 80,
  payload_checksum: 84,
  task: 88,
  head_table: 152,
  reserved: 408,
  header_checksum: 444,
} as const;
// How many bytes each of those has.
export const SIZE_OF = {
  magic: 8,
  version: 4,
  header_size: 4,
  flags: 4,
  dtype: 4,
  file_size: 8,
  layout_digest: 32,
  bias_count: 4,
  head_count: 4,
  labels: 4,
  problem_type: 4,
  task_version: 4,
  payload_checksum: 4,
  task: 64,
  head_table: 256,
  reserved: 36,
  header_checksum: 4,
} as const;
// The types of all values of a row, by ONNX's code: the size of a value in bytes.
export const DTYPE_SIZES: Readonly<Record<number, number>> = { 1: 4, 10: 2 };
export const PROBLEM_CODES = { single_label: 1, multi_label: 2, regression: 3, token: 4, span: 5 } as const;
export type ProblemType = keyof typeof PROBLEM_CODES;
// The number of labels that every task of a type has.
export const FIXED_LABEL_COUNTS: Readonly<Partial<Record<ProblemType, number>>> = { regression: 1, span: 2 };
// Why a row is refused, in the order in which a reader looks for it.
export const ROW_FAULTS = {
  TRUNCATED_HEADER: "truncated header",
  BAD_MAGIC: "wrong magic",
  BAD_VERSION: "unknown format version",
  BAD_HEADER_SIZE: "wrong header size",
  BAD_HEADER_CHECKSUM: "header checksum differs",
  UNKNOWN_FLAG: "unknown flag",
  BAD_DTYPE: "unknown dtype",
  BAD_PROBLEM_TYPE: "unknown problem type",
  BAD_TASK_NAME: "malformed task name",
  BAD_HEAD: "malformed head tensor table",
  BAD_LABEL_COUNT: "label count disagrees with problem type or head",
  TRUNCATED: "truncated payload",
  TRAILING_BYTES: "trailing bytes",
  BAD_PAYLOAD_CHECKSUM: "payload checksum differs",
  NOT_FINITE: "NaN or infinity in the payload",
  WRONG_LAYOUT: "made for another base model or layout",
} as const;
export type RowFault = keyof typeof ROW_FAULTS;

// Files of a bundle.
export const MANIFEST_FILE = "manifest.json";
export const MODEL_FILE = "model.onnx";
export const WEIGHTS_FILE = "model.onnx.data";
export const TOKENIZER_FILE = "tokenizer.json";
export const TRAIN_STEP_FILE = "train_step.onnx";
export const BASE_ROW_FILE = "base.bias";

// A signature file: what its name ends in, and what its bytes begin with.
export const SIGNATURE_SUFFIX = ".sig";
export const SIGNATURE_MAGIC = "BITFSIG1";

// Graph inputs that a text becomes. A model without segments lacks the last one.
export const INPUT_IDS = "input_ids";
export const ATTENTION_MASK = "attention_mask";
export const TOKEN_TYPE_IDS = "token_type_ids";

// Graph inputs that bring biases. TASK_IDS (the slot of each batch item; [1] is one slot for the whole batch) and
// BIAS_TABLE (the values of all loaded rows) are those of the layout table, PACKED_BIAS is that of packed. In named
// each bias has its own name.
export const TASK_IDS = "task_ids";
export const BIAS_TABLE = "bias_table";
export const PACKED_BIAS = "bias";

// Graph inputs that bring a head, in the order in which a row stores them.
export const HEAD_POOLING = "head.pooling";
export const HEAD_DENSE_WEIGHT = "head.dense.weight";
export const HEAD_DENSE_BIAS = "head.dense.bias";
export const HEAD_CHOICE = "head.choice";
export const HEAD_WEIGHT = "head.classifier.weight";
export const HEAD_BIAS = "head.classifier.bias";

// Graph outputs: [batch, labels], and [batch, sequence, labels] where a bundle has token or span tasks.
export const LOGITS = "logits";
export const TOKEN_LOGITS = "token_logits";

// Graph inputs of the program train_step beside those of infer: what is to be learnt, and how much each item counts.
// docs/learning.md says what each holds.
export const TARGETS = "targets";
export const TOKEN_TARGETS = "token_targets";
export const PROBLEM_TYPE_IDS = "problem_types";
export const LABEL_COUNTS = "label_counts";
export const ITEM_WEIGHTS = "item_weights";

// Graph outputs of the program train_step beside the logits and the gradients.
export const LOSS = "loss";
export const ITEM_LOSSES = "item_losses";

// The gradient of a graph input is an output that has the input's name behind this prefix, and its shape.
export const GRADIENT_PREFIX = "gradient.";

// Entries of an ONNX model's metadata.
export const METADATA_PREFIX = "bitfit_export.";
export const LAYOUT_DIGEST_KEY = "bitfit_export.layout_digest";

// Programs by their purpose, and what their inputs and outputs can be. AT_LOAD is how much an engine has to optimise
// when it loads a program: nothing, constants alone, or all.
export const INFER = "infer";
export const TRAIN_STEP = "train_step";
export const AT_LOAD = ["none", "basic", "all"] as const;
export const INPUT_ROLES = ["token_ids", "attention_mask", "token_types", "pixels", "samples", "task_ids", "biases", "head", "targets", "token_targets", "problem_types", "label_counts", "item_weights"] as const;
export const OUTPUT_ROLES = ["logits", "token_logits", "loss", "item_losses", "bias_gradients", "head_gradients"] as const;
export const DTYPES = ["float32", "float16", "int64", "int32"] as const;

// What a base model reads.
export const MODALITIES = ["text", "image", "audio"] as const;

// How biases enter the graph.
export const LAYOUT_KINDS = ["table", "packed", "named"] as const;

// Sizes are in bytes.
export const MAX_MANIFEST_SIZE = 16777216;
export const MAX_TOKENIZER_SIZE = 134217728;
export const MAX_MODEL_SIZE = 2147483647;
export const MAX_LINE_SIZE = 16777216;
export const MAX_JSON_DEPTH = 64;
export const MAX_DIMENSIONS = 8;
export const MAX_NAME_BYTES = 1024;
