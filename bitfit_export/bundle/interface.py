"""The frozen model's interface: every name of a graph input, a graph output, a file and a metadata entry, once.

The compiler gives its graphs these names, the runtimes feed them, and the constants of the other languages are made
from them.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from bitfit_export.bundle.layout import HeadEntry, Layout

__all__ = [
    "ATTENTION_MASK",
    "BIAS_TABLE",
    "HEAD_BIAS",
    "HEAD_CHOICE",
    "HEAD_DENSE_BIAS",
    "HEAD_DENSE_WEIGHT",
    "HEAD_POOLING",
    "HEAD_WEIGHT",
    "INPUT_IDS",
    "LAYOUT_DIGEST_KEY",
    "LAYOUT_KINDS",
    "LOGITS",
    "MANIFEST_FILE",
    "METADATA_PREFIX",
    "MODEL_FILE",
    "PACKED_BIAS",
    "TASK_IDS",
    "TEXT_INPUTS",
    "TOKENIZER_FILE",
    "TOKEN_LOGITS",
    "TOKEN_TYPE_IDS",
    "WEIGHTS_FILE",
    "GraphInput",
    "row_inputs_of",
    "text_inputs_of",
]

# begin: names, by spec/generate.py
# Files of a bundle.
MANIFEST_FILE = "manifest.json"
MODEL_FILE = "model.onnx"
WEIGHTS_FILE = "model.onnx.data"
TOKENIZER_FILE = "tokenizer.json"

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

# Entries of an ONNX model's metadata.
METADATA_PREFIX = "bitfit_export."
LAYOUT_DIGEST_KEY = "bitfit_export.layout_digest"

# How biases enter the graph.
LAYOUT_KINDS = ("table", "packed", "named")
# end: names, by spec/generate.py

#: In the order of the graph's inputs.
TEXT_INPUTS = (INPUT_IDS, ATTENTION_MASK, TOKEN_TYPE_IDS)


@dataclass(frozen=True)
class GraphInput:
    """One input of a graph.

    Attributes:
        role: what it brings: `token_ids`, `attention_mask`, `token_types`, `task_ids`, `biases` or `head`.
        dtype: numpy's name, `int64` or `float32`.
        shape: a number or a symbol for each dimension.
    """

    name: str
    role: str
    dtype: str
    shape: tuple[int | str, ...]


_TEXT_ROLES = {INPUT_IDS: "token_ids", ATTENTION_MASK: "attention_mask", TOKEN_TYPE_IDS: "token_types"}


def text_inputs_of(names: Sequence[str], static_shape: Sequence[int] | None = None) -> tuple[GraphInput, ...]:
    """Returns those of `TEXT_INPUTS` that are among `names`, int64 [batch, sequence]."""
    shape = ("batch", "sequence") if static_shape is None else tuple(static_shape)
    return tuple(GraphInput(name, _TEXT_ROLES[name], "int64", shape) for name in TEXT_INPUTS if name in names)


def row_inputs_of(layout: Layout, layout_kind: str, *, labels: int | None = None) -> tuple[GraphInput, ...]:
    """Returns the inputs that bring biases and heads in a layout, in the graph's order.

    Args:
        labels: the number of labels of the head inputs where it is fixed; by default a symbol.
    """
    if layout_kind == "table":
        biases = [
            GraphInput(TASK_IDS, "task_ids", "int64", ("task_batch",)),
            GraphInput(BIAS_TABLE, "biases", "float32", ("tasks", layout.bias_count)),
        ]
    elif layout_kind == "packed":
        biases = [GraphInput(PACKED_BIAS, "biases", "float32", (layout.bias_count,))]
    else:
        biases = [GraphInput(entry.name, "biases", "float32", entry.shape) for entry in layout.biases]
    leading = ("tasks",) if layout_kind == "table" else ()
    heads = [GraphInput(e.name, "head", "float32", (*leading, *_head_shape(e, labels))) for e in layout.head]
    return (*biases, *heads)


def _head_shape(entry: HeadEntry, labels: int | None) -> tuple[int | str, ...]:
    return entry.shape if labels is None else entry.resolve(labels)
