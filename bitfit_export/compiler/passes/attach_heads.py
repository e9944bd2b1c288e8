"""Attach the task heads: pooling, an optional dense layer, the classifier, all of them read from the task's row.

Requires: the traced outputs `last_hidden_state` [batch, sequence, hidden] and, maybe, `pooler_output`.
Ensures: the output `logits` float32 [batch, labels] and, for token tasks, `token_logits` [batch, sequence, labels].

How a head reads the sequence is data, too: `head.pooling` has a one for the task's pooling and zeros elsewhere, so
tasks that read `[CLS]` and tasks that read the mean share a batch. x * 1 + y * 0 is x, exactly. `head.choice` does the
same for tasks with and without a dense layer.
"""

from __future__ import annotations

from collections.abc import Mapping

import numpy as np
import onnx_graphsurgeon as gs

from bitfit_export.bundle import LABELS
from bitfit_export.bundle.interface import (
    ATTENTION_MASK,
    HEAD_BIAS,
    HEAD_CHOICE,
    HEAD_DENSE_BIAS,
    HEAD_DENSE_WEIGHT,
    HEAD_POOLING,
    HEAD_WEIGHT,
    LOGITS,
    TASK_IDS,
    TOKEN_LOGITS,
)
from bitfit_export.compiler.compilation import Compilation, Fact, Pass, Refusal
from bitfit_export.compiler.graph.dimensions import BATCH, SEQUENCE
from bitfit_export.compiler.passes.plan_layout import HeadPlan

__all__ = ["AttachHeads", "attach_heads"]

_ACTIVATION_OPS = {"tanh": "Tanh", "relu": "Relu", "gelu": "Gelu"}


class AttachHeads(Pass):
    """Give the graph the tasks' outputs instead of its hidden states."""

    name = "attach_heads"
    requires = frozenset({Fact.TRACED, Fact.LAYOUT})
    ensures = frozenset({Fact.HEADS})
    ends = frozenset({Fact.TRACED})

    def run(self, compilation: Compilation) -> bool | Refusal:
        return attach_heads(compilation.graph, compilation.heads, compilation.row_inputs)


def attach_heads(graph: gs.Graph, plan: HeadPlan, row_inputs: Mapping[str, gs.Variable]) -> bool | Refusal:
    """Replace the traced outputs by `logits` and, where a task reads tokens, `token_logits`.

    Returns:
        True; or a refusal, where a task reads what the base model does not have.

    Args:
        row_inputs: the graph inputs of a row, by name; in the table layout `task_ids` is among them.
    """
    outputs = {output.name: output for output in graph.outputs}
    mask = next((tensor for tensor in graph.inputs if tensor.name == ATTENTION_MASK), None)
    if mask is None and not {"mean", "last"}.isdisjoint(plan.poolings):
        read = next(name for name in ("mean", "last") if name in plan.poolings)
        return Refusal(
            f"a task reads the base's {read}, but the base takes no attention_mask", hint="use --pooling cls"
        )
    emit = _Emitter(graph)
    values = {entry.name: _by_item(emit, row_inputs[entry.name], row_inputs.get(TASK_IDS)) for entry in plan.entries}
    vectors = [_pool(emit, name, outputs, mask) for name in plan.poolings]
    pooled = _choose(emit, "pooled", vectors, values[HEAD_POOLING])  # [batch, hidden, 1]
    if plan.activation is not None:
        pooled = _apply_dense(emit, plan, pooled, values)
    scores = emit("MatMul", "scores_3d", [values[HEAD_WEIGHT], pooled])  # [batch, labels, 1]
    scores = emit("Squeeze", "scores", [scores, emit.axes(2)])
    logits = emit("Add", LOGITS, [scores, values[HEAD_BIAS]])
    logits.shape = [BATCH, LABELS]
    graph.outputs = [logits]
    if plan.tokens:
        graph.outputs.append(_score_tokens(emit, outputs["last_hidden_state"], values))
    graph.cleanup().toposort()
    return True


def _by_item(emit: _Emitter, tensor: gs.Variable, task_ids: gs.Variable | None) -> gs.Variable:
    """A head input as values for each item of the batch, [batch or 1, ...]."""
    if task_ids is None:
        return emit("Unsqueeze", f"{tensor.name}/row", [tensor, emit.axes(0)])
    return emit("Gather", f"{tensor.name}/row", [tensor, task_ids], axis=0)


def _choose(emit: _Emitter, name: str, vectors: list[gs.Variable], weights: gs.Variable) -> gs.Variable:
    """The one of the vectors [batch, n, 1] that a one-hot [b, vectors] names."""
    stacked = emit("Concat", f"{name}_all", vectors, axis=2)  # [batch, n, vectors]
    column = emit("Unsqueeze", f"{name}_column", [weights, emit.axes(2)])  # [b, vectors, 1]
    return emit("MatMul", name, [stacked, column])


def _apply_dense(emit: _Emitter, plan: HeadPlan, pooled: gs.Variable, values: Mapping[str, gs.Variable]) -> gs.Variable:
    """activation(W pooled + b), [batch, inner, 1]; or `pooled` itself for a task that has no dense layer."""
    product = emit("MatMul", "dense_product", [values[HEAD_DENSE_WEIGHT], pooled])
    bias = emit("Unsqueeze", "dense_bias_column", [values[HEAD_DENSE_BIAS], emit.axes(2)])
    dense = emit("Add", "dense_sum", [product, bias])
    if plan.activation in _ACTIVATION_OPS:
        dense = emit(_ACTIVATION_OPS[plan.activation], "dense_activation", [dense])
    return _choose(emit, "features", [pooled, dense], values[HEAD_CHOICE]) if plan.has_choice else dense


def _score_tokens(emit: _Emitter, hidden: gs.Variable, values: Mapping[str, gs.Variable]) -> gs.Variable:
    """The classifier on every token, [batch, sequence, labels]."""
    weight = emit("Transpose", "token_weight", [values[HEAD_WEIGHT]], perm=[0, 2, 1])
    product = emit("MatMul", "token_product", [hidden, weight])
    bias = emit("Unsqueeze", "token_bias", [values[HEAD_BIAS], emit.axes(1)])
    logits = emit("Add", TOKEN_LOGITS, [product, bias])
    logits.shape = [BATCH, SEQUENCE, LABELS]
    return logits


def _pool(emit: _Emitter, name: str, outputs: Mapping[str, gs.Variable], mask: gs.Variable | None) -> gs.Variable:
    """One pooled vector, [batch, hidden, 1]; the same arithmetic as `reference.task_model.pool`."""
    hidden = outputs["last_hidden_state"]
    if name == "pooler":
        return emit("Unsqueeze", "pooled_pooler", [outputs["pooler_output"], emit.axes(2)])
    if name == "cls" or mask is None:
        first = emit("Gather", "first_token", [hidden, gs.Constant("first_index", np.array(0))], axis=1)
        return emit("Unsqueeze", "pooled_cls", [first, emit.axes(2)])
    share = _mean_share(emit, mask) if name == "mean" else _last_share(emit, mask)
    row = emit("MatMul", f"{name}_row", [emit("Unsqueeze", f"{name}_share", [share, emit.axes(1)]), hidden])
    return emit("Transpose", f"pooled_{name}", [row], perm=[0, 2, 1])  # from [batch, 1, hidden]


def _mean_share(emit: _Emitter, mask: gs.Variable) -> gs.Variable:
    """Each token's part of the mean, [batch, sequence]: 1 / (number of tokens that the mask keeps), or 0."""
    kept = emit("Cast", "mask_float", [mask], to=1)
    count = emit("ReduceSum", "token_count", [kept, emit.axes(1)], keepdims=1)
    smallest = gs.Constant("smallest_count", np.array(1e-9, np.float32))
    return emit("Div", "mean_share_2d", [kept, emit("Max", "token_count_positive", [count, smallest])])


def _last_share(emit: _Emitter, mask: gs.Variable) -> gs.Variable:
    """One for the last token that the mask keeps, else zero, [batch, sequence]."""
    kept = emit("Cast", "last_mask_float", [mask], to=1)
    # A kept token is the last one if no kept token follows: the sum from the end, itself included, is 1.
    following = emit("CumSum", "tokens_from_here", [kept, emit.scalar(1)], reverse=1)
    is_last = emit("Equal", "is_last", [following, gs.Constant("one", np.array(1, np.float32))])
    is_last.dtype = np.dtype(bool)
    return emit("Mul", "last_share_2d", [emit("Cast", "is_last_float", [is_last], to=1), kept])


class _Emitter:
    """Appends a node and returns its output; axes are shared constants."""

    def __init__(self, graph: gs.Graph) -> None:
        self._graph = graph
        self._constants: dict[str, gs.Constant] = {}

    def __call__(self, op: str, name: str, inputs: list[gs.Tensor], **attrs: object) -> gs.Variable:
        out = gs.Variable(name, np.float32)
        self._graph.nodes.append(gs.Node(op, f"head/{name}", attrs, inputs=inputs, outputs=[out]))
        return out

    def axes(self, axis: int) -> gs.Constant:
        return self._constants.setdefault(f"axes_{axis}", gs.Constant(f"head/axis_{axis}", np.array([axis])))

    def scalar(self, value: int) -> gs.Constant:
        return self._constants.setdefault(f"scalar_{value}", gs.Constant(f"head/scalar_{value}", np.array(value)))
