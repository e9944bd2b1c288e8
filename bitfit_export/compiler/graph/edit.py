"""Changes that passes make to a graph: emit a node, take one out, reconnect tensors.

onnx-graphsurgeon compares tensors and nodes by their names, so everything here goes by identity.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import TypeAlias

import numpy as np
import onnx_graphsurgeon as gs

from bitfit_export.compiler.graph.constants import int64s
from bitfit_export.compiler.graph.dimensions import Size

__all__ = [
    "Operand",
    "bypass",
    "detach",
    "emit",
    "is_output",
    "only_reader",
    "remove_unused",
    "replace_uses",
    "uses_of",
]

#: An input of a new node. A number or a list of numbers stands for an int64 constant.
Operand: TypeAlias = gs.Tensor | int | Sequence[int]


def uses_of(tensor: gs.Tensor) -> list[tuple[gs.Node, int]]:
    """Returns each node that reads a tensor with the index of the input; a node that reads it twice comes twice."""
    nodes = {id(node): node for node in tensor.outputs}
    return [(node, index) for node in nodes.values() for index, each in enumerate(node.inputs) if each is tensor]


def only_reader(graph: gs.Graph, tensor: gs.Tensor) -> gs.Node | None:
    """Returns the node that alone reads a tensor, once; None where there is none, or where the tensor is an output."""
    readers = uses_of(tensor)
    return readers[0][0] if len(readers) == 1 and not is_output(graph, tensor) else None


def is_output(graph: gs.Graph, tensor: gs.Tensor) -> bool:
    """Returns whether a tensor is an output of the graph."""
    return any(each is tensor for each in graph.outputs)


def emit(
    graph: gs.Graph,
    op: str,
    name: str,
    inputs: Sequence[Operand],
    dtype: np.dtype | type[np.generic] = np.float32,
    *,
    shape: Sequence[Size] | None = None,
    out: gs.Variable | None = None,
    before: gs.Node | None = None,
    after: gs.Node | None = None,
    **attrs: object,
) -> gs.Variable:
    """Adds a node with one output and returns that output.

    Args:
        name: of the node and of its output.
        dtype: of the output, as `shape`.
        out: the output, where it is a tensor that is there already.
        before: the node goes in front of this one; the order of the graph's nodes stays valid.
        after: it goes behind this one. Without either it comes last, and the graph needs `toposort`.
    """
    out = gs.Variable(name, dtype, shape) if out is None else out
    tensors = [
        int64s(f"{name}/input_{index}", each) if isinstance(each, (int, list, tuple)) else each
        for index, each in enumerate(inputs)
    ]
    node = gs.Node(op, name, attrs, inputs=tensors, outputs=[out])
    if before is not None:
        graph.nodes.insert(_position(graph, before), node)
    elif after is not None:
        graph.nodes.insert(_position(graph, after) + 1, node)
    else:
        graph.nodes.append(node)
    return out


def detach(tensor: gs.Variable, name: str) -> gs.Variable:
    """Lets the node that makes a tensor make a new one of its type and shape instead, and returns the new one.

    The tensor keeps its readers and waits for another node to make it.
    """
    made = gs.Variable(name, tensor.dtype, tensor.shape)
    (node,) = tensor.inputs
    node.outputs = [made if each is tensor else each for each in node.outputs]
    return made


def replace_uses(old: gs.Tensor, new: gs.Tensor) -> None:
    """Lets every node that reads one tensor read another."""
    for node, index in uses_of(old):
        node.inputs[index] = new


def bypass(graph: gs.Graph, node: gs.Node, value: gs.Tensor) -> None:
    """Takes a node out of the graph: what read its output reads `value`, which gets its shape where it has none.

    A node that makes an output of the graph becomes an Identity of `value`.
    """
    out = node.outputs[0]
    if is_output(graph, out):
        node.op, node.attrs, node.inputs = "Identity", {}, [value]
        return
    if value.shape is None:
        value.dtype, value.shape = out.dtype, out.shape
    replace_uses(out, value)
    _remove(graph, node)


def remove_unused(graph: gs.Graph, tensor: gs.Tensor) -> None:
    """Removes the node that makes a tensor which nothing reads, and what only that node needed."""
    if tensor.outputs or not tensor.inputs or is_output(graph, tensor):
        return
    node = tensor.inputs[0]
    inputs = list(node.inputs)
    _remove(graph, node)
    for each in inputs:
        remove_unused(graph, each)


def _remove(graph: gs.Graph, node: gs.Node) -> None:
    node.inputs.clear()
    node.outputs.clear()
    del graph.nodes[_position(graph, node)]


def _position(graph: gs.Graph, node: gs.Node) -> int:
    return next(index for index, each in enumerate(graph.nodes) if each is node)
