"""Fuse products: ONNX Runtime's FusedMatMul reads an operand transposed, and multiplies its result with a number.

Requires: a lifted graph whose shapes are known (`infer_shapes`); biases are inputs.
Ensures: the same results up to rounding, with fewer passes over activations:

- a MatMul of activations takes the place of its own Transposes (of the last two axes);
- a Gemm that reads a weight transposed, as gradients have it, needs no Reshape in front and behind;
- a number that the result of such a product, or of a MatMul with a weight, is multiplied with is the product's own.
  What was added before is small (a bias), and is multiplied with it instead.

Does not: transpose a weight, or change which constant a product reads, so programs go on sharing them; move biases into
Gemm, which takes as long as an Add.
"""

from __future__ import annotations

import onnx_graphsurgeon as gs

from bitfit_export.compiler.compilation import Compilation, Fact, Pass
from bitfit_export.compiler.graph.edit import bypass, emit, is_output, only_reader, uses_of
from bitfit_export.compiler.graph.shapes import producer_of, sizes_of
from bitfit_export.compiler.graph.weights import weight_in

__all__ = ["FuseProducts", "fuse_products"]

_DOMAIN = "com.microsoft"
_FUSED = "FusedMatMul"


class FuseProducts(Pass):
    """Let FusedMatMul transpose and scale."""

    name = "fuse_products"
    requires = frozenset({Fact.LIFTED})

    def run(self, compilation: Compilation) -> bool:
        return fuse_products(compilation.graph) > 0


def fuse_products(graph: gs.Graph) -> int:
    """Change the graph in place; returns the number of nodes that it has less."""
    before = len(graph.nodes)
    for node in list(graph.nodes):
        if node.op == "MatMul" and weight_in(node) is None:
            _read_transposed(graph, node)
        elif node.op == "Gemm":
            _multiply_unflattened(graph, node)
    for node in list(graph.nodes):
        if node.op == "Mul":
            _scale_product(graph, node)
    graph.cleanup().toposort()
    return before - len(graph.nodes)


def _fuse(node: gs.Node, left: gs.Tensor, right: gs.Tensor, *, left_turned: bool, right_turned: bool) -> None:
    """Let a node multiply with FusedMatMul; a turned operand is read with its last two axes exchanged."""
    node.op, node.domain, node.inputs = _FUSED, _DOMAIN, [left, right]
    node.attrs = {"alpha": node.attrs.get("alpha", 1.0), "transA": int(left_turned), "transB": int(right_turned)}


def _read_transposed(graph: gs.Graph, node: gs.Node) -> None:
    sizes = [sizes_of(each) for each in node.inputs]
    if any(each is None or len(each) < 2 for each in sizes):
        return
    (left, left_turned), (right, right_turned) = map(_turned, node.inputs)
    behind = only_reader(graph, node.outputs[0])
    if behind is not None and _turns(behind):  # (a b)^T = b^T a^T
        left, left_turned, right, right_turned = right, not right_turned, left, not left_turned
        _take_result_of(node, behind)
    if left_turned or right_turned:
        _fuse(node, left, right, left_turned=left_turned, right_turned=right_turned)


def _turned(tensor: gs.Tensor) -> tuple[gs.Tensor, bool]:
    """What a tensor is without Transposes of its last two axes, and whether these exchange them."""
    is_turned = False
    while (node := producer_of(tensor)) is not None and _turns(node):
        tensor, is_turned = node.inputs[0], not is_turned
    return tensor, is_turned


def _turns(node: gs.Node) -> bool:
    sizes = sizes_of(node.inputs[0]) if node.op == "Transpose" else None
    if sizes is None or len(sizes) < 2:
        return False
    axes = list(range(len(sizes)))
    return list(node.attrs.get("perm", axes[::-1])) == [*axes[:-2], axes[-1], axes[-2]]


def _multiply_unflattened(graph: gs.Graph, node: gs.Node) -> None:
    """Reshape(Gemm(Reshape(x, [-1, k]), b^T)) becomes x b^T."""
    before, behind = producer_of(node.inputs[0]), only_reader(graph, node.outputs[0])
    if len(node.inputs) > 2 or node.attrs.get("transA", 0) or not node.attrs.get("transB", 0):
        return
    if before is None or behind is None or {before.op, behind.op} != {"Reshape"}:
        return
    x, result = sizes_of(before.inputs[0]), sizes_of(behind.outputs[0])
    width, depth = node.inputs[1].shape
    if x is None or result is None or x[-1] != depth or [*x[:-1], width] != result or None in result:
        return
    _take_result_of(node, behind)
    _fuse(node, before.inputs[0], node.inputs[1], left_turned=False, right_turned=True)


def _take_result_of(node: gs.Node, behind: gs.Node) -> None:
    out = behind.outputs[0]
    behind.inputs.clear()
    behind.outputs.clear()
    node.outputs = [out]


def _scale_product(graph: gs.Graph, node: gs.Node) -> None:
    """Let a product multiply its result with a number that it is multiplied with later."""
    number, scaled = sorted(node.inputs, key=lambda each: not isinstance(each, gs.Constant))
    if not isinstance(number, gs.Constant) or len(number.shape) > 0 or not _feeds_only(graph, scaled, node):
        return
    made = producer_of(scaled)
    add = made if made is not None and made.op == "Add" else None
    index, product = (0, made) if add is None else _addend_and_product(graph, add)
    if product is None or (product.op != _FUSED and weight_in(product) is None):
        return
    if product.op != _FUSED:
        _fuse(product, *product.inputs, left_turned=False, right_turned=False)
    product.attrs["alpha"] *= float(number.values)
    if add is not None:
        addend = add.inputs[index]
        add.inputs[index] = emit(graph, "Mul", f"{node.name}/addend", [addend, number], shape=addend.shape)
    bypass(graph, node, scaled)


def _addend_and_product(graph: gs.Graph, add: gs.Node) -> tuple[int, gs.Node | None]:
    """Which input of an Add is a smaller tensor, and what makes the other one for it alone; None where it is not so."""
    for index, other in ((0, 1), (1, 0)):
        if _is_smaller(add.inputs[index], add.inputs[other]) and _feeds_only(graph, add.inputs[other], add):
            return index, producer_of(add.inputs[other])
    return 0, None


def _is_smaller(tensor: gs.Tensor, other: gs.Tensor) -> bool:
    """Whether a tensor is repeated to get the shape of another."""
    mine, whole = sizes_of(tensor), sizes_of(other)
    return mine is not None and whole is not None and (len(mine) < len(whole) or (1 in mine and mine != whole))


def _feeds_only(graph: gs.Graph, tensor: gs.Tensor, node: gs.Node) -> bool:
    """Whether a node alone reads the values of a tensor; others may read its shape."""
    readers = [reader for reader, _ in uses_of(tensor) if reader.op != "Shape"]
    return len(readers) == 1 and readers[0] is node and not is_output(graph, tensor)
