"""Canonicalize bias uses: each bias enters the graph where the first dimension of a tensor is the batch.

Requires: a traced graph whose dynamic dimensions have their names.
Ensures: the same function. Where that is possible, each use of a bias term is one of
- `Add`, `Gemm` or `LayerNormalization` whose result has the batch first and the bias's dimension last;
- a `Reshape` that `is_batch_view` accepts: it takes the bias as [n] and, one per item of the batch, as [b, 1, n].
Does not: refuse. A use of another kind is left as it was, and `find_bias_sites` gives the reason why it is not a site.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator

import numpy as np
import onnx_graphsurgeon as gs
from onnx import TensorProto

from bitfit_export.compiler.compilation import Compilation, Fact, Pass
from bitfit_export.compiler.graph.bias_views import VIEWS, is_batch_view
from bitfit_export.compiler.graph.dimensions import BATCH
from bitfit_export.compiler.graph.edit import bypass, detach, emit, is_output, remove_unused, uses_of
from bitfit_export.compiler.graph.shapes import known_integers, producer_of, sizes_of

__all__ = ["CanonicalizeBiasUses", "canonicalize_bias_uses"]


class CanonicalizeBiasUses(Pass):
    """Bring each use of a bias to one of the forms that can be lifted."""

    name = "canonicalize_bias_uses"
    requires = frozenset({Fact.TRACED})
    ensures = frozenset({Fact.CANONICAL})

    def run(self, compilation: Compilation) -> bool:
        return canonicalize_bias_uses(compilation.graph, compilation.base.biases)


def canonicalize_bias_uses(graph: gs.Graph, names: Iterable[str]) -> bool:
    """Canonicalize the uses of the named bias terms, in place; returns whether the graph changed."""
    tensors = graph.tensors()
    changed = False
    for bias in (tensors[name] for name in names if isinstance(tensors.get(name), gs.Constant)):
        for node, index in uses_of(bias):
            if node.op == "Gemm" and index == 2:
                changed |= _unflatten_gemm(graph, node)
            elif node.op == "Conv" and index == 2:
                changed |= _split_conv(graph, node)
        for node, index in list(_ends(bias, bias)):
            if node.op == "Add":
                changed |= _view_once(graph, node, index, bias)
    return changed


def _unflatten_gemm(graph: gs.Graph, node: gs.Node) -> bool:
    """Reshape [batch, sequence, k] -> Gemm -> Reshape [batch, sequence, n] becomes MatMul -> Add.

    That is how `torch.addmm` is exported (GPT-2's Conv1D): in between, the first dimension is batch * sequence.
    """
    (flat, weight, bias), out = node.inputs, node.outputs[0]
    flatten, readers = producer_of(flat), [reader for reader, _ in uses_of(out)]
    if flatten is None or not readers or is_output(graph, out):
        return False
    if {flatten.op, *(reader.op for reader in readers)} != {"Reshape"}:
        return False
    wide, width = flatten.inputs[0], sizes_of(bias)
    sizes = sizes_of(wide)
    if sizes is None or width is None or None in sizes:
        return False
    if any(sizes_of(reader.outputs[0]) != sizes[:-1] + width for reader in readers):
        return False
    attrs = node.attrs
    if (attrs.get("alpha", 1.0), attrs.get("beta", 1.0), attrs.get("transA", 0)) != (1.0, 1.0, 0):
        return False
    if attrs.get("transB", 0):
        weight = emit(graph, "Transpose", f"{out.name}/weight", [weight], before=node, perm=[1, 0])
    product = emit(graph, "MatMul", f"{out.name}/product", [wide, weight], before=node)
    total = emit(graph, "Add", f"{out.name}/sum", [product, bias], shape=sizes[:-1] + width, before=node)
    for reader in readers:
        bypass(graph, reader, total)
    remove_unused(graph, out)
    return True


def _split_conv(graph: gs.Graph, node: gs.Node) -> bool:
    """Conv with a bias becomes Conv, then Add of the bias along the second dimension."""
    bias, out = node.inputs[2], node.outputs[0]
    sizes = sizes_of(out)
    if not sizes or sizes[0] != BATCH:
        return False
    view = _emit_view(graph, node, bias, (*bias.shape, *(1 for _ in sizes[2:])))
    del node.inputs[2]
    convolved = detach(out, f"{out.name}/without_bias")
    emit(graph, "Add", f"{out.name}/sum", [convolved, view], out=out, after=node)
    return True


def _ends(tensor: gs.Tensor, bias: gs.Constant) -> Iterator[tuple[gs.Node, int]]:
    """Where a bias arrives after any view of it that is not canonical."""
    for node, index in uses_of(tensor):
        if node.op not in VIEWS or index != 0:
            yield node, index
        elif not is_batch_view(node, bias):
            yield from _ends(node.outputs[0], bias)


def _view_once(graph: gs.Graph, node: gs.Node, index: int, bias: gs.Constant) -> bool:
    """A bias that is added as [heads, 1, size], [channels, 1] or the like gets there by one Reshape."""
    value, sizes = node.inputs[index], sizes_of(node.outputs[0])
    if not sizes or sizes[0] != BATCH:
        return False
    if value is bias and len(bias.shape) == 1 and len(sizes) < 4:
        return False
    positions = _positions(value, bias)
    # A view that puts the values into another order is not a Reshape.
    if positions is None or not np.array_equal(positions.reshape(-1), np.arange(positions.size)):
        return False
    view_sizes = (1,) * (len(sizes) - positions.ndim) + positions.shape
    if len(view_sizes) != len(sizes) or view_sizes[0] != 1:
        return False
    node.inputs[index] = _emit_view(graph, node, bias, view_sizes[1:])
    remove_unused(graph, value)
    return True


def _positions(tensor: gs.Tensor, bias: gs.Constant) -> np.ndarray | None:
    """For each element of a view of the bias, which of the bias's values it is; None where that is not known."""
    if tensor is bias:
        return np.arange(np.prod(bias.shape)).reshape(bias.shape)
    node = producer_of(tensor)
    before = None if node is None else _positions(node.inputs[0], bias)
    if node is None or before is None or node.op in ("CastLike", "Identity"):
        return before
    if node.op == "Cast":
        return before if node.attrs["to"] == TensorProto.FLOAT else None
    if node.op == "Transpose":
        return np.transpose(before, node.attrs.get("perm"))
    numbers = known_integers(node.inputs[1]) if len(node.inputs) > 1 else None
    if numbers is None:
        return None
    if node.op == "Reshape":
        return None if 0 in numbers else before.reshape(numbers)
    arrange = np.expand_dims if node.op == "Unsqueeze" else np.squeeze
    return np.asarray(arrange(before, tuple(numbers)))


def _emit_view(graph: gs.Graph, before: gs.Node, bias: gs.Constant, sizes: tuple[int, ...]) -> gs.Variable:
    """The bias as [items, *sizes], where items is 1 for the constant and may be more once it is lifted."""
    name = f"{bias.name}/for/{before.outputs[0].name}"
    return emit(graph, "Reshape", name, [bias, [-1, *map(int, sizes)]], bias.dtype, before=before)
