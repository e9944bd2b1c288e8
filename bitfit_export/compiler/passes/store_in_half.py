"""Pass 5 for `--precision fp16 --target ort`: weights stored as float16, half the file, computed in float32.

Requires: a lifted model, after every pass that folds constants: folding would undo this one.
Ensures: the same inputs, outputs and biases. A matrix is cast before its first use; of a table that ids look up, only
the rows in use are.
Does not: compute in float16, for which most CPUs have no kernels. A runtime folds the casts of matrices when it loads
the model: with ONNX Runtime, load at ORT_ENABLE_BASIC, or each run casts them again.
"""

from __future__ import annotations

import numpy as np
import onnx
from onnx import TensorProto, helper, numpy_helper

from bitfit_export.compiler.graph.half import fits_half, to_half
from bitfit_export.errors import CompileError

__all__ = ["store_in_half"]

#: Smaller tensors are norms, positions and numbers.
_SMALLEST = 1024


def store_in_half(model: onnx.ModelProto) -> int:
    """Store every large float32 weight of two or more dimensions as float16, in place; give their number.

    Raises:
        CompileError: a weight that float16 can't hold.
    """
    graph = model.graph
    weights = {
        tensor.name: tensor
        for tensor in graph.initializer
        if tensor.data_type == TensorProto.FLOAT and len(tensor.dims) > 1 and np.prod(tensor.dims) >= _SMALLEST
    }
    for tensor in weights.values():
        tensor.CopyFrom(_halved(tensor))
    nodes: list[onnx.NodeProto] = []
    cast: set[str] = set()
    for node in graph.node:
        if node.op_type == "Gather" and node.input[0] in weights:
            nodes += _cast_after(node, weights[node.input[0]].name)
            continue
        # The cast gives the weight's own name, so nothing else changes.
        for name in node.input:
            if name in weights and name not in cast:
                nodes.append(_cast(weights[name].name, name))
                cast.add(name)
        nodes.append(node)
    copies = [onnx.NodeProto.FromString(node.SerializeToString()) for node in nodes]
    del graph.node[:]
    graph.node.extend(copies)
    return len(weights)


def _halved(tensor: onnx.TensorProto) -> onnx.TensorProto:
    values = numpy_helper.to_array(tensor)
    if not fits_half(values):
        largest = np.abs(values).max()
        raise CompileError(f"the weight {tensor.name} has a value of {largest:.3g}, expected one that float16 can hold")
    return numpy_helper.from_array(to_half(values), f"{tensor.name}/half")


def _cast(source: str, target: str) -> onnx.NodeProto:
    return helper.make_node("Cast", [source], [target], f"{target}/to_float", to=TensorProto.FLOAT)


def _cast_after(node: onnx.NodeProto, half: str) -> list[onnx.NodeProto]:
    output = node.output[0]
    node.input[0], node.output[0] = half, f"{output}/half"
    return [node, _cast(node.output[0], output)]
