"""Where tokens stand in a padded batch, as indices that a graph computes from its mask."""

from __future__ import annotations

from functools import cached_property

import numpy as np
import onnx_graphsurgeon as gs

from bitfit_export.bundle.interface import TASK_IDS
from bitfit_export.compiler.graph.dimensions import BATCH, SEQUENCE, TOKENS
from bitfit_export.compiler.graph.edit import Operand, emit

__all__ = ["TokenIndices"]


class TokenIndices:
    """Tensors of int64 that a graph computes from `attention_mask`, each once, and only where something needs it."""

    def __init__(self, graph: gs.Graph, mask: gs.Variable) -> None:
        self._graph, self._mask = graph, mask

    @cached_property
    def _flat_mask(self) -> gs.Variable:
        return self._emit("Reshape", "padding/mask", [self._mask, [-1]])

    @cached_property
    def tokens(self) -> gs.Variable:
        """Where each token stands in [batch * sequence], int64 [tokens]."""
        found = self._emit("NonZero", "padding/kept", [self._flat_mask])
        return self._emit("Squeeze", "padding/tokens", [found, [0]], shape=[TOKENS])

    @cached_property
    def places(self) -> gs.Variable:
        """Which token stands at each place, int64 [batch, sequence]; at padding the last one before it."""
        count = self._emit("CumSum", "padding/count", [self._flat_mask, 0])
        number = self._emit("Sub", "padding/number", [count, 1])
        number = self._emit("Max", "padding/number_from_0", [number, 0])
        shape = self._emit("Shape", "padding/shape", [self._mask])
        return self._emit("Reshape", "padding/places", [number, shape], shape=[BATCH, SEQUENCE])

    @cached_property
    def _length(self) -> gs.Variable:
        return self._emit("Shape", "padding/sequence", [self._mask], start=1, end=2)

    @cached_property
    def items(self) -> gs.Variable:
        """The item of each token, int64 [tokens]."""
        return self._emit("Div", "padding/item_of_token", [self.tokens, self._length])

    @cached_property
    def columns(self) -> gs.Variable:
        """The position of each token in its text, int64 [tokens]."""
        return self._emit("Mod", "padding/column", [self.tokens, self._length])

    @cached_property
    def rows(self) -> gs.Variable:
        """The bias row of each token, int64 [tokens]; [1] where one serves the whole batch: nothing is copied."""
        task_ids = next(tensor for tensor in self._graph.inputs if tensor.name == TASK_IDS)
        rows = self._emit("Shape", "padding/rows", [task_ids])
        last = self._emit("Sub", "padding/last_row", [rows, 1])
        # 1 for one row, more than all tokens for several. OpenVINO computes sizes in 32 bits, so no larger than that.
        several = self._emit("Min", "padding/several_rows", [last, 1])
        count = self._emit("Shape", "padding/token_count", [self.tokens])
        end = self._emit("Mul", "padding/tokens_if_several", [several, count])
        end = self._emit("Add", "padding/rows_to_gather", [end, 1])
        item = self._emit("Min", "padding/row_of_token", [self.items, last])
        return self._emit("Slice", "padding/row", [item, [0], end])

    @cached_property
    def firsts(self) -> gs.Variable:
        """The first token of each text, int64 [batch]."""
        return self._emit("Gather", "padding/first", [self.places, 0], axis=1)

    @cached_property
    def firsts_2d(self) -> gs.Variable:
        return self._emit("Unsqueeze", "padding/first_2d", [self.firsts, [1]])

    def _emit(self, op: str, name: str, inputs: list[Operand], **more: object) -> gs.Variable:
        return emit(self._graph, op, name, inputs, np.int64, **more)  # type: ignore[arg-type]
