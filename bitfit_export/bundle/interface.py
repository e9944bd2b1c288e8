"""The frozen model's interface: every name of a graph input, a graph output, a file and a metadata entry, once.

The compiler gives its graphs these names, the runtimes feed them, and the constants of the other languages are made
from them.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from bitfit_export.bundle.layout import LABELS, HeadEntry, Layout

__all__ = [
    "ATTENTION_MASK",
    "AT_LOAD",
    "BASE_ROW_FILE",
    "BIAS_TABLE",
    "DTYPES",
    "GRADIENT_PREFIX",
    "HEAD_BIAS",
    "HEAD_CHOICE",
    "HEAD_DENSE_BIAS",
    "HEAD_DENSE_WEIGHT",
    "HEAD_POOLING",
    "HEAD_WEIGHT",
    "INFER",
    "INPUT_IDS",
    "INPUT_ROLES",
    "ITEM_LOSSES",
    "ITEM_WEIGHTS",
    "LABEL_COUNTS",
    "LAYOUT_DIGEST_KEY",
    "LAYOUT_KINDS",
    "LOGITS",
    "LOSS",
    "MANIFEST_FILE",
    "METADATA_PREFIX",
    "MODALITIES",
    "MODEL_FILE",
    "OUTPUT_ROLES",
    "PACKED_BIAS",
    "PROBLEM_TYPE_IDS",
    "SIGNATURE_MAGIC",
    "SIGNATURE_SUFFIX",
    "TARGETS",
    "TASK_IDS",
    "TEXT_INPUTS",
    "TOKENIZER_FILE",
    "TOKEN_LOGITS",
    "TOKEN_TARGETS",
    "TOKEN_TYPE_IDS",
    "TRAINED_HEAD",
    "TRAIN_STEP",
    "TRAIN_STEP_FILE",
    "WEIGHTS_FILE",
    "Port",
    "role_of",
    "row_inputs_of",
    "text_inputs_of",
    "training_inputs_of",
    "training_outputs_of",
]

# begin: names, by spec/generate.py
# Files of a bundle.
MANIFEST_FILE = "manifest.json"
MODEL_FILE = "model.onnx"
WEIGHTS_FILE = "model.onnx.data"
TOKENIZER_FILE = "tokenizer.json"
TRAIN_STEP_FILE = "train_step.onnx"
BASE_ROW_FILE = "base.bias"

# A signature file: what its name ends in, and what its bytes begin with.
SIGNATURE_SUFFIX = ".sig"
SIGNATURE_MAGIC = "BITFSIG1"

# Graph inputs that a text becomes. A model without segments lacks the last one.
INPUT_IDS = "input_ids"
ATTENTION_MASK = "attention_mask"
TOKEN_TYPE_IDS = "token_type_ids"

# Graph inputs that bring biases. TASK_IDS (the slot of each batch item; [1] is one slot for the whole batch) and
# BIAS_TABLE (the values of all loaded rows) are those of the layout table, PACKED_BIAS is that of packed. In named each
# bias has its own name.
TASK_IDS = "task_ids"
BIAS_TABLE = "bias_table"
PACKED_BIAS = "bias"

# Graph inputs that bring a head, in the order in which a row stores them.
HEAD_POOLING = "head.pooling"
HEAD_DENSE_WEIGHT = "head.dense.weight"
HEAD_DENSE_BIAS = "head.dense.bias"
HEAD_CHOICE = "head.choice"
HEAD_WEIGHT = "head.classifier.weight"
HEAD_BIAS = "head.classifier.bias"

# Graph outputs: [batch, labels], and [batch, sequence, labels] where a bundle has token or span tasks.
LOGITS = "logits"
TOKEN_LOGITS = "token_logits"

# Graph inputs of the program train_step beside those of infer: what is to be learnt, and how much each item counts.
# docs/learning.md says what each holds.
TARGETS = "targets"
TOKEN_TARGETS = "token_targets"
PROBLEM_TYPE_IDS = "problem_types"
LABEL_COUNTS = "label_counts"
ITEM_WEIGHTS = "item_weights"

# Graph outputs of the program train_step beside the logits and the gradients.
LOSS = "loss"
ITEM_LOSSES = "item_losses"

# The gradient of a graph input is an output that has the input's name behind this prefix, and its shape.
GRADIENT_PREFIX = "gradient."

# Entries of an ONNX model's metadata.
METADATA_PREFIX = "bitfit_export."
LAYOUT_DIGEST_KEY = "bitfit_export.layout_digest"

# Programs by their purpose, and what their inputs and outputs can be. AT_LOAD is how much an engine has to optimise
# when it loads a program: nothing, constants alone, or all.
INFER = "infer"
TRAIN_STEP = "train_step"
AT_LOAD = ("none", "basic", "all")
INPUT_ROLES = (
    "token_ids",
    "attention_mask",
    "token_types",
    "pixels",
    "samples",
    "task_ids",
    "biases",
    "head",
    "targets",
    "token_targets",
    "problem_types",
    "label_counts",
    "item_weights",
)
OUTPUT_ROLES = ("logits", "token_logits", "loss", "item_losses", "bias_gradients", "head_gradients")
DTYPES = ("float32", "float16", "int64", "int32")

# What a base model reads.
MODALITIES = ("text", "image", "audio")

# How biases enter the graph.
LAYOUT_KINDS = ("table", "packed", "named")
# end: names, by spec/generate.py

#: The head tensors that are learnt; the others choose what the head reads.
TRAINED_HEAD = (HEAD_DENSE_WEIGHT, HEAD_DENSE_BIAS, HEAD_WEIGHT, HEAD_BIAS)

#: In the order of the graph's inputs.
TEXT_INPUTS = (INPUT_IDS, ATTENTION_MASK, TOKEN_TYPE_IDS)


@dataclass(frozen=True)
class Port:
    """One input or output of a program.

    Attributes:
        role: what it is for, one of `INPUT_ROLES` or `OUTPUT_ROLES`.
        dtype: one of `DTYPES`.
        shape: a number or a symbol for each dimension.
    """

    name: str
    role: str
    dtype: str
    shape: tuple[int | str, ...]


_TEXT_ROLES = {INPUT_IDS: "token_ids", ATTENTION_MASK: "attention_mask", TOKEN_TYPE_IDS: "token_types"}
_OTHER_ROLES = {"pixel_values": "pixels", "input_values": "samples", LOGITS: LOGITS, TOKEN_LOGITS: TOKEN_LOGITS}


def role_of(name: str, layout: Layout, layout_kind: str) -> str:
    """Returns the role of a graph input or output by its name."""
    ports = (
        *row_inputs_of(layout, layout_kind),
        *training_inputs_of(),
        *training_outputs_of(layout, layout_kind),
    )
    return {**_TEXT_ROLES, **_OTHER_ROLES, **{port.name: port.role for port in ports}}[name]


def text_inputs_of(names: Sequence[str], static_shape: Sequence[int] | None = None) -> tuple[Port, ...]:
    """Returns those of `TEXT_INPUTS` that are among `names`, int64 [batch, sequence]."""
    shape = ("batch", "sequence") if static_shape is None else tuple(static_shape)
    return tuple(Port(name, _TEXT_ROLES[name], "int64", shape) for name in TEXT_INPUTS if name in names)


def row_inputs_of(layout: Layout, layout_kind: str, *, labels: int | None = None) -> tuple[Port, ...]:
    """Returns the inputs that bring biases and heads in a layout, in the graph's order.

    Args:
        labels: the number of labels of the head inputs where it is fixed; by default a symbol.
    """
    if layout_kind == "table":
        biases = [
            Port(TASK_IDS, "task_ids", "int64", ("task_batch",)),
            Port(BIAS_TABLE, "biases", "float32", ("tasks", layout.bias_count)),
        ]
    elif layout_kind == "packed":
        biases = [Port(PACKED_BIAS, "biases", "float32", (layout.bias_count,))]
    else:
        biases = [Port(entry.name, "biases", "float32", entry.shape) for entry in layout.biases]
    leading = ("tasks",) if layout_kind == "table" else ()
    heads = [Port(e.name, "head", "float32", (*leading, *_head_shape(e, labels))) for e in layout.head]
    return (*biases, *heads)


def training_inputs_of(*, tokens: bool = True) -> tuple[Port, ...]:
    """Returns the inputs that `train_step` has beside those of `infer`, in the graph's order.

    Args:
        tokens: whether the graph has `token_logits`.
    """
    ports = [
        Port(TARGETS, "targets", "float32", ("batch", LABELS)),
        *([Port(TOKEN_TARGETS, "token_targets", "float32", ("batch", "sequence", LABELS))] if tokens else []),
        Port(PROBLEM_TYPE_IDS, "problem_types", "int64", ("batch",)),
        Port(LABEL_COUNTS, "label_counts", "int64", ("batch",)),
        Port(ITEM_WEIGHTS, "item_weights", "float32", ("batch",)),
    ]
    return tuple(ports)


def training_outputs_of(layout: Layout, layout_kind: str) -> tuple[Port, ...]:
    """Returns the outputs that `train_step` has beside the logits, in the graph's order."""
    trained = [
        port
        for port in row_inputs_of(layout, layout_kind)
        if port.role == "biases" or (port.role == "head" and port.name in TRAINED_HEAD)
    ]
    return (
        Port(LOSS, "loss", "float32", (1,)),
        Port(ITEM_LOSSES, "item_losses", "float32", ("batch",)),
        *(Port(GRADIENT_PREFIX + each.name, _GRADIENT_ROLES[each.role], each.dtype, each.shape) for each in trained),
    )


_GRADIENT_ROLES = {"biases": "bias_gradients", "head": "head_gradients"}


def _head_shape(entry: HeadEntry, labels: int | None) -> tuple[int | str, ...]:
    return entry.shape if labels is None else entry.resolve(labels)
