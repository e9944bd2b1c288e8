"""Part of pass 1, align: every bias enters the graph where the first dimension of a tensor is the batch.

Requires: a traced graph whose dynamic dimensions have their names.
Ensures: the same function. Where that is possible, each use of a bias term is one of
- `Add`, `Gemm` or `LayerNormalization` whose result has the batch (or `rows`) first and the bias's dimension last;
- a `Reshape` to [-1, ...] that `is_rows_view` knows: it takes the bias as [n] and, one for each row, as [b, 1, n].
Does not: refuse. A use that it can't align is left as it was, and `find_bias_sites` says why it is no site.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator

import numpy as np
import onnx_ir as ir
from onnx.reference import ReferenceEvaluator

from bitfit_export.compiler.compilation import Compilation, Fact, Pass
from bitfit_export.compiler.frontend.ir_values import add_constant, attribute, constant, dimensions, input_of
from bitfit_export.compiler.graph.dimensions import BATCH
from bitfit_export.compiler.passes.propagate_batch_axis import carry_rows

__all__ = ["align_biases", "is_rows_view"]

_VIEWS = frozenset({"Cast", "CastLike", "Identity", "Reshape", "Squeeze", "Transpose", "Unsqueeze"})
_ROWS_VIEW = "/rows_view_"


def is_rows_view(bias: str, node: str) -> bool:
    """Whether the node of this name is a `Reshape` of that bias term which this pass made."""
    return node.startswith(bias + _ROWS_VIEW)


def align_biases(model: ir.Model, names: Iterable[str]) -> None:
    """Align the uses of the named bias terms, in place."""
    graph = model.graph
    biases = [graph.initializers[name] for name in names if name in graph.initializers]
    for bias in biases:
        for node, index in list(bias.uses()):
            if node.op_type == "Gemm" and index == 2:
                _unflatten_gemm(graph, node)
            elif node.op_type == "Conv" and index == 2:
                _split_conv(graph, node, bias)
        for node, index in list(_ends(bias, bias)):
            if node.op_type == "Add":
                _straighten(graph, node, index, bias)
    carry_rows(graph, biases)


def _unflatten_gemm(graph: ir.Graph, node: ir.Node) -> None:
    """Reshape [batch, sequence, k] -> Gemm -> Reshape [batch, sequence, n] becomes MatMul -> Add.

    That is how `torch.addmm` is exported (GPT-2's Conv1D): in between, the first dimension is batch * sequence.
    """
    flat, weight, bias = (input_of(node, index) for index in range(3))
    flatten, uses = flat.producer(), [use for use, _ in node.outputs[0].uses()]
    if flatten is None or {flatten.op_type, *(use.op_type for use in uses)} != {"Reshape"}:
        return
    if node.outputs[0].is_graph_output():
        return
    wide = input_of(flatten, 0)
    sizes, width = dimensions(wide), dimensions(bias)
    if sizes is None or width is None or any(dimensions(use.outputs[0]) != (*sizes[:-1], *width) for use in uses):
        return
    if (attribute(node, "alpha", 1.0), attribute(node, "beta", 1.0), attribute(node, "transA", 0)) != (1.0, 1.0, 0):
        return
    if attribute(node, "transB", 0):
        transpose = ir.node("Transpose", [weight], {"perm": [1, 0]}, name=f"{node.name}/weight")
        graph.insert_before(node, transpose)
        weight = transpose.outputs[0]
    product = ir.node("MatMul", [wide, weight], name=f"{node.name}/product")
    add = ir.node("Add", [product.outputs[0], bias], name=f"{node.name}/sum")
    graph.insert_before(node, [product, add])
    for use in uses:
        _replace(graph, use.outputs[0], add.outputs[0])
        graph.remove(use, safe=True)
    graph.remove(node, safe=True)


def _split_conv(graph: ir.Graph, node: ir.Node, bias: ir.Value) -> None:
    """Conv with a bias becomes Conv, then Add of the bias along the second dimension."""
    out = node.outputs[0]
    sizes, width = dimensions(out), dimensions(bias)
    if sizes is None or width is None or sizes[0] != BATCH:
        return
    node.resize_inputs(2)
    view = _rows_view(graph, node, bias, (*width, *(1,) * len(sizes[2:])))
    add = ir.node("Add", [out, view], name=f"{node.name}/sum")
    graph.insert_after(node, add)
    _replace(graph, out, add.outputs[0])


def _ends(value: ir.Value, bias: ir.Value) -> Iterator[tuple[ir.Node, int]]:
    """Where a bias arrives after any view of it, save those that this pass made."""
    for node, index in value.uses():
        if node.op_type not in _VIEWS or index != 0:
            yield node, index
        elif not is_rows_view(str(bias.name), str(node.name)):
            yield from _ends(node.outputs[0], bias)


def _straighten(graph: ir.Graph, node: ir.Node, index: int, bias: ir.Value) -> None:
    """A bias that is added as [heads, 1, size], [channels, 1] or the like gets there by one Reshape."""
    value, sizes = input_of(node, index), dimensions(node.outputs[0])
    if sizes is None or sizes[0] != BATCH:
        return
    if value is bias and len(dimensions(bias) or ()) == 1 and len(sizes) < 4:
        return
    positions = _positions(value, bias)
    # A view that puts the values into another order is no Reshape.
    if positions is None or not np.array_equal(positions.reshape(-1), np.arange(positions.size)):
        return
    view_sizes = (1,) * (len(sizes) - positions.ndim) + positions.shape
    if len(view_sizes) != len(sizes) or view_sizes[0] != 1:
        return
    node.replace_input_with(index, _rows_view(graph, node, bias, view_sizes[1:]))
    _remove_unused(graph, value)


def _positions(value: ir.Value, bias: ir.Value) -> np.ndarray | None:
    """For each element of a view of the bias, which of the bias's values it is; None where that is not constant."""
    if value is bias:
        values = constant(bias)
        return None if values is None else np.arange(values.size).reshape(values.shape)
    node = value.producer()
    before = None if node is None else _positions(input_of(node, 0), bias)
    if node is None or before is None or node.op_type in ("Cast", "CastLike", "Identity"):
        return before
    if node.op_type == "Transpose":
        return np.transpose(before, attribute(node, "perm", None))
    sizes = _evaluate(input_of(node, 1)) if len(node.inputs) > 1 else None
    if sizes is None:
        return None
    if node.op_type == "Reshape":
        return None if 0 in sizes else before.reshape([int(size) for size in sizes])
    arrange = np.expand_dims if node.op_type == "Unsqueeze" else np.squeeze
    return np.asarray(arrange(before, tuple(int(axis) for axis in sizes)))


def _evaluate(value: ir.Value) -> np.ndarray | None:
    """The value of what depends on constants alone, or None."""
    node = value.producer()
    if node is None:
        return constant(value)
    feeds: dict[str, np.ndarray] = {}
    for each in node.inputs:
        array = None if each is None else _evaluate(each)
        if each is None or array is None:
            return None
        feeds[str(each.name)] = array
    (result,) = ReferenceEvaluator(ir.to_proto(node)).run(None, feeds)
    return np.asarray(result)


def _rows_view(graph: ir.Graph, before: ir.Node, bias: ir.Value, sizes: tuple[int | str, ...]) -> ir.Value:
    """The bias as [rows, *sizes], where rows is 1 for the constant and may be more once it is lifted."""
    number = sum(is_rows_view(str(bias.name), str(node.name)) for node in bias.consumers())
    name = f"{bias.name}{_ROWS_VIEW}{number}"
    target = add_constant(graph, f"{name}/shape", [-1, *(int(size) for size in sizes)])
    view = ir.node("Reshape", [bias, target], name=name)
    view.outputs[0].name = f"{name}/out"
    view.outputs[0].type = bias.type
    graph.insert_before(before, view)
    return view.outputs[0]


def _replace(graph: ir.Graph, old: ir.Value, new: ir.Value) -> None:
    """Everything that used `old`, save the node that makes `new` of it, uses `new`."""
    new.shape, new.type = old.shape, old.type
    for node, index in list(old.uses()):
        if node is not new.producer():
            node.replace_input_with(index, new)
    for index, output in enumerate(graph.outputs):
        if output is old:
            old.name, new.name = f"{old.name}/before", old.name
            graph.outputs[index] = new


def _remove_unused(graph: ir.Graph, value: ir.Value) -> None:
    """Remove the nodes that made a value which nothing uses any more."""
    node = value.producer()
    if node is not None and not value.uses():
        before = input_of(node, 0)
        graph.remove(node, safe=True)
        _remove_unused(graph, before)


class CanonicalizeBiasUses(Pass):
    """Bring each use of a bias to one of the forms that can be lifted."""

    name = "canonicalize_bias_uses"
    requires = frozenset({Fact.TRACED})
    ensures = frozenset({Fact.CANONICAL})

    def run(self, compilation: Compilation) -> bool:
        return False
