"""What is learnt of a row: its biases and the layers of its head, as one vector."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, TypeAlias

import numpy as np
from numpy.typing import NDArray

from bitfit_export.bundle import BiasRow, HeadEntry, Layout
from bitfit_export.bundle.interface import (
    BIAS_TABLE,
    HEAD_BIAS,
    HEAD_CHOICE,
    HEAD_POOLING,
    HEAD_WEIGHT,
    PACKED_BIAS,
    TASK_IDS,
    TRAINED_HEAD,
)
from bitfit_export.bundle.row_arrays import row_arrays

__all__ = ["BY_TOKEN", "RowParameters", "with_new_head"]

Float32Array: TypeAlias = NDArray[np.float32]
Head: TypeAlias = NDArray[np.floating[Any]]
#: The problem types whose heads read each token.
BY_TOKEN = ("token", "span")
#: The standard deviation of a new head's weights, that of BERT and of most encoders after it.
_HEAD_DEVIATION = 0.02


class RowParameters:
    """The graph inputs of one row, and views into one vector of those that are learnt.

    Attributes:
        values: float32 [number of learnt values]; a change is seen by `feeds`.
        feeds: the inputs that bring biases and head, by name, as the layout has them.
    """

    def __init__(self, row: BiasRow, layout: Layout, layout_kind: str) -> None:
        self._row, self._layout = row, layout
        in_table = layout_kind == "table"
        bias_input = BIAS_TABLE if in_table else PACKED_BIAS
        arrays = row_arrays(row, layout, "packed")
        arrays = {bias_input if name == PACKED_BIAS else name: value for name, value in arrays.items()}
        lacking = {entry.name for entry, tensor in zip(layout.head, row.head, strict=True) if not tensor.size}
        self.names = [bias_input, *(name for name in TRAINED_HEAD if name in arrays and name not in lacking)]
        self.values: Float32Array = np.concatenate([arrays[name].reshape(-1) for name in self.names])
        start = 0
        for name in self.names:
            shape, size = arrays[name].shape, arrays[name].size
            arrays[name] = self.values[start : start + size].reshape(shape)
            start += size
        self.feeds: dict[str, NDArray[np.generic]] = {
            name: value[None] if in_table else value for name, value in arrays.items()
        }
        if in_table:
            self.feeds[TASK_IDS] = np.zeros(1, np.int64)

    def gradient(self, gradients: Mapping[str, Float32Array]) -> Float32Array:
        """Returns the gradients of the learnt inputs, by their names, as one vector."""
        return np.concatenate([gradients[name].reshape(-1) for name in self.names])

    def row(self, task: str, dtype: str) -> BiasRow:
        """Returns the row with these values, as version 1 of a task.

        Args:
            dtype: of the row's values, a name of NumPy's.
        """
        arrays = {name: self.feeds[name].reshape(-1) for name in self.names}
        head = []
        for entry, tensor in zip(self._layout.head, self._row.head, strict=True):
            learnt = arrays.get(entry.name)
            head.append((tensor if learnt is None else learnt.reshape(tensor.shape)).astype(dtype))
        return BiasRow(
            task=task,
            problem_type=self._row.problem_type,
            labels=self._row.labels,
            task_version=1,
            layout_digest=self._row.layout_digest,
            biases=arrays[self.names[0]].astype(dtype),
            head=tuple(head),
        )


def with_new_head(row: BiasRow, layout: Layout, problem_type: str, labels: int, seed: int) -> BiasRow:
    """Returns a row that has the biases of `row`, and a new head with `labels` outputs.

    What the head reads stays as it is; that of a token or span task reads each token, without a dense layer. Weights
    are drawn from a normal distribution, biases are zero.
    """
    random = np.random.default_rng(seed)
    head = []
    of_row = map(_reading_tokens, layout.head, row.head) if problem_type in BY_TOKEN else row.head
    for entry, tensor in zip(layout.head, of_row, strict=True):
        shape = (labels, *tensor.shape[1:]) if entry.name in (HEAD_WEIGHT, HEAD_BIAS) else tensor.shape
        if entry.name not in TRAINED_HEAD or not tensor.size:
            head.append(tensor.astype(np.float32))
        elif entry.name.endswith(".weight"):
            head.append(random.normal(0, _HEAD_DEVIATION, shape).astype(np.float32))
        else:
            head.append(np.zeros(shape, np.float32))
    biases = row.biases.astype(np.float32)
    return BiasRow(row.task, problem_type, labels, 1, row.layout_digest, biases, tuple(head))


def _reading_tokens(entry: HeadEntry, tensor: Head) -> Head:
    """A head's tensor, as a head without pooling and dense layer has it."""
    if entry.name == HEAD_POOLING:
        return np.zeros_like(tensor)
    if entry.name == HEAD_CHOICE:
        return np.array([1, 0], tensor.dtype)
    return tensor if entry.name in (HEAD_WEIGHT, HEAD_BIAS) else tensor[:0]
