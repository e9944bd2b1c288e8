"""Let ONNX Runtime's int8 kernels add to their product what is added to it afterwards.

Requires: a lifted graph that ONNX Runtime's optimiser has fused.
Ensures: the same results. A bias [n] that was added to the product of such a kernel is the kernel's own input, and so
is the constant [n] that was subtracted from it. Where both were, their sum is.
Does not: touch the biases of the table layout, which have a batch dimension, which no kernel takes.

ONNX Runtime's optimiser does this for constants that are added, though the kernels take any [n].
"""

from __future__ import annotations

import onnx_graphsurgeon as gs

from bitfit_export.compiler.compilation import Compilation, Fact, Pass
from bitfit_export.compiler.graph.constants import constant
from bitfit_export.compiler.graph.edit import emit, only_reader
from bitfit_export.compiler.graph.shapes import producer_of

__all__ = ["AddBiasesInKernels", "add_biases_in_kernels"]

#: The kernels that add a bias [n] to their product on the way, and the input that takes it.
_BIAS_INPUT = {"DynamicQuantizeMatMul": 4, "MatMulIntegerToFloat": 6}


class AddBiasesInKernels(Pass):
    """Make a bias the input of the int8 kernel whose product it is added to."""

    name = "add_biases_in_kernels"
    requires = frozenset({Fact.LIFTED})

    def run(self, compilation: Compilation) -> bool:
        return add_biases_in_kernels(compilation.graph) > 0


def add_biases_in_kernels(graph: gs.Graph) -> int:
    """Change the graph in place; returns the number of Adds and Subs saved."""
    saved = 0
    for node in [node for node in graph.nodes if node.op in ("Add", "Sub")]:
        for product, bias in (node.inputs, reversed(node.inputs)):
            kernel = producer_of(product)
            if kernel is None or kernel.op not in _BIAS_INPUT or only_reader(graph, product) is None:
                continue
            vector = _vector_of(node, bias)
            if vector is not None:
                _take_bias(graph, kernel, vector, node)
                _move(graph, kernel, node)
                saved += 1
                break
    return saved


def _vector_of(node: gs.Node, bias: gs.Tensor) -> gs.Tensor | None:
    """What [n] is added; None where it is none, or not known to be one."""
    if bias.shape is None or len(bias.shape) != 1 or bias.shape == [1]:
        return None
    if node.op == "Add":
        return bias
    is_constant = isinstance(bias, gs.Constant) and node.inputs[1] is bias
    return constant(f"{bias.name}/negative", -bias.values) if is_constant else None


def _take_bias(graph: gs.Graph, kernel: gs.Node, bias: gs.Tensor, node: gs.Node) -> None:
    position = _BIAS_INPUT[kernel.op]
    while len(kernel.inputs) <= position:
        kernel.inputs.append(gs.Variable.empty())
    before = kernel.inputs[position]
    if not before.is_empty():
        bias = emit(graph, "Add", f"{node.name}/both", [before, bias], shape=bias.shape, before=node)
    kernel.inputs[position] = bias


def _move(graph: gs.Graph, kernel: gs.Node, add: gs.Node) -> None:
    """Put the kernel where its Add or Sub was: there its bias is known."""
    (out,) = add.outputs
    add.inputs.clear()
    add.outputs.clear()
    kernel.outputs = [out]
    graph.nodes.remove(kernel)
    graph.nodes[graph.nodes.index(add)] = kernel
