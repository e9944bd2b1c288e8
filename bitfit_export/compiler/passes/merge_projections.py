"""Merge projections: products of one tensor with several weights become one product, and a Split of its result.

Query, key and value read the same hidden state. One matrix [k, 3n] costs one call of a kernel instead of three and, in
int8, finds the range of the hidden state and rounds it once.

Requires: a graph whose weights are constants in float32; before or after lift.
Ensures: the same results: each column of a product is summed as before. Layers that share weights share the merged one.
Does not: merge Gemm, which in an encoder is the pooler.
"""

from __future__ import annotations

from collections import defaultdict

import numpy as np
import onnx_graphsurgeon as gs

from bitfit_export.compiler.compilation import Compilation, Pass
from bitfit_export.compiler.graph.constants import int64s
from bitfit_export.compiler.graph.shapes import sizes_of
from bitfit_export.compiler.graph.weights import Weight, weight_in

__all__ = ["MergeProjections", "merge_projections"]


class MergeProjections(Pass):
    """Multiply with one matrix where several read the same."""

    name = "merge_projections"

    def run(self, compilation: Compilation) -> bool:
        return merge_projections(compilation.graph) > 0


def merge_projections(graph: gs.Graph) -> int:
    """Change the graph in place; returns the number of products that it has less."""
    readers: dict[int, list[tuple[gs.Node, Weight]]] = defaultdict(list)
    for node in graph.nodes:
        weight = weight_in(node)
        if weight is not None:
            readers[id(node.inputs[0])].append((node, weight))
    merged: dict[tuple[tuple[str, bool], ...], gs.Constant] = {}
    saved = 0
    for products in readers.values():
        if len(products) > 1:
            _merge(graph, products, merged)
            saved += len(products) - 1
    if saved:
        graph.cleanup().toposort()
    return saved


def _merge(
    graph: gs.Graph,
    products: list[tuple[gs.Node, Weight]],
    merged: dict[tuple[tuple[str, bool], ...], gs.Constant],
) -> None:
    """Let one node multiply with the weights of all, side by side, under the name of the first."""
    first = products[0][0]
    key = tuple((weight.constant.name, weight.transposed) for _, weight in products)
    if key not in merged:
        values = np.concatenate([weight.values for _, weight in products], axis=1)
        merged[key] = gs.Constant(f"{first.name}/merged_weight", values)
    widths = [weight.shape[1] for _, weight in products]
    outputs = [node.outputs[0] for node, _ in products]
    sizes = sizes_of(outputs[0])
    shape = None if sizes is None else [*sizes[:-1], sum(widths)]
    product = gs.Variable(f"{first.name}/merged", np.float32, shape)
    source = first.inputs[0]
    for node, _ in products:
        node.inputs.clear()
        node.outputs.clear()
    graph.nodes.append(gs.Node("MatMul", first.name, {}, [source, merged[key]], [product]))
    axis = -1 if shape is None else len(shape) - 1
    parts = [product, int64s(f"{first.name}/widths", widths)]
    graph.nodes.append(gs.Node("Split", f"{first.name}/split", {"axis": axis}, parts, outputs))
