"""Attach the task heads: pooling, an optional dense layer, the classifier, all of them read from the task's row.

Requires: the traced outputs `last_hidden_state` [batch, sequence, hidden] and, maybe, `pooler_output`.
Ensures: the output `logits` float32 [batch, labels] and, for token tasks, `token_logits` [batch, sequence, labels].

How a head reads the sequence is data, too: `head.pooling` has a one for the task's pooling and zeros elsewhere, so
tasks that read `[CLS]` and tasks that read the mean share a batch. x * 1 + y * 0 is x, exactly. `head.choice` does the
same for tasks with and without a dense layer.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

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
from bitfit_export.compiler.graph.edit import emit
from bitfit_export.compiler.passes.plan_layout import HeadPlan

__all__ = ["AttachHeads", "HeadDropout", "attach_heads"]

_ACTIVATION_OPS = {"tanh": "Tanh", "relu": "Relu", "gelu": "Gelu"}


@dataclass(frozen=True)
class HeadDropout:
    """The rates with which a head in training drops what its dense layer and its classifier read."""

    dense: float = 0.0
    classifier: float = 0.0


NO_DROPOUT = HeadDropout()


class AttachHeads(Pass):
    """Give the graph the tasks' outputs instead of its hidden states.

    Args:
        dropout: of a graph to train with.
    """

    name = "attach_heads"
    requires = frozenset({Fact.TRACED, Fact.LAYOUT})
    ensures = frozenset({Fact.HEADS})
    ends = frozenset({Fact.TRACED})

    def __init__(self, dropout: HeadDropout = NO_DROPOUT) -> None:
        self._dropout = dropout

    def run(self, compilation: Compilation) -> bool | Refusal:
        return attach_heads(compilation.graph, compilation.heads, compilation.row_inputs, self._dropout)


def attach_heads(
    graph: gs.Graph, plan: HeadPlan, row_inputs: Mapping[str, gs.Variable], dropout: HeadDropout = NO_DROPOUT
) -> bool | Refusal:
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
    values = {entry.name: _by_item(graph, row_inputs[entry.name], row_inputs.get(TASK_IDS)) for entry in plan.entries}
    vectors = [_pool(graph, name, outputs, mask) for name in plan.poolings]
    pooled = _choose(graph, "head/pooled", vectors, values[HEAD_POOLING])  # [batch, hidden, 1]
    if plan.activation is not None:
        pooled = _apply_dense(graph, plan, _dropped(graph, pooled, dropout.dense), values)
    pooled = _dropped(graph, pooled, dropout.classifier)
    scores = emit(graph, "MatMul", "head/scores_3d", [values[HEAD_WEIGHT], pooled])  # [batch, labels, 1]
    scores = emit(graph, "Squeeze", "head/scores", [scores, [2]])
    logits = emit(graph, "Add", LOGITS, [scores, values[HEAD_BIAS]], shape=[BATCH, LABELS])
    graph.outputs = [logits]
    if plan.tokens:
        hidden = _dropped(graph, outputs["last_hidden_state"], dropout.classifier)
        graph.outputs.append(_score_tokens(graph, hidden, values))
    graph.cleanup().toposort()
    return True


def _dropped(graph: gs.Graph, tensor: gs.Variable, rate: float) -> gs.Variable:
    if rate == 0:
        return tensor
    ratio, training = np.array(rate, np.float32), np.array(True)
    settings = [
        gs.Constant(f"{tensor.name}/{name}", value) for name, value in (("rate", ratio), ("training", training))
    ]
    return emit(graph, "Dropout", f"{tensor.name}/dropped", [tensor, *settings], shape=tensor.shape)


def _by_item(graph: gs.Graph, tensor: gs.Variable, task_ids: gs.Variable | None) -> gs.Variable:
    """A head input as values for each item of the batch, [batch or 1, ...]."""
    if task_ids is None:
        return emit(graph, "Unsqueeze", f"{tensor.name}/row", [tensor, [0]])
    return emit(graph, "Gather", f"{tensor.name}/row", [tensor, task_ids], axis=0)


def _choose(graph: gs.Graph, name: str, vectors: list[gs.Variable], weights: gs.Variable) -> gs.Variable:
    """The one of the vectors [batch, n, 1] that a one-hot [b, vectors] names."""
    stacked = emit(graph, "Concat", f"{name}_all", vectors, axis=2)  # [batch, n, vectors]
    column = emit(graph, "Unsqueeze", f"{name}_column", [weights, [2]])  # [b, vectors, 1]
    return emit(graph, "MatMul", name, [stacked, column])


def _apply_dense(
    graph: gs.Graph, plan: HeadPlan, pooled: gs.Variable, values: Mapping[str, gs.Variable]
) -> gs.Variable:
    """activation(W pooled + b), [batch, inner, 1]; or `pooled` itself for a task that has no dense layer."""
    product = emit(graph, "MatMul", "head/dense_product", [values[HEAD_DENSE_WEIGHT], pooled])
    bias = emit(graph, "Unsqueeze", "head/dense_bias_column", [values[HEAD_DENSE_BIAS], [2]])
    dense = emit(graph, "Add", "head/dense_sum", [product, bias])
    if plan.activation in _ACTIVATION_OPS:
        dense = emit(graph, _ACTIVATION_OPS[plan.activation], "head/dense_activation", [dense])
    return _choose(graph, "head/features", [pooled, dense], values[HEAD_CHOICE]) if plan.has_choice else dense


def _score_tokens(graph: gs.Graph, hidden: gs.Variable, values: Mapping[str, gs.Variable]) -> gs.Variable:
    """The classifier on every token, [batch, sequence, labels]."""
    weight = emit(graph, "Transpose", "head/token_weight", [values[HEAD_WEIGHT]], perm=[0, 2, 1])
    product = emit(graph, "MatMul", "head/token_product", [hidden, weight])
    bias = emit(graph, "Unsqueeze", "head/token_bias", [values[HEAD_BIAS], [1]])
    return emit(graph, "Add", TOKEN_LOGITS, [product, bias], shape=[BATCH, SEQUENCE, LABELS])


def _pool(graph: gs.Graph, name: str, outputs: Mapping[str, gs.Variable], mask: gs.Variable | None) -> gs.Variable:
    """One pooled vector, [batch, hidden, 1]; the same arithmetic as `reference.task_model.pool`."""
    hidden = outputs["last_hidden_state"]
    if name == "pooler":
        return emit(graph, "Unsqueeze", "head/pooled_pooler", [outputs["pooler_output"], [2]])
    if name == "cls" or mask is None:
        first = emit(graph, "Gather", "head/first_token", [hidden, 0], axis=1)
        return emit(graph, "Unsqueeze", "head/pooled_cls", [first, [2]])
    share = _mean_share(graph, mask) if name == "mean" else _last_share(graph, mask)
    share = emit(graph, "Unsqueeze", f"head/{name}_share", [share, [1]])
    row = emit(graph, "MatMul", f"head/{name}_row", [share, hidden])
    return emit(graph, "Transpose", f"head/pooled_{name}", [row], perm=[0, 2, 1])  # from [batch, 1, hidden]


def _mean_share(graph: gs.Graph, mask: gs.Variable) -> gs.Variable:
    """Each token's part of the mean, [batch, sequence]: 1 / (number of tokens that the mask keeps), or 0."""
    kept = emit(graph, "Cast", "head/mask_float", [mask], to=1)
    count = emit(graph, "ReduceSum", "head/token_count", [kept, [1]], keepdims=1)
    smallest = gs.Constant("head/smallest_count", np.array(1e-9, np.float32))
    divisor = emit(graph, "Max", "head/token_count_positive", [count, smallest])
    return emit(graph, "Div", "head/mean_share_2d", [kept, divisor])


def _last_share(graph: gs.Graph, mask: gs.Variable) -> gs.Variable:
    """One for the last token that the mask keeps, else zero, [batch, sequence]."""
    kept = emit(graph, "Cast", "head/last_mask_float", [mask], to=1)
    # A kept token is the last one if no kept token follows: the sum from the end, itself included, is 1.
    following = emit(graph, "CumSum", "head/tokens_from_here", [kept, 1], reverse=1)
    one = gs.Constant("head/one", np.array(1, np.float32))
    is_last = emit(graph, "Equal", "head/is_last", [following, one], np.bool_)
    is_last = emit(graph, "Cast", "head/is_last_float", [is_last], to=1)
    return emit(graph, "Mul", "head/last_share_2d", [is_last, kept])
