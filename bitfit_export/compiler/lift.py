"""Pass 4, lift (`--layout table`): bias constants become rows of one graph input.

Requires: every bias term of the layout is a constant with sites that `find_bias_sites` accepted.
Ensures: the graph has the inputs `task_ids` int64 [batch or 1] and `bias_table` float32 [tasks, N]; no bias is a
constant any more, and every value of a row has a use.

    bias_table [tasks, N] -- Gather by task_ids --> [b, N] -- Unsqueeze --> [b, 1, N] -- Split --> [b, 1, n] each

where b is the batch, or 1 when one task serves the whole batch: then the dimension broadcasts.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import onnx_graphsurgeon as gs

from bitfit_export.bundle import Layout
from bitfit_export.compiler.sites import BiasSite

__all__ = ["BIAS_TABLE", "TASK_IDS", "declare_inputs", "lift_into_table"]

TASK_IDS = "task_ids"
BIAS_TABLE = "bias_table"


def declare_inputs(graph: gs.Graph, layout: Layout) -> gs.Variable:
    """Add the inputs `task_ids` and `bias_table`; return the first."""
    task_ids = gs.Variable(TASK_IDS, np.int64, ["task_batch"])
    graph.inputs += [task_ids, gs.Variable(BIAS_TABLE, np.float32, ["tasks", layout.bias_count])]
    return task_ids


def lift_into_table(graph: gs.Graph, sites: Sequence[BiasSite], layout: Layout) -> None:
    """Replace each site's constant by its slice of the task's row."""
    inputs = {tensor.name: tensor for tensor in graph.inputs}
    task_ids, table = inputs[TASK_IDS], inputs[BIAS_TABLE]
    row = _emit(graph, "Gather", "bias_row", [table, task_ids], axis=0)
    row = _emit(graph, "Unsqueeze", "bias_row_3d", [row, gs.Constant("bias_row_axis", np.array([1]))])
    sizes = gs.Constant("bias_sizes", np.array([entry.size for entry in layout.biases], np.int64))
    # A new Variable for each slice: the constant of the same name keeps its own until nothing uses it.
    slices = {
        entry.name: gs.Variable(f"{entry.name}/row", np.float32, ["task_batch", 1, entry.size])
        for entry in layout.biases
    }
    graph.nodes.append(gs.Node("Split", "bias_split", {"axis": 2}, inputs=[row, sizes], outputs=list(slices.values())))
    for number, site in enumerate(sites):
        _reconnect(graph, site, slices[site.name], number)
    graph.cleanup().toposort()


def _reconnect(graph: gs.Graph, site: BiasSite, value: gs.Variable, number: int) -> None:
    if site.rank == 2:
        axis = gs.Constant(f"{site.name}/axis_{number}", np.array([1]))
        value = _emit(graph, "Squeeze", f"{site.name}/row_2d_{number}", [value, axis])
    if site.node.op == "LayerNormalization":
        _add_after(graph, site, value, number)
    else:
        site.node.inputs[site.index] = value


def _add_after(graph: gs.Graph, site: BiasSite, value: gs.Variable, number: int) -> None:
    """LayerNormalization without a bias, then Add.

    The operator takes a bias of the normalised shape only; and ONNX Runtime would fuse a LayerNormalization that
    has one into SkipLayerNormalization, which is slower than the two nodes that it replaces.
    """
    node = site.node
    del node.inputs[site.index]
    out = node.outputs[0]
    normalised = gs.Variable(f"{site.name}/normalised_{number}", out.dtype, out.shape)
    node.outputs[0] = normalised
    graph.nodes.append(gs.Node("Add", f"{site.name}/add_{number}", inputs=[normalised, value], outputs=[out]))


def _emit(graph: gs.Graph, op: str, name: str, inputs: list[gs.Tensor], **attrs: int) -> gs.Variable:
    out = gs.Variable(name, np.float32)
    graph.nodes.append(gs.Node(op, f"{name}_node", attrs, inputs=inputs, outputs=[out]))
    return out
