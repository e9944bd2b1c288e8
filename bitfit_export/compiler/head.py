"""Attach the task heads: pooling, then the linear classifier, both chosen by `task_ids`.

Requires: the traced outputs `last_hidden_state` [batch, sequence, hidden] and, maybe, `pooler_output`.
Ensures: one output `logits` float32 [batch, labels], and the inputs `head.pooling` [tasks, poolings],
`head.classifier.weight` [tasks, labels, hidden] and `head.classifier.bias` [tasks, labels].

How a head reads the sequence is data, too: `head.pooling` has a one for the task's pooling and zeros elsewhere, so
tasks that read `[CLS]` and tasks that read the mean share a batch. x * 1 + y * 0 is x, exactly.
"""

from __future__ import annotations

import numpy as np
import onnx_graphsurgeon as gs

from bitfit_export.bundle import HeadEntry
from bitfit_export.compiler.trace import BATCH

__all__ = ["HEAD_BIAS", "HEAD_POOLING", "HEAD_WEIGHT", "LOGITS", "attach_head", "head_layout", "poolings_of"]

LOGITS = "logits"
HEAD_POOLING = "head.pooling"
HEAD_WEIGHT = "head.classifier.weight"
HEAD_BIAS = "head.classifier.bias"


def poolings_of(graph: gs.Graph) -> tuple[str, ...]:
    """The poolings that a traced graph allows, in the order of `head.pooling`."""
    has_pooler = any(output.name == "pooler_output" for output in graph.outputs)
    return tuple(pooling for pooling in ("pooler", "cls", "mean") if pooling != "pooler" or has_pooler)


def head_layout(poolings: tuple[str, ...], hidden: int) -> tuple[HeadEntry, ...]:
    """The head's part of a layout, in the order in which a row stores it."""
    return (
        HeadEntry(HEAD_POOLING, (len(poolings),)),
        HeadEntry(HEAD_WEIGHT, ("labels", hidden)),
        HeadEntry(HEAD_BIAS, ("labels",)),
    )


def attach_head(graph: gs.Graph, task_ids: gs.Variable, hidden: int, poolings: tuple[str, ...]) -> None:
    """Replace the traced outputs by `logits`."""
    emit = _Emitter(graph)
    outputs = {output.name: output for output in graph.outputs}
    pooling = gs.Variable(HEAD_POOLING, np.float32, ["tasks", len(poolings)])
    weight = gs.Variable(HEAD_WEIGHT, np.float32, ["tasks", "labels", hidden])
    bias = gs.Variable(HEAD_BIAS, np.float32, ["tasks", "labels"])
    graph.inputs += [pooling, weight, bias]

    vectors = [_pool(emit, name, outputs, graph) for name in poolings]
    stacked = emit("Concat", "pooled_all", vectors, axis=2)  # [batch, hidden, poolings]
    choice = emit("Gather", "pooling_row", [pooling, task_ids], axis=0)
    choice = emit("Unsqueeze", "pooling_column", [choice, emit.axes(2)])  # [b, poolings, 1]
    pooled = emit("MatMul", "pooled", [stacked, choice])  # [batch, hidden, 1]
    rows = emit("Gather", "classifier_weight_row", [weight, task_ids], axis=0)  # [b, labels, hidden]
    scores = emit("Squeeze", "scores", [emit("MatMul", "scores_3d", [rows, pooled]), emit.axes(2)])
    offset = emit("Gather", "classifier_bias_row", [bias, task_ids], axis=0)
    logits = emit("Add", LOGITS, [scores, offset])
    logits.shape = [BATCH, "labels"]
    graph.outputs = [logits]
    graph.cleanup().toposort()


def _pool(emit: _Emitter, name: str, outputs: dict[str, gs.Variable], graph: gs.Graph) -> gs.Variable:
    """One pooled vector, [batch, hidden, 1]; the same arithmetic as `task_model.pool`."""
    hidden = outputs["last_hidden_state"]
    if name == "pooler":
        return emit("Unsqueeze", "pooled_pooler", [outputs["pooler_output"], emit.axes(2)])
    if name == "cls":
        first = emit("Gather", "first_token", [hidden, gs.Constant("first_index", np.array(0))], axis=1)
        return emit("Unsqueeze", "pooled_cls", [first, emit.axes(2)])
    mask = next(tensor for tensor in graph.inputs if tensor.name == "attention_mask")
    kept = emit("Cast", "mask_float", [mask], to=1)
    count = emit("ReduceSum", "token_count", [kept, emit.axes(1)], keepdims=1)
    count = emit("Max", "token_count_positive", [count, gs.Constant("smallest_count", np.array(1e-9, np.float32))])
    share = emit("Unsqueeze", "token_share", [emit("Div", "token_share_2d", [kept, count]), emit.axes(1)])
    mean = emit("MatMul", "mean_row", [share, hidden])  # [batch, 1, hidden]
    return emit("Transpose", "pooled_mean", [mean], perm=[0, 2, 1])


class _Emitter:
    """Appends a node and returns its output; axes are shared constants."""

    def __init__(self, graph: gs.Graph) -> None:
        self._graph = graph
        self._axes: dict[int, gs.Constant] = {}

    def __call__(self, op: str, name: str, inputs: list[gs.Tensor], **attrs: object) -> gs.Variable:
        out = gs.Variable(name, np.float32)
        self._graph.nodes.append(gs.Node(op, f"head/{name}", attrs, inputs=inputs, outputs=[out]))
        return out

    def axes(self, axis: int) -> gs.Constant:
        return self._axes.setdefault(axis, gs.Constant(f"head/axis_{axis}", np.array([axis])))
