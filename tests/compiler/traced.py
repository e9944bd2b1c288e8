"""The graph that the passes after propagation meet."""

from __future__ import annotations

import onnx_graphsurgeon as gs

from bitfit_export.base_model.loading import BaseModel
from bitfit_export.compiler.passes.canonicalize_bias_uses import canonicalize_bias_uses
from bitfit_export.compiler.passes.propagate_batch_axis import propagate_batch_axis
from tests.traces import traced

__all__ = ["canonical_graph"]


def canonical_graph(base: BaseModel) -> gs.Graph:
    """The traced graph of a base model, its bias uses canonical and their batch axis propagated."""
    graph = gs.import_onnx(traced(base))
    canonicalize_bias_uses(graph, base.biases)
    propagate_batch_axis(graph, base.biases)
    return graph
