"""Decide what a row holds, and give the graph an input for each part of it.

Requires: a traced graph, and the plan of what folds.
Ensures: a layout that serves all of the bundle's tasks and others of their kinds; inputs that nothing reads yet.
Does not: use the inputs; `attach_heads` and `lift_biases` do.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass

import numpy as np
import onnx_graphsurgeon as gs

from bitfit_export.bundle import LABELS, HeadEntry, Layout
from bitfit_export.bundle.interface import (
    HEAD_BIAS,
    HEAD_CHOICE,
    HEAD_DENSE_BIAS,
    HEAD_DENSE_WEIGHT,
    HEAD_POOLING,
    HEAD_WEIGHT,
    row_inputs_of,
)
from bitfit_export.compiler.compilation import Compilation, Fact, Pass, Refusal
from bitfit_export.delta import POOLINGS, TOKENS, TaskDelta

__all__ = ["HeadPlan", "PlanLayout", "declare_inputs", "plan_heads"]


class PlanLayout(Pass):
    """Fix the layout of the rows, and declare the inputs that bring them."""

    name = "plan_layout"
    requires = frozenset({Fact.TRACED, Fact.FOLD_PLAN})
    ensures = frozenset({Fact.LAYOUT})

    def run(self, compilation: Compilation) -> bool | Refusal:
        base, graph = compilation.base, compilation.graph
        heads = plan_heads(graph, compilation.deltas.values())
        if isinstance(heads, Refusal):
            return heads
        compilation.heads = heads
        compilation.layout = Layout.pack(
            base.digest,
            {name: base.biases[name].shape for name in compilation.fold.kept},
            [(entry.name, entry.shape) for entry in heads.entries],
            heads.poolings,
        )
        compilation.row_inputs = declare_inputs(graph, compilation.layout, compilation.options.layout)
        return True


@dataclass(frozen=True)
class HeadPlan:
    """What the heads of a bundle's tasks need of the graph.

    Attributes:
        hidden: the size of a hidden vector.
        poolings: what a task may read, in the order of `head.pooling`.
        activation: of the dense layer, or None where no task has one.
        inner: the size of the dense layer's output; `hidden` without one.
        tokens: whether a task reads every token.
    """

    hidden: int
    poolings: tuple[str, ...]
    activation: str | None = None
    inner: int = 0
    tokens: bool = False

    @property
    def has_choice(self) -> bool:
        """Returns whether tasks with and without the dense layer may share the graph: the classifier has one size."""
        return self.activation is not None and self.inner == self.hidden

    @property
    def entries(self) -> tuple[HeadEntry, ...]:
        """The head's part of a layout, in the order in which a row stores it."""
        entries = [HeadEntry(HEAD_POOLING, (len(self.poolings),))]
        if self.activation is not None:
            entries += [
                HeadEntry(HEAD_DENSE_WEIGHT, (self.inner, self.hidden)),
                HeadEntry(HEAD_DENSE_BIAS, (self.inner,)),
            ]
        if self.has_choice:
            entries.append(HeadEntry(HEAD_CHOICE, (2,)))
        return (*entries, HeadEntry(HEAD_WEIGHT, (LABELS, self.inner)), HeadEntry(HEAD_BIAS, (LABELS,)))


def plan_heads(graph: gs.Graph, deltas: Iterable[TaskDelta]) -> HeadPlan | Refusal:
    """Returns the plan that serves all of these tasks, and others of the same kinds.

    Two tasks whose heads no one graph can run are a refusal.
    """
    outputs = {output.name: output for output in graph.outputs}
    hidden = int(outputs["last_hidden_state"].shape[-1])
    tasks = list(deltas)
    wanted = {task.config.pooling for task in tasks}
    # Where no task reads more than the first token, the last layer need not compute the others.
    optional = {"pooler": "pooler_output" in outputs, "mean": "mean" in wanted, "last": "last" in wanted}
    poolings = tuple(name for name in POOLINGS if optional.get(name, True))
    kinds = {
        (task.config.activation, task.head["classifier.weight"].shape[1]) for task in tasks if task.config.activation
    }
    if len(kinds) > 1:
        found = " and ".join(sorted(f"{activation} of {inner}" for activation, inner in kinds))
        return Refusal(f"the heads have dense layers with {found}, expected one kind", hint="compile two bundles")
    activation, inner = kinds.pop() if kinds else (None, hidden)
    linear = [task.config.task for task in tasks if not task.config.activation]
    if linear and inner != hidden:
        return Refusal(
            f"the task {linear[0]} has a linear head, others have a dense layer of {inner}, expected {hidden}",
            hint="compile two bundles",
        )
    return HeadPlan(hidden, poolings, activation, inner, TOKENS in wanted)


def declare_inputs(graph: gs.Graph, layout: Layout, layout_kind: str) -> Mapping[str, gs.Variable]:
    """Add the inputs that bring biases and heads to the graph; returns them by name."""
    if layout_kind == "named":
        # The inputs take the constants' names.
        tensors = graph.tensors()
        for entry in layout.biases:
            tensors[entry.name].name = f"{entry.name}/base"
    declared = row_inputs_of(layout, layout_kind)
    inputs = {each.name: gs.Variable(each.name, np.dtype(each.dtype), [*each.shape]) for each in declared}
    graph.inputs += inputs.values()
    return inputs
