"""The losses of the problem types, as nodes behind the logits.

Of an item with logits z and targets t, over the labels k of its task:

    single_label   - sum_k t_k log softmax(z)_k
    multi_label    1 / K sum_k (softplus(z_k) - t_k z_k)
    regression     (z_0 - t_0)^2
    token          - sum_s sum_k t_sk log softmax(z_s)_k
    span           - 1/2 sum_c sum_s t_sc log softmax(z_c)_s, over the tokens s that the mask keeps; c is start or end
                   (or over all tokens of the batch, padding included, as PyTorch's training has it)

Targets are numbers for each label, so a class weight is a factor of the target, and a token whose targets are zero is
ignored. The loss of a batch is the sum of its items' losses, each times its weight.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import numpy as np
import onnx
import onnx_graphsurgeon as gs

from bitfit_export.bundle import LABELS
from bitfit_export.bundle.interface import (
    ATTENTION_MASK,
    ITEM_LOSSES,
    ITEM_WEIGHTS,
    LABEL_COUNTS,
    LOGITS,
    LOSS,
    PROBLEM_TYPE_IDS,
    TARGETS,
    TOKEN_LOGITS,
    TOKEN_TARGETS,
)
from bitfit_export.bundle.row_format import PROBLEM_CODES
from bitfit_export.compiler.gradients.adder import Adder
from bitfit_export.compiler.graph.dimensions import BATCH
from bitfit_export.compiler.graph.edit import emit

__all__ = ["add_losses"]

#: What is added to the logit of a label that a task lacks, and of a token that the mask drops; not -inf, for 0 times it
#: is to be 0.
_NEVER = -1e9


def add_losses(graph: gs.Graph, inputs: Mapping[str, gs.Variable], *, spans_in_padding: bool = False) -> gs.Variable:
    """Adds the losses of all problem types to a graph with logits, and makes `loss` and `item_losses` its outputs.

    Args:
        inputs: those of `training_inputs_of`, by name.
        spans_in_padding: the softmax of a span task is over all tokens of the batch, as PyTorch's training has it.

    Returns:
        The loss, float32 [1].
    """
    add = _Adder(graph, "loss")
    outputs = {output.name: output for output in graph.outputs}
    is_of = {name: add.is_problem(inputs[PROBLEM_TYPE_IDS], code) for name, code in PROBLEM_CODES.items()}
    logits, targets = outputs[LOGITS], inputs[TARGETS]
    has_label = add.has_label(inputs[LABEL_COUNTS], logits)
    losses = {
        "single_label": add("Neg", add.rows_sum(add("Mul", targets, add.log_softmax(logits, has_label, axis=1)), [1])),
        "multi_label": _binary(add, logits, targets, has_label, inputs[LABEL_COUNTS]),
        "regression": _squared(add, logits, targets),
    }
    if TOKEN_LOGITS in outputs:
        mask = next(tensor for tensor in graph.inputs if tensor.name == ATTENTION_MASK)
        kept = None if spans_in_padding else _kept(add, mask)
        losses |= _over_tokens(add, outputs[TOKEN_LOGITS], inputs[TOKEN_TARGETS], has_label, kept)
    # Where, not a product: the loss of another problem type may be infinite.
    total = add.number(0)
    for name, values in losses.items():
        total = add("Where", is_of[name], values, total)
    each = emit(graph, "Identity", ITEM_LOSSES, [total], shape=[BATCH])
    weighted = add("Mul", each, inputs[ITEM_WEIGHTS])
    loss = emit(graph, "ReduceSum", LOSS, [weighted, [0]], shape=[1], keepdims=1)
    graph.outputs = [loss, each, *graph.outputs]
    return loss


def _binary(add: _Adder, logits: gs.Tensor, targets: gs.Tensor, has_label: gs.Tensor, counts: gs.Tensor) -> gs.Tensor:
    each = add("Sub", add("Softplus", logits), add("Mul", targets, logits))
    own = add("Where", has_label, each, add.number(0))
    return add("Div", add.rows_sum(own, [1]), add("Cast", counts, to=onnx.TensorProto.FLOAT))


def _squared(add: _Adder, logits: gs.Tensor, targets: gs.Tensor) -> gs.Tensor:
    difference = add("Sub", *(add("Gather", each, _first(add), axis=1) for each in (logits, targets)))
    return add("Mul", difference, difference)


def _first(add: _Adder) -> gs.Constant:
    return gs.Constant(add.name("first"), np.array(0, np.int64))


def _kept(add: _Adder, mask: gs.Tensor) -> gs.Tensor:
    """Whether the mask keeps a token, bool [batch, sequence, 1]."""
    return add("Unsqueeze", add("Greater", mask, 0, dtype=np.bool_), [2], dtype=np.bool_)


def _over_tokens(
    add: _Adder, logits: gs.Tensor, targets: gs.Tensor, has_label: gs.Tensor, kept: gs.Tensor | None
) -> dict[str, gs.Tensor]:
    labels = add("Unsqueeze", has_label, [1], dtype=np.bool_)
    found = {}
    for name, allowed, axis, factor in (("token", labels, 2, -1.0), ("span", kept, 1, -0.5)):
        product = add("Mul", targets, add.log_softmax(logits, allowed, axis=axis))
        found[name] = add("Mul", add.rows_sum(product, [1, 2]), add.number(factor))
    return found


class _Adder(Adder):
    """Adds the nodes of losses."""

    def rows_sum(self, values: gs.Tensor, axes: Sequence[int]) -> gs.Variable:
        """The sum for each item, [batch]."""
        return self("ReduceSum", values, axes, keepdims=0)

    def is_problem(self, problem_types: gs.Tensor, code: int) -> gs.Variable:
        return self("Equal", problem_types, code, dtype=np.bool_)

    def has_label(self, counts: gs.Tensor, logits: gs.Tensor) -> gs.Variable:
        """Whether a task has a label, bool [batch, labels]: heads in a table have the labels of the largest."""
        labels = self("Squeeze", self("Shape", logits, dtype=np.int64, start=1, end=2), [0], dtype=np.int64)
        every = self("Range", _first(self), labels, self._one(), dtype=np.int64, shape=[LABELS])
        return self("Less", every, self("Unsqueeze", counts, [1], dtype=np.int64), dtype=np.bool_)

    def _one(self) -> gs.Constant:
        return gs.Constant(self.name("one"), np.array(1, np.int64))

    def log_softmax(self, logits: gs.Tensor, allowed: gs.Tensor | None, *, axis: int) -> gs.Variable:
        """The logarithm of a softmax among what is allowed; None allows all."""
        among = logits if allowed is None else self("Where", allowed, logits, self.number(_NEVER))
        return self("LogSoftmax", among, axis=axis)
