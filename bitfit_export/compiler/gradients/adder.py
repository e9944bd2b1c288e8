"""Adds nodes whose names have a prefix and a number."""

from __future__ import annotations

from collections.abc import Sequence
from typing import ClassVar

import numpy as np
import onnx_graphsurgeon as gs

from bitfit_export.compiler.graph.dimensions import Size
from bitfit_export.compiler.graph.edit import Operand, emit

__all__ = ["Adder"]


class Adder:
    """Adds nodes to a graph.

    Attributes:
        dtype: of a node's result where no other is named.
    """

    dtype: ClassVar[type[np.generic]] = np.float32

    def __init__(self, graph: gs.Graph, prefix: str) -> None:
        self._graph, self._prefix, self._count = graph, prefix, 0

    def __call__(
        self,
        op: str,
        *inputs: Operand,
        dtype: type[np.generic] | None = None,
        shape: Sequence[Size] | None = None,
        **attrs: object,
    ) -> gs.Variable:
        """Adds a node and returns its result."""
        return emit(self._graph, op, self.name(op), inputs, dtype or self.dtype, shape=shape, **attrs)

    def name(self, what: str) -> str:
        """Returns a name that no other tensor has."""
        self._count += 1
        return f"{self._prefix}/{self._count}/{what}"

    def number(self, value: float, dtype: type[np.generic] | None = None) -> gs.Constant:
        """Returns a number, of the type of results."""
        return gs.Constant(self.name("number"), np.array(value, dtype or self.dtype))
