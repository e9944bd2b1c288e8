"""Let ONNX Runtime's int8 kernels add the bias to their product.

Requires: a lifted graph that ONNX Runtime's optimiser has fused.
Ensures: the same results. A bias [n] that was added to the product of such a kernel is the kernel's own input.
Does not: touch the table layout, whose biases have a batch dimension, which no kernel takes.

ONNX Runtime's optimiser does this for constant biases only, though the kernels take any [n].
"""

from __future__ import annotations

import onnx_graphsurgeon as gs

from bitfit_export.compiler.compilation import Compilation, Fact, Pass
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
    """Change the graph in place; returns the number of Adds saved."""
    outputs = {id(output) for output in graph.outputs}
    saved = 0
    for add in [node for node in graph.nodes if node.op == "Add"]:
        for product, bias in (add.inputs, reversed(add.inputs)):
            kernel = producer_of(product)
            if kernel is None or kernel.op not in _BIAS_INPUT or not _is_vector(bias):
                continue
            if len(product.outputs) == 1 and id(product) not in outputs and _take_bias(kernel, bias):
                _move(graph, kernel, add)
                saved += 1
                break
    return saved


def _is_vector(tensor: gs.Tensor) -> bool:
    return isinstance(tensor, gs.Variable) and tensor.shape is not None and len(tensor.shape) == 1


def _take_bias(kernel: gs.Node, bias: gs.Tensor) -> bool:
    position = _BIAS_INPUT[kernel.op]
    while len(kernel.inputs) <= position:
        kernel.inputs.append(gs.Variable.empty())
    if not kernel.inputs[position].is_empty():
        return False
    kernel.inputs[position] = bias
    return True


def _move(graph: gs.Graph, kernel: gs.Node, add: gs.Node) -> None:
    """Put the kernel where its Add was: there its bias is known."""
    (out,) = add.outputs
    add.inputs.clear()
    add.outputs.clear()
    kernel.outputs = [out]
    graph.nodes.remove(kernel)
    graph.nodes[graph.nodes.index(add)] = kernel
