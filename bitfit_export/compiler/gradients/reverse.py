"""Reverse mode: from the loss back to what is trained, one rule per node.

The gradient of a node's result is known when every node that reads it has been passed, so each node is visited once, in
reverse order. Only what lies between a wanted tensor and the loss gets a gradient: a weight never does.

The package onnx-ad differentiates ONNX models, too: by every input of a model, along any number of directions at once.
Here one number is differentiated by a few inputs, and weights are to be read transposed.
"""

from __future__ import annotations

from collections.abc import Sequence

import onnx_graphsurgeon as gs

from bitfit_export.compiler.compilation import Refusal
from bitfit_export.compiler.gradients.rules import RULES, SPLIT
from bitfit_export.compiler.gradients.rules.arrangements import of_split
from bitfit_export.compiler.gradients.tape import Tape

__all__ = ["differentiate"]


def differentiate(graph: gs.Graph, loss: gs.Variable, wanted: Sequence[gs.Variable]) -> list[gs.Tensor] | Refusal:
    """Adds the gradients of a loss to a graph.

    The graph's nodes are sorted and every rank is known (`infer_shapes`). Nodes are added; one may get
    further outputs, or become several that compute the same, where its gradient reads what lies between.

    Args:
        loss: float32 [1], a result of the graph.
        wanted: graph inputs, float32.

    Returns:
        The gradient of each wanted tensor, of its shape; a tensor that the loss does not depend on gets zeros. Or a
        refusal, which names the operator on the way that has no rule.
    """
    tape = Tape(graph)
    depends = _dependents(graph, wanted)
    gradients: dict[int, gs.Tensor] = {id(loss): tape.number(1)}
    for node in reversed([node for node in graph.nodes if any(id(output) in depends for output in node.outputs)]):
        found = [gradients.get(id(output)) for output in node.outputs]
        if all(each is None for each in found):
            continue
        for index, tensor in _values_of(node):
            if id(tensor) not in depends:
                continue
            gradient = _apply_rule(tape, node, found, index)
            if gradient is None:
                return _refusal(node, index)
            before = gradients.get(id(tensor))
            both = gradient if before is None else tape.make("Add", before, gradient, shape=tensor.shape)
            gradients[id(tensor)] = both
    return [gradients.get(id(each)) or tape.zeros(tape.shape_of(each)) for each in wanted]


def _dependents(graph: gs.Graph, wanted: Sequence[gs.Variable]) -> set[int]:
    """The ids of the tensors that a gradient may flow through."""
    depends = {id(each) for each in wanted}
    for node in graph.nodes:
        if any(id(each) in depends for _, each in _values_of(node)):
            depends |= {id(each) for each in node.outputs}
    return depends


#: Their results depend on no value in a way that has a derivative.
_NO_GRADIENT = frozenset({"ArgMax", "Equal", "Greater", "Less", "Not", "OneHot", "Shape", "Size"})


def _values_of(node: gs.Node) -> list[tuple[int, gs.Tensor]]:
    """The inputs of a node whose values a derivative may be by, with their indices."""
    if node.op in _NO_GRADIENT:
        return []
    # Of its second input a CastLike reads the type alone.
    return list(enumerate(node.inputs))[: 1 if node.op == "CastLike" else None]


def _apply_rule(tape: Tape, node: gs.Node, found: Sequence[gs.Tensor | None], index: int) -> gs.Tensor | None:
    if node.op == SPLIT and node.domain in (None, "", "ai.onnx"):
        return of_split(tape, node, list(found)) if index == 0 else None
    rule = RULES.get(node.op) if node.domain in (None, "", "ai.onnx") else None
    if rule is None or found[0] is None:
        return None
    return rule(tape, node, found[0], index)


def _refusal(node: gs.Node, index: int) -> Refusal:
    lacks = "has no derivative here" if node.op not in RULES else f"has no derivative by its input {index} in this form"
    name = node.name or node.outputs[0].name
    return Refusal(
        f"the operator {node.op} (node {name}) {lacks}, and lies between a bias and the loss",
        hint="export without --trainable",
    )
