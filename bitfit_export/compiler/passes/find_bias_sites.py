"""Find the sites: the node inputs through which bias values enter the graph, or the reason why one cannot be lifted.

A bias that is lifted by row has one more dimension than a constant one: the batch, since each item of a batch may be
another task. So such a site is safe where the node adds the bias to a tensor whose first dimension is the batch and
whose last one is the bias's own; anything else is refused with a reason, never guessed at. A bias that is lifted for
the whole batch at once keeps its shape, so any use of it will do.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass

import onnx_graphsurgeon as gs

from bitfit_export.compiler.compilation import Compilation, Fact, Pass, Refusal
from bitfit_export.compiler.graph.bias_views import is_batch_view
from bitfit_export.compiler.graph.dimensions import BATCH, ROWS
from bitfit_export.compiler.graph.edit import uses_of
from bitfit_export.compiler.graph.shapes import sizes_of

__all__ = ["BiasSite", "FindBiasSites", "find_bias_sites"]

_REASONS_SHOWN = 3


@dataclass(frozen=True)
class BiasSite:
    """One use of one bias term.

    Attributes:
        name: the bias term's state-dict name.
        node: the node that takes it: Add, LayerNormalization, Gemm, or a Reshape that `is_batch_view` accepts. With
            `by_row=False` any other, too.
        index: the node's input that holds it.
        rank: of the value that the node takes where biases differ by row: 2 is [b, n], 3 is [b, 1, n].
    """

    name: str
    node: gs.Node
    index: int
    rank: int


class FindBiasSites(Pass):
    """Find the node inputs through which bias values enter the graph."""

    name = "find_bias_sites"
    requires = frozenset({Fact.TRACED, Fact.CANONICAL, Fact.BATCH_AXIS})
    ensures = frozenset({Fact.SITES})

    def run(self, compilation: Compilation) -> bool | Refusal:
        by_row = compilation.options.layout == "table"
        found = find_bias_sites(compilation.graph, compilation.base.biases, by_row=by_row)
        if isinstance(found, Refusal):
            return found
        compilation.sites = found
        return False


def find_bias_sites(graph: gs.Graph, names: Iterable[str], *, by_row: bool = True) -> list[BiasSite] | Refusal:
    """Returns all sites of the named bias terms, in the order of `names`.

    A bias term without a use, or with one that cannot be lifted, is a refusal with the reasons.

    Args:
        by_row: whether items of one batch may have different biases, as in the table layout.
    """
    tensors = graph.tensors()
    sites: list[BiasSite] = []
    refusals: list[str] = []
    for name in names:
        tensor = tensors.get(name)
        if tensor is None or not tensor.outputs:
            refusals.append(f"{name} is used nowhere in the graph")
            continue
        for node, index in uses_of(tensor):
            site = _match_site(tensor, node, index, by_row)
            (refusals if isinstance(site, str) else sites).append(site)  # type: ignore[arg-type]
    if refusals:
        shown = "; ".join(refusals[:_REASONS_SHOWN])
        more = f"; and {len(refusals) - _REASONS_SHOWN} more" if len(refusals) > _REASONS_SHOWN else ""
        return Refusal(
            f"{len(refusals)} uses of bias terms cannot be lifted: {shown}{more}",
            hint="--layout packed runs one task at a time and takes more models; see docs/compiler.md"
            if by_row
            else "docs/compiler.md says which models the compiler takes",
        )
    return sites


def _match_site(bias: gs.Constant, node: gs.Node, index: int, by_row: bool) -> BiasSite | str:
    """A site, or the reason why this use of the bias is not one."""
    name, shape = bias.name, bias.shape
    if is_batch_view(node, bias):
        return BiasSite(name, node, index, 3)
    if len(shape) != 1:
        return f"{name}: {node.op} {node.name} takes it in its shape {tuple(shape)}, expected one dimension"
    out = sizes_of(node.outputs[0])
    if not by_row:
        return BiasSite(name, node, index, 3 if out is None else len(out))
    reason = _refuse_operator(node, index)
    if reason is not None:
        return f"{name}: {reason}"
    if out is None or len(out) not in (2, 3):
        return f"{name}: {node.op} {node.name} makes a tensor of shape {out}, expected rank 2 or 3"
    if out[0] not in (BATCH, ROWS):
        return f"{name}: the first dimension of {node.op} {node.name} is {out[0]}, expected the batch"
    if out[-1] != shape[0]:
        return f"{name}: its shape {tuple(shape)} is not the last dimension of {tuple(out)}"
    return BiasSite(name, node, index, len(out))


def _refuse_operator(node: gs.Node, index: int) -> str | None:
    if node.op == "Add":
        return None
    if node.op == "LayerNormalization" and index == 2:
        return None if node.attrs.get("axis", -1) == -1 else "LayerNormalization over more than the last axis"
    if node.op == "Gemm" and index == 2:
        return None if node.attrs.get("beta", 1.0) == 1.0 else f"Gemm multiplies it by {node.attrs['beta']}"
    return f"it is input {index} of {node.op} {node.name}, expected Add, LayerNormalization or Gemm"
