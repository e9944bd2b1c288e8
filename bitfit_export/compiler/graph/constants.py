"""Constants to add to a graph."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import onnx_graphsurgeon as gs
from onnx import numpy_helper
from onnx_graphsurgeon.ir.tensor import LazyValues

__all__ = ["constant", "int64s"]


def constant(name: str, values: np.ndarray) -> gs.Constant:
    """Returns a constant of any type, 4-bit integers included."""
    # As a tensor of onnx, which packs two 4-bit integers into a byte; onnx-graphsurgeon does not.
    return gs.Constant(name, LazyValues(numpy_helper.from_array(np.asarray(values, order="C"), name)))


def int64s(name: str, values: int | Sequence[int]) -> gs.Constant:
    """Returns an int64 constant: [n] for a list, a scalar for a number."""
    return gs.Constant(name, np.array(values, np.int64))
