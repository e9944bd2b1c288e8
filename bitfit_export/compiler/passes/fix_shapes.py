"""Fix the dynamic dimensions of a graph, for accelerators that take no others (`--static-shape`).

Requires: a lifted graph of the packed or named layout.
Ensures: every graph input and output has numbers for dimensions; what follows from them alone is a constant.
"""

from __future__ import annotations

from collections.abc import Mapping

import onnx
import onnx_graphsurgeon as gs
import onnx_ir
from onnx_ir.passes import common as passes
from onnxscript.optimizer import fold_constants

from bitfit_export.bundle import LABELS
from bitfit_export.compiler.compilation import Compilation, Fact, Pass
from bitfit_export.compiler.graph.dimensions import BATCH, SEQUENCE

__all__ = ["FixShapes", "fix_shapes"]


class FixShapes(Pass):
    """Give every dynamic dimension a number."""

    name = "fix_shapes"
    requires = frozenset({Fact.LIFTED})

    def run(self, compilation: Compilation) -> bool:
        assert compilation.options.static_shape is not None
        batch, sequence = compilation.options.static_shape
        sizes = {BATCH: batch, SEQUENCE: sequence, LABELS: compilation.most_labels}
        compilation.graph = gs.import_onnx(fix_shapes(gs.export_onnx(compilation.graph), sizes))
        return True


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
