"""The inputs that one row has for a graph that runs one task at a time: one array per bias and head input."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any, TypeAlias

import numpy as np
from numpy.typing import NDArray

from bitfit_export.bundle.interface import PACKED_BIAS
from bitfit_export.bundle.layout import Layout
from bitfit_export.bundle.row import BiasRow

__all__ = ["fill_shape", "integer_biases", "row_arrays"]


Float32Array: TypeAlias = NDArray[np.float32]


def row_arrays(row: BiasRow, layout: Layout, layout_kind: str, *, labels: int | None = None) -> dict[str, Float32Array]:
    """The arrays of a row by the name of their graph input, float32, C-contiguous and the caller's own.

    Args:
        row: one that was compared with `layout`.
        layout_kind: `packed`: `bias` [N]; `named`: each bias term under its name, in its shape. Head tensors follow, in
            the layout's order.
        labels: the head inputs' number of labels, at least the row's; by default the row's. What the row's head lacks
            of these shapes is zero.
    """
    values = row.biases.astype(np.float32)
    if layout_kind == "packed":
        biases = {PACKED_BIAS: values}
    else:
        biases = {
            entry.name: values[entry.offset : entry.offset + entry.size].reshape(entry.shape) for entry in layout.biases
        }
    head = {
        entry.name: fill_shape(entry.resolve(labels or row.labels), tensor)
        for entry, tensor in zip(layout.head, row.head, strict=True)
    }
    return biases | head


def integer_biases(arrays: dict[str, NDArray[Any]], scales: Mapping[str, Sequence[float]]) -> dict[str, int]:
    """Put int32 in the place of biases: round(b / scale), saturating, zero point 0.

    Args:
        arrays: of `row_arrays`, in the layout named; changed in place.
        scales: for each value of a bias its scale.

    Returns:
        For each bias with values that saturate, their number.
    """
    saturated = {}
    least, most = np.iinfo(np.int32).min, np.iinfo(np.int32).max
    for name, scale in scales.items():
        # The graph has these scales as float32; the manifest may have them in fewer digits than a double needs.
        of_graph = np.asarray(scale, np.float32).astype(np.float64).reshape(arrays[name].shape)
        steps = np.rint(arrays[name].astype(np.float64) / of_graph)
        beyond = int(((steps < least) | (steps > most)).sum())
        if beyond:
            saturated[name] = beyond
        arrays[name] = steps.clip(least, most).astype(np.int32)
    return saturated


def fill_shape(shape: tuple[int, ...], values: NDArray[np.floating[Any]]) -> Float32Array:
    """Zeros of this shape, float32, with `values` at the start of each dimension."""
    filled = np.zeros(shape, np.float32)
    filled[tuple(slice(size) for size in values.shape)] = values
    return filled
