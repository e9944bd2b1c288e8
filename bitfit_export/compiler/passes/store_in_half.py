"""Weights stored as float16, half the file, computed in float32.

Requires: a lifted graph, after every pass that folds constants: folding would undo this one.
Ensures: the same inputs, outputs and biases. A matrix is cast before its first use; of a table that ids look up, only
the rows in use are.
Does not: compute in float16, for which most CPUs have no kernels. A runtime folds the casts of matrices when it loads
the model: with ONNX Runtime, load at ORT_ENABLE_BASIC, or each run casts them again.
"""

from __future__ import annotations

import math

import numpy as np
import onnx_graphsurgeon as gs
from onnx import TensorProto

from bitfit_export.compiler.compilation import Compilation, Fact, Pass
from bitfit_export.compiler.graph.edit import detach, emit, replace_uses, uses_of
from bitfit_export.compiler.graph.half import fits_half, to_half
from bitfit_export.errors import CompileError

__all__ = ["StoreInHalf", "store_in_half"]

#: Smaller tensors are norms, positions and numbers.
_SMALLEST = 1024


class StoreInHalf(Pass):
    """Store weights as float16, and compute in float32."""

    name = "store_in_half"
    requires = frozenset({Fact.LIFTED})

    def run(self, compilation: Compilation) -> bool:
        return store_in_half(compilation.graph) > 0


def store_in_half(graph: gs.Graph) -> int:
    """Store every large float32 weight of two or more dimensions as float16, in place; returns their number.

    Raises:
        CompileError: a weight that float16 cannot hold.
    """
    weights = [
        tensor
        for tensor in graph.tensors().values()
        if isinstance(tensor, gs.Constant)
        and tensor.dtype == np.float32
        and len(tensor.shape) > 1
        and math.prod(tensor.shape) >= _SMALLEST
    ]
    for weight in weights:
        _store(graph, weight)
    return len(weights)


def _store(graph: gs.Graph, weight: gs.Constant) -> None:
    if not fits_half(weight.values):
        largest = np.abs(weight.values).max()
        raise CompileError(f"the weight {weight.name} has a value of {largest:.3g}, expected one that float16 can hold")
    half = gs.Constant(f"{weight.name}/half", to_half(weight.values))
    for node, index in uses_of(weight):
        if node.op == "Gather" and index == 0:
            _cast_after(graph, node, half)
    readers = [node for node, _ in uses_of(weight)]
    if readers:
        # The cast has the weight's own name, so nothing else changes.
        single = gs.Variable(weight.name, np.float32, weight.shape)
        replace_uses(weight, single)
        first = next(node for node in graph.nodes if any(node is each for each in readers))
        emit(graph, "Cast", f"{weight.name}/to_float", [half], out=single, before=first, to=TensorProto.FLOAT)


def _cast_after(graph: gs.Graph, node: gs.Node, half: gs.Constant) -> None:
    """Look ids up in the float16 table, and widen what was found."""
    (out,) = node.outputs
    found = detach(out, f"{out.name}/half")
    found.dtype = np.dtype(np.float16)
    node.inputs[0] = half
    emit(graph, "Cast", f"{out.name}/to_float", [found], out=out, after=node, to=TensorProto.FLOAT)
