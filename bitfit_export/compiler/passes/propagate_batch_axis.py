"""Part of pass 1, carry: what depends on biases but on no input gets a dimension for the rows of the batch.

DeBERTa's relative positions have biases: its table of positions goes through a LayerNorm and through the layers'
projections without any batch, and meets the tokens' vectors only afterwards. Where biases differ by row, so does the
table. This pass leads the first dimension, `rows`, from such a use of a bias to where it meets the batch.

Requires: as `align`.
Ensures: the same function, and the same numbers of dimensions whether `rows` is 1 or the batch.
Does not: guess. When a node on the way is none that it knows, everything stays as it was, for that bias.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable
from dataclasses import dataclass, field

import onnx_ir as ir

from bitfit_export.compiler.compilation import Compilation, Fact, Pass
from bitfit_export.compiler.frontend.ir_values import add_constant, constant, dimensions, input_of, numbers, op_behind
from bitfit_export.compiler.graph.dimensions import BATCH, ROWS

__all__ = ["carry_rows"]

_UNARY = frozenset({"Cast", "CastLike", "Dropout", "Identity"})
_BINARY = frozenset({"Add", "Div", "MatMul", "Mul", "Sub"})


class _UnknownNodeError(Exception):
    """A node through which the rows can't be led."""


@dataclass(frozen=True)
class _State:
    """Where a tensor has its rows.

    Attributes:
        kind: `new`: they come before its first dimension; `first`: its first dimension, which is 1, becomes theirs;
            `flat`: its first dimension is multiplied by them.
        size: with `flat`, the dimension without rows.
    """

    kind: str
    size: int = 0


_NEW, _FIRST = _State("new"), _State("first")


def carry_rows(graph: ir.Graph, biases: Iterable[ir.Value]) -> None:
    """Give every use of these biases that has no batch a first dimension for rows, where that can be done."""
    carried: dict[ir.Value, _State] = {}
    for bias in biases:
        for node, index in list(bias.uses()):
            out = node.outputs[0]
            state = _start(node, index, bias)
            if state is None or out in carried:
                continue
            region = _Region(graph, dict(carried))
            try:
                region.start(node, index, state)
            except _UnknownNodeError:
                continue
            region.apply()
            carried = region.states


def _start(node: ir.Node, index: int, bias: ir.Value) -> _State | None:
    """What becomes of the result of a node that adds a bias [n] to a tensor [1, m, n] or [m, n] without a batch."""
    sizes, width = dimensions(node.outputs[0]), dimensions(bias)
    if not (node.op_type == "Add" or (node.op_type == "LayerNormalization" and index == 2)):
        return None
    if sizes is None or width is None or width != sizes[-1:] or sizes[0] == BATCH:
        return None
    if len(sizes) == 2:
        return _NEW
    return _FIRST if len(sizes) == 3 and sizes[0] == 1 else None


@dataclass
class _Region:
    """The tensors that one bias makes differ by row, and the changes that lead the rows through them."""

    graph: ir.Graph
    states: dict[ir.Value, _State]
    edits: list[Callable[[], None]] = field(default_factory=list)

    def start(self, node: ir.Node, index: int, state: _State) -> None:
        if state is _NEW:
            # An Add has the tensor at its other input, a LayerNormalization at its first.
            self.edits.append(lambda: self._unsqueeze_input(node, 1 - index if node.op_type == "Add" else 0))
        self._lead(node.outputs[0], state)

    def apply(self) -> None:
        for edit in self.edits:
            edit()

    def _lead(self, value: ir.Value, state: _State) -> None:
        if value in self.states:
            if self.states[value] != state:
                raise _UnknownNodeError
            return
        if value.is_graph_output():
            raise _UnknownNodeError
        self.states[value] = state
        sizes = dimensions(value)
        if sizes is not None:
            self.edits.append(lambda: _set_sizes(value, sizes, state))
        after = {"new": self._after_new, "first": self._after_first, "flat": self._after_flat}[state.kind]
        for node, index in list(value.uses()):
            next_state = after(node, index, state)
            if next_state is not None:
                self._lead(node.outputs[0], next_state)

    def _after_new(self, node: ir.Node, index: int, state: _State) -> _State | None:
        """The state after a node whose input lacks a dimension for rows; None if the rows go no further."""
        if index == 0 and (node.op_type in _UNARY or _is_projection(node)):
            return state
        if node.op_type == "Add" and _is_vector(input_of(node, 1 - index)):
            return state
        if node.op_type == "Unsqueeze" and numbers(input_of(node, 1)) == [0]:
            # The dimension that it would make is there now.
            self.edits.append(lambda: _make_identity(node))
            return _FIRST
        if node.op_type == "Slice" and index == 0 and len(node.inputs) > 3:
            axes = numbers(input_of(node, 3))
            if axes is not None and min(axes) >= 0:
                later = [axis + 1 for axis in axes]
                self.edits.append(lambda: self._set_input(node, 3, later))
                return state
        if node.op_type == "Shape" and not node.attributes:
            self.edits.append(lambda: node.attributes.add(ir.AttrInt64("start", 1)))
            return None
        raise _UnknownNodeError

    def _after_first(self, node: ir.Node, index: int, state: _State) -> _State | None:
        if index == 0 and (node.op_type in _UNARY or _is_projection(node)):
            return state
        if node.op_type == "Transpose" and node.attributes["perm"].as_ints()[0] == 0:
            return state
        if node.op_type == "Reshape" and index == 0:
            return self._after_reshape(node)
        if node.op_type in _BINARY:
            other = input_of(node, 1 - index)
            if node.op_type != "MatMul" and (dimensions(other) == () or _is_vector(other)):
                return state
            if _meets_batch(input_of(node, index), other, node.outputs[0]):
                return None
        raise _UnknownNodeError

    def _after_reshape(self, node: ir.Node) -> _State:
        before, after = dimensions(input_of(node, 0)), dimensions(node.outputs[0])
        target = _first_number(input_of(node, 1))
        if target == 1:
            self.edits.append(lambda: self._keep_first_dimension(node))
            return _FIRST
        # [1, heads, ...] becomes [heads, ...].
        if target == -1 and before is not None and after == before[1:] and isinstance(after[0], int):
            return _State("flat", after[0])
        raise _UnknownNodeError

    def _after_flat(self, node: ir.Node, index: int, state: _State) -> _State | None:
        if index == 0 and node.op_type in _UNARY:
            return state
        if node.op_type == "Expand" and set(numbers(input_of(node, 1)) or [0]) == {1}:
            return state
        if node.op_type == "Tile" and index == 0 and op_behind(input_of(node, 1)) == "Concat":
            times = input_of(node, 1).producer()
            if times is not None and all(each is not None and numbers(each) == [1] for each in times.inputs[1:]):
                repeats = list(times.inputs)
                self.edits.append(lambda: self._repeat_less(node, repeats, state.size))
                return None
        raise _UnknownNodeError

    def _unsqueeze_input(self, node: ir.Node, index: int) -> None:
        value = input_of(node, index)
        axis = add_constant(self.graph, f"{node.name}/rows_axis", [0])
        unsqueeze = ir.node("Unsqueeze", [value, axis], name=f"{node.name}/rows")
        unsqueeze.outputs[0].type = value.type
        self.graph.insert_before(node, unsqueeze)
        node.replace_input_with(index, unsqueeze.outputs[0])

    def _keep_first_dimension(self, node: ir.Node) -> None:
        """Reshape to [1, ...] becomes Reshape to [0, ...], where 0 means: as it was."""
        node.attributes.pop("allowzero", None)
        target = input_of(node, 1)
        sizes, concat = numbers(target), target.producer()
        if sizes is not None or concat is None:
            self._set_input(node, 1, [0, *(sizes or [])[1:]])
            return
        keep = add_constant(self.graph, f"{node.name}/rows", [0])
        shape = ir.node("Concat", [keep, *concat.inputs[1:]], {"axis": 0}, name=f"{node.name}/rows_shape")
        self.graph.insert_before(node, shape)
        node.replace_input_with(1, shape.outputs[0])

    def _repeat_less(self, node: ir.Node, repeats: list[ir.Value | None], size: int) -> None:
        """[size, ...] was repeated for each row of the batch; [rows * size, ...] is repeated `rows` times less."""
        length = ir.node("Shape", [node.inputs[0]], {"start": 0, "end": 1})
        one_row = add_constant(self.graph, f"{node.name}/one_row", [size])
        rows = ir.node("Div", [length.outputs[0], one_row])
        first = ir.node("Div", [repeats[0], rows.outputs[0]])
        times = ir.node("Concat", [first.outputs[0], *repeats[1:]], {"axis": 0})
        self.graph.insert_before(node, [length, rows, first, times])
        node.replace_input_with(1, times.outputs[0])

    def _set_input(self, node: ir.Node, index: int, elements: list[int]) -> None:
        node.replace_input_with(index, add_constant(self.graph, f"{node.name}/rows_input_{index}", elements))


def _set_sizes(value: ir.Value, sizes: tuple[int | str, ...], state: _State) -> None:
    first = {"new": (ROWS, *sizes[:1]), "first": (ROWS,), "flat": (f"{state.size}*{ROWS}",)}[state.kind]
    value.shape = ir.Shape([*first, *sizes[1:]])


def _make_identity(node: ir.Node) -> None:
    node.resize_inputs(1)
    node.op_type = "Identity"


def _is_projection(node: ir.Node) -> bool:
    """Whether the node multiplies by a matrix of weights, transposed or not."""
    if node.op_type != "MatMul":
        return False
    weight = input_of(node, 1)
    transpose = weight.producer()
    if transpose is not None and transpose.op_type == "Transpose":
        weight = input_of(transpose, 0)
    matrix = constant(weight)
    return matrix is not None and matrix.ndim == 2


def _is_vector(value: ir.Value) -> bool:
    vector = constant(value)
    return vector is not None and vector.ndim == 1


def _meets_batch(value: ir.Value, other: ir.Value, out: ir.Value) -> bool:
    """Whether the rows [rows, ...] meet a tensor [batch, ...] of as many dimensions."""
    mine, theirs, result = dimensions(value), dimensions(other), dimensions(out)
    if mine is None or theirs is None or result is None:
        return False
    return len(mine) == len(theirs) and theirs[0] == BATCH == result[0]


def _first_number(value: ir.Value) -> int | None:
    """The first element of a shape, where that is constant, though others may not be."""
    elements, node = numbers(value), value.producer()
    if elements is None and node is not None and node.op_type == "Concat":
        elements = numbers(input_of(node, 0))
    return elements[0] if elements else None


class PropagateBatchAxis(Pass):
    """Give what depends on biases alone a dimension for the batch."""

    name = "propagate_batch_axis"
    requires = frozenset({Fact.CANONICAL})
    ensures = frozenset({Fact.BATCH_AXIS})

    def run(self, compilation: Compilation) -> bool:
        return False
