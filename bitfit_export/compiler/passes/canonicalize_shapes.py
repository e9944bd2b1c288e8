"""Canonicalize shapes: sizes are computed once, or not at all, and nothing is computed twice.

The exporter computes the sizes of each Reshape anew, from one Shape through Squeeze, Cast, Reshape and Concat, though a
Reshape can copy a size from its input, and most of the others are known.

Requires: a graph with declared shapes; before lift.
Ensures: the same function. A Reshape, Expand or Slice reads its sizes from a constant where they can be one, else from
a Concat of numbers and of the inputs' sizes, which the graph reads once. No node stands twice: of equal nodes that
read equal tensors one is left. No Identity is left but in front of an output.
Does not: merge nodes that read float constants: a bias term, or a weight that looks like another, keeps its own node.
"""

from __future__ import annotations

import numpy as np
import onnx_graphsurgeon as gs

from bitfit_export.compiler.compilation import Compilation, Pass
from bitfit_export.compiler.graph.constants import content_of, int64s
from bitfit_export.compiler.graph.dimensions import BATCH, SEQUENCE, Size
from bitfit_export.compiler.graph.edit import bypass, emit, is_output, replace_uses
from bitfit_export.compiler.graph.shapes import integers_in, known_integers, sizes_of

__all__ = ["CanonicalizeShapes", "canonicalize_shapes"]

#: The inputs of a node that hold sizes or positions, one-dimensional.
_SIZE_INPUTS = {"Expand": (1,), "Reshape": (1,), "Slice": (1, 2, 3, 4)}
#: The axis of the text inputs that has a size of this name.
_AXES: dict[Size, int] = {BATCH: 0, SEQUENCE: 1}


class CanonicalizeShapes(Pass):
    """Compute sizes once or not at all, and nothing twice."""

    name = "canonicalize_shapes"

    def run(self, compilation: Compilation) -> bool:
        return canonicalize_shapes(compilation.graph) > 0


def canonicalize_shapes(graph: gs.Graph) -> int:
    """Change the graph in place; returns the number of nodes that it has less."""
    before = len(graph.nodes)
    for node in [node for node in graph.nodes if node.op == "Identity"]:
        if not is_output(graph, node.outputs[0]):
            bypass(graph, node, node.inputs[0])
    sizes = _Sizes(graph)
    for node in list(graph.nodes):
        if node.op == "Reshape" and _copy_sizes(node):
            continue
        if _keeps_all(node):
            bypass(graph, node, node.inputs[0])
            continue
        for index in _SIZE_INPUTS.get(node.op, ()):
            if index < len(node.inputs) and isinstance(node.inputs[index], gs.Variable):
                node.inputs[index] = sizes.simplest(node.inputs[index])
    graph.cleanup().toposort()
    _merge_equal_nodes(graph)
    graph.cleanup().toposort()
    return before - len(graph.nodes)


def _copy_sizes(node: gs.Node) -> bool:
    """Give a Reshape a constant, where all its sizes but one are numbers or those of the same axes of its input."""
    if isinstance(node.inputs[1], gs.Constant):
        return False
    wanted, own, declared = integers_in(node.inputs[1]), sizes_of(node.inputs[0]), sizes_of(node.outputs[0])
    if wanted is None or own is None:
        return False
    target: list[Size] = []
    for axis, size in enumerate(wanted):
        is_copied = axis < len(own) and own[axis] == size and isinstance(size, str)
        known = declared[axis] if size == -1 and declared is not None and isinstance(declared[axis], int) else size
        target.append(0 if is_copied else known)
    open_sizes = [axis for axis, size in enumerate(target) if not isinstance(size, int) or size < 0]
    if len(open_sizes) > 1 or 0 in wanted:
        return False
    numbers = [-1 if axis in open_sizes else size for axis, size in enumerate(target)]
    node.inputs[1] = int64s(f"{node.outputs[0].name}/sizes", [int(size or 0) for size in numbers])
    node.attrs.pop("allowzero", None)
    return True


def _keeps_all(node: gs.Node) -> bool:
    """Returns whether a node gives back its first input: an Expand to its size, or a Slice of every value."""
    if node.op == "Expand":
        return sizes_of(node.inputs[0]) == integers_in(node.inputs[1])
    if node.op != "Slice" or (len(node.inputs) > 4 and set(known_integers(node.inputs[4]) or [0]) != {1}):
        return False
    sizes = sizes_of(node.inputs[0])
    return sizes is not None and None not in sizes and sizes == sizes_of(node.outputs[0])


class _Sizes:
    """The sizes of a graph's text inputs, each read once."""

    def __init__(self, graph: gs.Graph) -> None:
        self._graph = graph
        self._source = next((each for each in graph.inputs if sizes_of(each) == [BATCH, SEQUENCE]), None)
        self._read: dict[Size, gs.Variable] = {}
        self._joined: dict[tuple[Size, ...], gs.Tensor] = {}

    def simplest(self, tensor: gs.Tensor) -> gs.Tensor:
        """A tensor with the same sizes, made of numbers and of the inputs' sizes where that is all they are."""
        values = integers_in(tensor)
        if values is None or not all(isinstance(each, int) or self._is_read(each) for each in values):
            return tensor
        key = tuple(values)
        if key not in self._joined:
            self._joined[key] = self._join(key)
        return self._joined[key]

    def _is_read(self, size: Size) -> bool:
        return size in _AXES and self._source is not None

    def _join(self, values: tuple[Size, ...]) -> gs.Tensor:
        name = "sizes/" + "_".join(map(str, values))
        numbers = [each for each in values if isinstance(each, int)]
        if len(numbers) == len(values):
            return int64s(name, numbers)
        if len(values) == 1:
            return self._axis(values[0])
        parts = [[each] if isinstance(each, int) else self._axis(each) for each in values]
        return emit(self._graph, "Concat", name, parts, np.int64, axis=0)

    def _axis(self, size: Size) -> gs.Variable:
        if size not in self._read:
            axis = _AXES[size]
            self._read[size] = emit(
                self._graph, "Shape", f"sizes/{size}", [self._source], np.int64, shape=[1], start=axis, end=axis + 1
            )
        return self._read[size]


def _merge_equal_nodes(graph: gs.Graph) -> None:
    """Keep one of several nodes that compute the same from the same."""
    first: dict[tuple[object, ...], gs.Node] = {}
    for node in list(graph.nodes):
        # Two dropouts of one tensor drop other entries of it.
        if len(node.outputs) != 1 or node.op == "Dropout" or is_output(graph, node.outputs[0]):
            continue
        read = [_identity(tensor) for tensor in node.inputs]
        if None in read:
            continue
        key = (node.op, node.domain, _attributes(node), *read)
        known = first.setdefault(key, node)
        if known is not node:
            replace_uses(node.outputs[0], known.outputs[0])


def _identity(tensor: gs.Tensor) -> object | None:
    """What makes a tensor the same as another: its content or itself; None for a float constant of several numbers."""
    if not isinstance(tensor, gs.Constant):
        return id(tensor)
    if np.issubdtype(tensor.dtype, np.floating) and np.prod(tensor.shape, dtype=int) > 1:
        return None
    return content_of(tensor)


def _attributes(node: gs.Node) -> tuple[object, ...]:
    return tuple(sorted((name, repr(value)) for name, value in node.attrs.items()))
