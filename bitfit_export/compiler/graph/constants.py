"""Constants of a graph: made so that they can be written, and compared so that they stay so."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import onnx_graphsurgeon as gs
from onnx import numpy_helper
from onnx_graphsurgeon.ir.tensor import LazyValues

__all__ = ["Content", "constant", "content_of", "int64s"]

#: The type, the shape and the bytes of a constant.
Content = tuple[str, tuple[int, ...], bytes]


def constant(name: str, values: np.ndarray) -> gs.Constant:
    """Returns a constant of any type, 4-bit integers included."""
    # As a tensor of onnx, which packs two 4-bit integers into a byte; onnx-graphsurgeon does not.
    return gs.Constant(name, LazyValues(numpy_helper.from_array(np.asarray(values, order="C"), name)))


def content_of(tensor: gs.Constant) -> Content:
    """Returns what a constant holds, to compare it with others; constants that are equal have equal contents."""
    # Reading `values` would leave an array in the place of onnx's tensor: 4-bit integers could not be written again.
    stored = tensor._values
    values = stored.load() if isinstance(stored, LazyValues) else stored
    return str(values.dtype), tuple(values.shape), values.tobytes()


def int64s(name: str, values: int | Sequence[int]) -> gs.Constant:
    """Returns an int64 constant: [n] for a list, a scalar for a number."""
    return gs.Constant(name, np.array(values, np.int64))
