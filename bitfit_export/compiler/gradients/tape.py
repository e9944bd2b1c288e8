"""What rules build gradients with: nodes with names of their own, and what is known of shapes."""

from __future__ import annotations

import itertools
import math
from collections.abc import Sequence

import numpy as np
import onnx_graphsurgeon as gs

from bitfit_export.compiler.graph.constants import int64s
from bitfit_export.compiler.graph.dimensions import Size
from bitfit_export.compiler.graph.edit import Operand, emit

__all__ = ["Tape", "sizes_known"]


def sizes_known(tensor: gs.Tensor) -> list[Size]:
    """Returns the sizes of a tensor whose rank is known, which shape inference sees to."""
    assert tensor.shape is not None, tensor.name
    return [size if isinstance(size, (int, str)) else None for size in tensor.shape]


class Tape:
    """Adds the nodes of gradients to a graph.

    A size of the graph that is not known as a number is read from the tensor when the graph runs.
    """

    def __init__(self, graph: gs.Graph) -> None:
        self.graph = graph
        self._numbers = itertools.count()
        self._shapes: dict[int, gs.Variable] = {}

    def make(
        self,
        op: str,
        *inputs: Operand,
        dtype: np.dtype | type[np.generic] = np.float32,
        shape: Sequence[Size] | None = None,
        **attrs: object,
    ) -> gs.Variable:
        """Adds a node and returns its output."""
        name = f"gradient/{next(self._numbers)}/{op}"
        return emit(self.graph, op, name, inputs, dtype, shape=shape, **attrs)

    def number(self, value: float) -> gs.Constant:
        """Returns a float32 scalar."""
        return gs.Constant(f"gradient/{next(self._numbers)}/number", np.array(value, np.float32))

    def shape_of(self, tensor: gs.Tensor) -> gs.Tensor:
        """Returns the shape of a tensor as int64 [rank]: a constant where it is known."""
        sizes = None if tensor.shape is None else sizes_known(tensor)
        if sizes is not None and all(isinstance(size, int) for size in sizes):
            return int64s(f"gradient/{next(self._numbers)}/shape", [int(size) for size in sizes if size is not None])
        if id(tensor) not in self._shapes:
            self._shapes[id(tensor)] = self.make("Shape", tensor, dtype=np.int64)
        return self._shapes[id(tensor)]

    def size_of(self, tensor: gs.Tensor, axis: int) -> gs.Tensor:
        """Returns the size of one axis, int64 [1]."""
        size = sizes_known(tensor)[axis]
        if isinstance(size, int):
            return int64s(f"gradient/{next(self._numbers)}/size", [size])
        return self.make("Slice", self.shape_of(tensor), [axis], [axis + 1], [0], dtype=np.int64)

    def zeros(self, shape: gs.Tensor) -> gs.Variable:
        """Returns float32 zeros of a shape."""
        return self.make("Expand", self.number(0), shape)

    def scaled(self, tensor: gs.Tensor, factor: float) -> gs.Tensor:
        """Returns the tensor times a number."""
        return tensor if factor == 1 else self.make("Mul", tensor, self.number(factor), shape=tensor.shape)

    def like(self, tensor: gs.Tensor, target: gs.Tensor) -> gs.Variable:
        """Returns the values of a tensor in the shape of another, which has as many."""
        return self.make("Reshape", tensor, self.shape_of(target), shape=target.shape)

    def summed_to(self, gradient: gs.Tensor, operand: gs.Tensor, result: gs.Tensor) -> gs.Tensor:
        """Returns the gradient of an operand that was broadcast: the sum over what broadcasting repeated.

        Args:
            gradient: of the result, and of its shape.
            operand: what was broadcast to the shape of `result`.
        """
        mine, whole = sizes_known(operand), sizes_known(result)
        leading = len(whole) - len(mine)
        pairs = list(zip(mine, whole[leading:], strict=True))
        if any(_may_be_broadcast(*pair) for pair in pairs):
            return self._summed_at_run_time(gradient, operand, leading)
        repeated = [leading + axis for axis, (size, other) in enumerate(pairs) if size == 1 and other != 1]
        if leading == 0 and not repeated:
            return gradient
        kept = self.make("ReduceSum", gradient, [*range(leading), *repeated], keepdims=int(leading == 0))
        if leading == 0 or not repeated:
            kept.shape = operand.shape
            return kept
        return self.like(kept, operand)

    def _summed_at_run_time(self, gradient: gs.Tensor, operand: gs.Tensor, leading: int) -> gs.Variable:
        """Sums over the axes whose size is 1 in the operand; a sum over one value changes nothing."""
        own = self.shape_of(operand)
        padded = self.make("Concat", [1] * leading, own, dtype=np.int64, axis=0) if leading else own
        is_one = self.make("Equal", padded, 1, dtype=np.bool_)
        axes = self.make("Reshape", self.make("NonZero", is_one, dtype=np.int64), [-1], dtype=np.int64)
        summed = self.make("ReduceSum", gradient, axes, keepdims=1, noop_with_empty_axes=1)
        return self.like(summed, operand)


def _may_be_broadcast(size: Size, other: Size) -> bool:
    """Returns whether it is open if an axis of an operand was repeated to get that of the result."""
    return not isinstance(size, int) and (size is None or size != other)


def element_count(sizes: Sequence[Size]) -> int | None:
    """Returns the number of elements, where it is known."""
    known = [size for size in sizes if isinstance(size, int)]
    return math.prod(known) if len(known) == len(sizes) else None
