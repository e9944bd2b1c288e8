"""Fix the dynamic dimensions of a graph, for accelerators that take no others (`--static-shape`).

Requires: a lifted graph of the packed or named layout.
Ensures: every graph input and output has numbers for dimensions; what follows from them alone is a constant.
"""

from __future__ import annotations

from collections.abc import Mapping

import onnx
import onnx_ir
from onnx_ir.passes import common as passes
from onnxscript.optimizer import fold_constants

__all__ = ["fix_shapes"]


def fix_shapes(model: onnx.ModelProto, sizes: Mapping[str, int]) -> onnx.ModelProto:
    """The model with its named dimensions set.

    Args:
        sizes: the number for each symbolic dimension: batch, sequence, labels.
    """
    for value in (*model.graph.input, *model.graph.output):
        for dimension in value.type.tensor_type.shape.dim:
            if dimension.dim_param in sizes:
                dimension.dim_value = sizes[dimension.dim_param]
    # Shapes of inner tensors were noted for any size; they are inferred again from the new ones.
    del model.graph.value_info[:]
    graph = onnx_ir.from_proto(model)
    fold_constants(graph, onnx_shape_inference=True)
    passes.RemoveUnusedNodesPass()(graph)
    fixed: onnx.ModelProto = onnx_ir.to_proto(graph)
    return fixed
