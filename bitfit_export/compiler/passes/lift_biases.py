"""Bias constants become graph inputs, in one of three layouts.

Requires: every bias term of the layout is a constant with sites that `find_bias_sites` accepted.
Ensures: no bias is a constant any more, and every value of a row has a use. The inputs are read like this:

- `table`: `task_ids` int64 [batch or 1] and `bias_table` float32 [tasks, N]. An item of the batch gets its own values:

      bias_table -- Gather by task_ids --> [b, N] -- Unsqueeze --> [b, 1, N] -- Split --> [b, 1, n] each

  where b is the batch, or 1 when one task serves the whole batch: then the dimension broadcasts;
- `packed`: `bias` float32 [N], one task for the whole batch, split into [n] each;
- `named`: a float32 [n] for each bias term, under its state-dict name.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import numpy as np
import onnx_graphsurgeon as gs

from bitfit_export.bundle import Layout
from bitfit_export.bundle.interface import BIAS_TABLE, PACKED_BIAS, TASK_IDS
from bitfit_export.compiler.compilation import Compilation, Fact, Pass
from bitfit_export.compiler.graph.constants import int64s
from bitfit_export.compiler.graph.dimensions import TASK_BATCH
from bitfit_export.compiler.graph.edit import detach, emit
from bitfit_export.compiler.passes.find_bias_sites import BiasSite

__all__ = ["LiftBiases", "lift_biases"]


class LiftBiases(Pass):
    """Replace each bias constant by its part of the inputs."""

    name = "lift_biases"
    requires = frozenset({Fact.SITES, Fact.LAYOUT, Fact.HEADS})
    ensures = frozenset({Fact.LIFTED})
    ends = frozenset({Fact.SITES})

    def run(self, compilation: Compilation) -> bool:
        lift_biases(
            compilation.graph,
            compilation.sites,
            compilation.layout,
            compilation.options.layout,
            compilation.row_inputs,
        )
        return True


def lift_biases(
    graph: gs.Graph, sites: Sequence[BiasSite], layout: Layout, kind: str, inputs: Mapping[str, gs.Variable]
) -> None:
    """Replace each site's constant by its part of the inputs."""
    if kind == "table":
        values = _split_table(graph, layout, inputs)
    elif kind == "packed":
        values = _split(graph, layout, inputs[PACKED_BIAS], leading=[])
    else:
        values = {entry.name: inputs[entry.name] for entry in layout.biases}
    for number, site in enumerate(sites):
        value = values[site.name]
        if kind == "table" and site.rank == 2:
            value = emit(graph, "Squeeze", f"{site.name}/row_2d_{number}", [value, [1]])
        _reconnect(graph, site, value, number)
    graph.cleanup().toposort()


def _split_table(graph: gs.Graph, layout: Layout, inputs: Mapping[str, gs.Variable]) -> dict[str, gs.Variable]:
    row = emit(graph, "Gather", "bias_row", [inputs[BIAS_TABLE], inputs[TASK_IDS]], axis=0)
    row = emit(graph, "Unsqueeze", "bias_row_3d", [row, [1]])
    return _split(graph, layout, row, leading=[TASK_BATCH, 1])


def _split(
    graph: gs.Graph, layout: Layout, row: gs.Variable, *, leading: Sequence[int | str]
) -> dict[str, gs.Variable]:
    """The row, cut along its last axis into one slice per bias term."""
    sizes = int64s("bias_sizes", [entry.size for entry in layout.biases])
    # A new Variable for each slice: the constant of the same name keeps its own until nothing uses it.
    slices = {
        entry.name: gs.Variable(f"{entry.name}/row", np.float32, [*leading, entry.size]) for entry in layout.biases
    }
    axis = {"axis": len(leading)}
    graph.nodes.append(gs.Node("Split", "bias_split", axis, inputs=[row, sizes], outputs=list(slices.values())))
    return slices


def _reconnect(graph: gs.Graph, site: BiasSite, value: gs.Variable, number: int) -> None:
    if site.node.op == "LayerNormalization":
        _add_after(graph, site, value, number)
    else:
        site.node.inputs[site.index] = value


def _add_after(graph: gs.Graph, site: BiasSite, value: gs.Variable, number: int) -> None:
    """LayerNormalization without a bias, then Add.

    The operator takes a bias of the normalised shape only; and ONNX Runtime would fuse a LayerNormalization that
    has one into SkipLayerNormalization, which is slower than the two nodes that it replaces.
    """
    del site.node.inputs[site.index]
    out = site.node.outputs[0]
    normalised = detach(out, f"{site.name}/normalised_{number}")
    emit(graph, "Add", f"{site.name}/add_{number}", [normalised, value], out=out)
