"""Shape inference over a graph whose weights may be larger than a protobuf message."""

from __future__ import annotations

import math
from collections.abc import Mapping

import onnx
import onnx_graphsurgeon as gs

from bitfit_export.compiler.graph.dimensions import Size
from bitfit_export.compiler.graph.shapes import sizes_of

__all__ = ["infer_shapes"]

#: Larger constants are weights: of these the shape is enough, of smaller ones the values count (they may be sizes).
_MOST_VALUES = 1024


def infer_shapes(graph: gs.Graph, known: Mapping[str, Size] | None = None) -> None:
    """Gives every tensor the type and shape that follow from the graph's inputs and from the shapes declared so far.

    Args:
        known: symbols of declared shapes that have become other sizes; None for one that is open.
    """
    known = known or {}
    for tensor in _variables(graph):
        declared = sizes_of(tensor)
        # Without a type a shape cannot be written down; such a tensor gets both below.
        if declared is not None and tensor.dtype is not None:
            tensor.shape = [known.get(size, size) if isinstance(size, str) else size for size in declared]
    for _ in range(2):  # what the first pass finds may be what a shape that nothing declares depends on
        tensors = {tensor.name: tensor for tensor in _variables(graph)}
        inferred = onnx.shape_inference.infer_shapes(_without_weights(graph), data_prop=True)
        for value in (*inferred.graph.value_info, *inferred.graph.output):
            if value.name in tensors and value.type.tensor_type.HasField("shape"):
                _note(tensors[value.name], value.type.tensor_type)


def _variables(graph: gs.Graph) -> list[gs.Variable]:
    return [output for node in graph.nodes for output in node.outputs]


def _note(tensor: gs.Variable, found: onnx.TypeProto.Tensor) -> None:
    tensor.dtype = onnx.helper.tensor_dtype_to_np_dtype(found.elem_type)
    sizes = [each.dim_value if each.HasField("dim_value") else each.dim_param or None for each in found.shape.dim]
    if tensor.shape is not None and len(tensor.shape) == len(sizes):
        pairs = zip(sizes, tensor.shape, strict=True)
        sizes = [size if isinstance(size, int) or before is None else before for size, before in pairs]
    tensor.shape = sizes


def _without_weights(graph: gs.Graph) -> onnx.ModelProto:
    """The graph as a model whose large constants are inputs."""
    model: onnx.ModelProto = gs.export_onnx(graph)
    kept = []
    for initializer in model.graph.initializer:
        if math.prod(initializer.dims) <= _MOST_VALUES:
            kept.append(initializer)
        else:
            shape = list(initializer.dims)
            model.graph.input.append(onnx.helper.make_tensor_value_info(initializer.name, initializer.data_type, shape))
    del model.graph.initializer[:]
    model.graph.initializer.extend(kept)
    return model
