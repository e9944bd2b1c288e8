"""Store weights that are equal once.

Requires: a graph that ONNX Runtime's optimiser has fused: it packs the int4 matrix of each product anew, also where
layers share one.
Ensures: the same results.
"""

from __future__ import annotations

import onnx_graphsurgeon as gs

from bitfit_export.compiler.compilation import Compilation, Fact, Pass
from bitfit_export.compiler.graph.constants import Content, content_of

__all__ = ["ShareEqualWeights", "share_equal_weights"]

#: Smaller tensors are not worth comparing.
_SMALLEST_BYTES = 1024


class ShareEqualWeights(Pass):
    """Let products whose weights are equal read one constant."""

    name = "share_equal_weights"
    requires = frozenset({Fact.LIFTED})

    def run(self, compilation: Compilation) -> bool:
        return share_equal_weights(compilation.graph) > 0


def share_equal_weights(graph: gs.Graph) -> int:
    """Change the graph in place; returns the number of constants saved."""
    first: dict[Content, gs.Constant] = {}
    replaced: dict[int, gs.Constant] = {}
    for tensor in graph.tensors().values():
        content = content_of(tensor) if isinstance(tensor, gs.Constant) else None
        if content is not None and len(content[-1]) >= _SMALLEST_BYTES:
            kept = first.setdefault(content, tensor)
            if kept is not tensor:
                replaced[id(tensor)] = kept
    for node in graph.nodes:
        for position, tensor in enumerate(node.inputs):
            if id(tensor) in replaced:
                node.inputs[position] = replaced[id(tensor)]
    return len(replaced)
