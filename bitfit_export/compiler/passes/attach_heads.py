"""Attach the task heads: pooling, an optional dense layer, the classifier, all of them read from the task's row.

Requires: the traced outputs `last_hidden_state` [batch, sequence, hidden] and, maybe, `pooler_output`.
Ensures: the output `logits` float32 [batch, labels] and, for token tasks, `token_logits` [batch, sequence, labels]; an
input for each entry of `HeadPlan.entries`.

How a head reads the sequence is data, too: `head.pooling` has a one for the task's pooling and zeros elsewhere, so
tasks that read `[CLS]` and tasks that read the mean share a batch. x * 1 + y * 0 is x, exactly. `head.choice` does the
same for tasks with and without a dense layer.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass

import numpy as np
import onnx_graphsurgeon as gs

from bitfit_export.bundle import HeadEntry
from bitfit_export.compiler.graph.dimensions import BATCH, SEQUENCE
from bitfit_export.compiler.graph.edit import emit
from bitfit_export.delta import POOLINGS, TOKENS, TaskDelta
from bitfit_export.errors import CompileError

__all__ = [
    "HEAD_BIAS",
    "HEAD_CHOICE",
    "HEAD_DENSE_BIAS",
    "HEAD_DENSE_WEIGHT",
    "HEAD_POOLING",
    "HEAD_WEIGHT",
    "LOGITS",
    "TOKEN_LOGITS",
    "HeadPlan",
    "attach_head",
    "plan_head",
]

LOGITS = "logits"
TOKEN_LOGITS = "token_logits"
HEAD_POOLING = "head.pooling"
HEAD_DENSE_WEIGHT = "head.dense.weight"
HEAD_DENSE_BIAS = "head.dense.bias"
HEAD_CHOICE = "head.choice"
HEAD_WEIGHT = "head.classifier.weight"
HEAD_BIAS = "head.classifier.bias"

#: Gives a head input's values for each row of the batch: [batch or 1, ...].
HeadRows = Callable[[gs.Variable], gs.Variable]

_ACTIVATION_OPS = {"tanh": "Tanh", "relu": "Relu", "gelu": "Gelu"}


@dataclass(frozen=True)
class HeadPlan:
    """What the heads of a bundle's tasks need of the graph.

    Attributes:
        hidden: the size of a hidden vector.
        poolings: what a task may read, in the order of `head.pooling`.
        activation: of the dense layer, or None where no task has one.
        inner: the size of the dense layer's output; `hidden` without one.
        tokens: whether a task reads every token.
    """

    hidden: int
    poolings: tuple[str, ...]
    activation: str | None = None
    inner: int = 0
    tokens: bool = False

    @property
    def has_choice(self) -> bool:
        """Whether tasks with and without the dense layer may share the graph: both give the classifier one size."""
        return self.activation is not None and self.inner == self.hidden

    @property
    def entries(self) -> tuple[HeadEntry, ...]:
        """The head's part of a layout, in the order in which a row stores it."""
        entries = [HeadEntry(HEAD_POOLING, (len(self.poolings),))]
        if self.activation is not None:
            entries += [
                HeadEntry(HEAD_DENSE_WEIGHT, (self.inner, self.hidden)),
                HeadEntry(HEAD_DENSE_BIAS, (self.inner,)),
            ]
        if self.has_choice:
            entries.append(HeadEntry(HEAD_CHOICE, (2,)))
        return (*entries, HeadEntry(HEAD_WEIGHT, ("labels", self.inner)), HeadEntry(HEAD_BIAS, ("labels",)))


def plan_head(graph: gs.Graph, deltas: Iterable[TaskDelta]) -> HeadPlan:
    """The head that serves all of these tasks, and others of the same kinds.

    Raises:
        CompileError: two tasks whose heads no one graph can run.
    """
    outputs = {output.name: output for output in graph.outputs}
    hidden = int(outputs["last_hidden_state"].shape[-1])
    tasks = list(deltas)
    wanted = {task.config.pooling for task in tasks}
    # Where no task reads more than the first token, the last layer need not compute the others.
    optional = {"pooler": "pooler_output" in outputs, "mean": "mean" in wanted, "last": "last" in wanted}
    poolings = tuple(name for name in POOLINGS if optional.get(name, True))
    kinds = {
        (task.config.activation, task.head["classifier.weight"].shape[1]) for task in tasks if task.config.activation
    }
    if len(kinds) > 1:
        found = " and ".join(sorted(f"{activation} of {inner}" for activation, inner in kinds))
        raise CompileError(f"the heads have dense layers with {found}, expected one kind", hint="compile two bundles")
    activation, inner = kinds.pop() if kinds else (None, hidden)
    linear = [task.config.task for task in tasks if not task.config.activation]
    if linear and inner != hidden:
        raise CompileError(
            f"the task {linear[0]} has a linear head, others have a dense layer of {inner}, expected {hidden}",
            hint="compile two bundles",
        )
    return HeadPlan(hidden, poolings, activation, inner, TOKENS in wanted)


def attach_head(graph: gs.Graph, plan: HeadPlan, rows: HeadRows, leading: tuple[str, ...]) -> None:
    """Replace the traced outputs by `logits` and, where a task reads tokens, `token_logits`.

    Args:
        rows: turns a head input into its values for each row of the batch.
        leading: the dimensions that each head input has before its own: `("tasks",)` in the table layout.
    """
    outputs = {output.name: output for output in graph.outputs}
    inputs = {entry.name: gs.Variable(entry.name, np.float32, [*leading, *entry.shape]) for entry in plan.entries}
    graph.inputs += inputs.values()
    values = {name: rows(tensor) for name, tensor in inputs.items()}

    vectors = [_pool(graph, name, outputs) for name in plan.poolings]
    pooled = _choose(graph, "head/pooled", vectors, values[HEAD_POOLING])  # [batch, hidden, 1]
    if plan.activation is not None:
        pooled = _apply_dense(graph, plan, pooled, values)
    scores = emit(graph, "MatMul", "head/scores_3d", [values[HEAD_WEIGHT], pooled])  # [batch, labels, 1]
    scores = emit(graph, "Squeeze", "head/scores", [scores, [2]])
    logits = emit(graph, "Add", LOGITS, [scores, values[HEAD_BIAS]], shape=[BATCH, "labels"])
    graph.outputs = [logits]
    if plan.tokens:
        graph.outputs.append(_score_tokens(graph, outputs["last_hidden_state"], values))
    graph.cleanup().toposort()


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
    return emit(graph, "Add", TOKEN_LOGITS, [product, bias], shape=[BATCH, SEQUENCE, "labels"])


def _pool(graph: gs.Graph, name: str, outputs: Mapping[str, gs.Variable]) -> gs.Variable:
    """One pooled vector, [batch, hidden, 1]; the same arithmetic as `task_model.pool`."""
    hidden = outputs["last_hidden_state"]
    if name == "pooler":
        return emit(graph, "Unsqueeze", "head/pooled_pooler", [outputs["pooler_output"], [2]])
    if name == "cls":
        first = emit(graph, "Gather", "head/first_token", [hidden, 0], axis=1)
        return emit(graph, "Unsqueeze", "head/pooled_cls", [first, [2]])
    mask = next((tensor for tensor in graph.inputs if tensor.name == "attention_mask"), None)
    if mask is None:
        raise CompileError(
            f"a task reads the base's {name}, but the base takes no attention_mask", hint="use --pooling cls"
        )
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
