"""Propagate the batch axis: what depends on biases but on no input gets a dimension for the items of the batch.

DeBERTa's relative positions have biases: its table of positions goes through a LayerNorm and through the layers'
projections without any batch, and meets the tokens' vectors only afterwards. Where biases differ per item, so does the
table. This pass adds the dimension `rows` at such a use of a bias, and follows it to where it meets the batch.

Requires: a graph whose bias uses are canonical.
Ensures: the same function, and the same numbers of dimensions whether `rows` is 1 or the batch.
Does not: guess. Where a node on the way has no rule here, everything stays as it was, for that bias.
"""

from __future__ import annotations

import functools
from collections.abc import Callable, Iterable
from dataclasses import dataclass, field
from enum import Enum

import numpy as np
import onnx_graphsurgeon as gs

from bitfit_export.compiler.compilation import Compilation, Fact, Pass
from bitfit_export.compiler.graph.constants import int64s
from bitfit_export.compiler.graph.dimensions import BATCH, ROWS, Size
from bitfit_export.compiler.graph.edit import emit, is_output, uses_of
from bitfit_export.compiler.graph.shapes import is_number, known_integers, producer_of, sizes_of
from bitfit_export.compiler.graph.weights import weight_in

__all__ = ["PropagateBatchAxis", "propagate_batch_axis"]

_UNARY = frozenset({"Cast", "CastLike", "Dropout", "Identity"})
_BINARY = frozenset({"Add", "Div", "MatMul", "Mul", "Sub"})


class PropagateBatchAxis(Pass):
    """Give what depends on biases alone a dimension for the batch."""

    name = "propagate_batch_axis"
    requires = frozenset({Fact.CANONICAL})
    ensures = frozenset({Fact.BATCH_AXIS})

    def run(self, compilation: Compilation) -> bool:
        return propagate_batch_axis(compilation.graph, compilation.base.biases)


def propagate_batch_axis(graph: gs.Graph, names: Iterable[str]) -> bool:
    """Give each use of the named bias terms that has no batch a batch axis; returns whether the graph changed."""
    tensors = graph.tensors()
    found: dict[str, _Axis] = {}
    for bias in (tensors[name] for name in names if isinstance(tensors.get(name), gs.Constant)):
        for node, index in uses_of(bias):
            kind = _axis_kind(node, index, bias)
            if kind is None or node.outputs[0].name in found:
                continue
            propagation = _Propagation(graph, dict(found))
            try:
                propagation.start(node, index, _Axis(kind))
            except _UnknownNodeError:
                continue
            propagation.apply()
            found = propagation.axes
    return bool(found)


class _UnknownNodeError(Exception):
    """A node without a rule for the batch axis."""


class _Kind(Enum):
    """How a tensor gets its batch axis."""

    NEW = "in front of its first dimension"
    FIRST = "its first dimension, which is 1, becomes the batch axis"
    MERGED = "its first dimension is multiplied by the number of items"


@dataclass(frozen=True)
class _Axis:
    """The batch axis of one tensor.

    Attributes:
        size: of the first dimension for one item, where the batch axis is merged into it.
    """

    kind: _Kind
    size: int = 1

    def sizes(self, before: list[Size]) -> list[Size]:
        """The sizes of a tensor that had these."""
        if self.kind is _Kind.NEW:
            return [ROWS, *before]
        return [ROWS if self.kind is _Kind.FIRST else f"{self.size}*{ROWS}", *before[1:]]


_NEW, _FIRST = _Axis(_Kind.NEW), _Axis(_Kind.FIRST)


def _axis_kind(node: gs.Node, index: int, bias: gs.Constant) -> _Kind | None:
    """How the result of a node that adds a bias [n] to a tensor [1, m, n] or [m, n] without a batch gets its axis."""
    sizes, width = sizes_of(node.outputs[0]), sizes_of(bias)
    if not (node.op == "Add" or (node.op == "LayerNormalization" and index == 2)):
        return None
    if sizes is None or width is None or width != sizes[-1:] or sizes[0] in (BATCH, ROWS):
        return None
    if len(sizes) == 2:
        return _Kind.NEW
    return _Kind.FIRST if len(sizes) == 3 and sizes[0] == 1 else None


@dataclass
class _Propagation:
    """The tensors that one bias makes differ per item, and the changes that give them their batch axis.

    Attributes:
        axes: by the names of the tensors, those of biases before this one included.
        edits: to be made once every node on the way has been understood.
    """

    graph: gs.Graph
    axes: dict[str, _Axis]
    edits: list[Callable[[], None]] = field(default_factory=list)

    def start(self, node: gs.Node, index: int, axis: _Axis) -> None:
        if axis == _NEW:
            # An Add has the tensor at its other input, a LayerNormalization at its first.
            self.edits.append(lambda: self._unsqueeze_input(node, 1 - index if node.op == "Add" else 0))
        self._follow(node.outputs[0], axis)

    def apply(self) -> None:
        for edit in self.edits:
            edit()

    def _follow(self, tensor: gs.Variable, axis: _Axis) -> None:
        if tensor.name in self.axes:
            if self.axes[tensor.name] != axis:
                raise _UnknownNodeError
            return
        if is_output(self.graph, tensor):
            raise _UnknownNodeError
        self.axes[tensor.name] = axis
        if tensor.shape is not None:
            self.edits.append(lambda: _set_sizes(tensor, axis.sizes(tensor.shape)))
        rules = {_Kind.NEW: self._after_new, _Kind.FIRST: self._after_first, _Kind.MERGED: self._after_merged}
        for node, index in uses_of(tensor):
            next_axis = rules[axis.kind](node, index, axis)
            if next_axis is not None:
                self._follow(node.outputs[0], next_axis)

    def _after_new(self, node: gs.Node, index: int, axis: _Axis) -> _Axis | None:
        """The axis after a node whose input lacks a dimension for it; None if it goes no further."""
        if index == 0 and (node.op in _UNARY or weight_in(node) is not None):
            return axis
        if node.op == "Add" and _is_vector(node.inputs[1 - index]):
            return axis
        if node.op == "Unsqueeze" and known_integers(node.inputs[1]) == [0]:
            # The dimension that it would make is there now.
            self.edits.append(lambda: _make_identity(node))
            return _FIRST
        if node.op == "Slice" and index == 0 and len(node.inputs) > 3:
            axes = known_integers(node.inputs[3])
            if axes is not None and min(axes) >= 0:
                later = [each + 1 for each in axes]
                self.edits.append(lambda: _set_input(node, 3, later))
                return axis
        if node.op == "Shape" and not node.attrs:
            self.edits.append(lambda: node.attrs.update(start=1))
            return None
        raise _UnknownNodeError

    def _after_first(self, node: gs.Node, index: int, axis: _Axis) -> _Axis | None:
        if index == 0 and (node.op in _UNARY or weight_in(node) is not None):
            return axis
        if node.op == "Transpose" and node.attrs.get("perm", [None])[0] == 0:
            return axis
        if node.op == "Reshape" and index == 0:
            return self._after_reshape(node)
        if node.op in _BINARY:
            other = node.inputs[1 - index]
            if node.op != "MatMul" and (is_number(other) or _is_vector(other)):
                return axis
            if _meets_batch(node.inputs[index], other, node.outputs[0]):
                return None
        raise _UnknownNodeError

    def _after_reshape(self, node: gs.Node) -> _Axis:
        before, after = sizes_of(node.inputs[0]), sizes_of(node.outputs[0])
        known, computed = _first_sizes(node.inputs[1])
        if known[:1] == [1]:
            self.edits.append(lambda: self._keep_first_dimension(node, known[1:], computed))
            return _FIRST
        # [1, heads, ...] becomes [heads, ...].
        is_known = before is not None and after == before[1:] and None not in after
        if known[:1] == [-1] and after and is_known and isinstance(after[0], int):
            return _Axis(_Kind.MERGED, after[0])
        raise _UnknownNodeError

    def _after_merged(self, node: gs.Node, index: int, axis: _Axis) -> _Axis | None:
        if index == 0 and node.op in _UNARY:
            return axis
        if node.op == "Expand" and set(known_integers(node.inputs[1]) or [0]) == {1}:
            return axis
        if node.op == "Tile" and index == 0:
            repeats = producer_of(node.inputs[1])
            if repeats is not None and repeats.op == "Concat":
                first, *others = repeats.inputs
                if all(known_integers(each) == [1] for each in others):
                    self.edits.append(lambda: self._repeat_less(node, first, others, axis.size))
                    return None
        raise _UnknownNodeError

    def _unsqueeze_input(self, node: gs.Node, index: int) -> None:
        value = node.inputs[index]
        name = f"{node.outputs[0].name}/input_{index}_with_rows"
        node.inputs[index] = emit(self.graph, "Unsqueeze", name, [value, [0]], value.dtype, before=node)

    def _keep_first_dimension(self, node: gs.Node, known: list[int], computed: list[gs.Tensor]) -> None:
        """Reshape to [1, ...] becomes Reshape to [0, ...], where 0 stands for the input's own size.

        Args:
            known: the sizes after the first.
            computed: the tensors that hold those after these.
        """
        node.attrs.pop("allowzero", None)
        if not computed:
            _set_input(node, 1, [0, *known])
            return
        name = f"{node.outputs[0].name}/shape_with_rows"
        node.inputs[1] = emit(self.graph, "Concat", name, [[0, *known], *computed], np.int64, before=node, axis=0)

    def _repeat_less(self, node: gs.Node, first: gs.Tensor, others: list[gs.Tensor], size: int) -> None:
        """[size, ...] was repeated per item of the batch; [rows * size, ...] is repeated `rows` times less."""
        make = functools.partial(emit, self.graph, dtype=np.int64, before=node)
        name = node.outputs[0].name
        merged = make("Shape", f"{name}/merged_size", [node.inputs[0]], start=0, end=1)
        rows = make("Div", f"{name}/rows", [merged, [size]])
        repeats = make("Div", f"{name}/repeats_of_rows", [first, rows])
        node.inputs[1] = make("Concat", f"{name}/repeats", [repeats, *others], axis=0)


def _set_input(node: gs.Node, index: int, values: list[int]) -> None:
    node.inputs[index] = int64s(f"{node.outputs[0].name}/input_{index}_with_rows", values)


def _set_sizes(tensor: gs.Variable, sizes: list[Size]) -> None:
    tensor.shape = sizes


def _make_identity(node: gs.Node) -> None:
    node.op, node.attrs, node.inputs = "Identity", {}, [node.inputs[0]]


def _is_vector(tensor: gs.Tensor) -> bool:
    return isinstance(tensor, gs.Constant) and len(tensor.shape) == 1


def _meets_batch(tensor: gs.Tensor, other: gs.Tensor, out: gs.Tensor) -> bool:
    """Returns whether a tensor [rows, ...] meets a tensor [batch, ...] of as many dimensions."""
    mine, theirs, result = sizes_of(tensor), sizes_of(other), sizes_of(out)
    if not mine or not theirs or not result:
        return False
    return len(mine) == len(theirs) and theirs[0] == BATCH == result[0]


def _first_sizes(shape: gs.Tensor) -> tuple[list[int], list[gs.Tensor]]:
    """The first elements of a shape as far as they are known, and the tensors that hold the others."""
    known, node = known_integers(shape), producer_of(shape)
    others: list[gs.Tensor] = []
    if known is None and node is not None and node.op == "Concat":
        first, *others = node.inputs
        known = known_integers(first)
    return known or [], others
