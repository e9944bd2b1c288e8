"""Pass 2, fold: bias terms leave the graph by exact algebra, and their values move into those that stay.

Requires: a traced, unoptimised graph, before heads and lift.
Ensures: with the values of `FoldPlan.apply`, the graph computes what it did, up to rounding; `last_hidden_state` lacks
`output_shift`. A bias term that cannot be proven to fold stays, with the reason.
Does not: know any parameter's name or any family of models. It follows each bias through the graph; see docs/fold.md.
"""

from __future__ import annotations

from collections.abc import Sequence

import onnx_graphsurgeon as gs

from bitfit_export.compiler.compilation import Compilation, Fact, Pass
from bitfit_export.compiler.graph.edit import bypass
from bitfit_export.compiler.passes.find_bias_sites import BiasSite
from bitfit_export.compiler.passes.fold_biases.outcome import Absorbed, Cause, Scope
from bitfit_export.compiler.passes.fold_biases.plan import FoldedBiases, FoldPlan, FoldStep, no_fold
from bitfit_export.compiler.passes.fold_biases.propagate import OUTPUT, Entry, ShiftTrace, trace_shift
from bitfit_export.compiler.passes.fold_biases.shift import product_of

__all__ = ["FoldBiases", "FoldPlan", "FoldStep", "FoldedBiases", "fold_biases", "no_fold"]


class FoldBiases(Pass):
    """Remove bias terms by exact algebra; with `--no-fold`, plan to keep them all."""

    name = "fold_biases"
    requires = frozenset({Fact.TRACED, Fact.SITES})
    ensures = frozenset({Fact.FOLD_PLAN})

    def run(self, compilation: Compilation) -> bool:
        biases = compilation.base.biases
        if compilation.options.fold:
            compilation.fold = fold_biases(compilation.graph, compilation.sites)
        else:
            compilation.fold = no_fold(biases)
        compilation.sites = [site for site in compilation.sites if site.name in compilation.fold.kept]
        return len(compilation.fold.kept) < len(biases)


def fold_biases(graph: gs.Graph, sites: Sequence[BiasSite]) -> FoldPlan:
    """Take every bias term that folds out of the graph; the sites of those that stay are still right."""
    names = list(dict.fromkeys(site.name for site in sites))
    tensors = graph.tensors()
    biases = {name: tensors[name] for name in names if isinstance(tensors.get(name), gs.Constant)}
    outputs = frozenset(output.name for output in graph.outputs)
    steps: list[FoldStep] = []
    reasons: dict[str, str] = {}
    output: str | None = None
    for name in _in_graph_order(graph, biases):
        trace = trace_shift(biases[name], Scope(biases, outputs))
        reason = _why_not(name, trace, biases, output)
        if reason is not None:
            if _worth_telling(trace):
                reasons[name] = reason
            continue
        steps += _steps(name, trace)
        if any(end.target is None for end in trace.absorbed):
            output = name
        for entry in trace.entries:
            _remove(graph, entry)
        del biases[name]
    graph.cleanup()
    kept = tuple(name for name in names if name in biases or name not in tensors)
    return FoldPlan(
        kept, _that_matter(steps, {*kept, output}), output, {name: reasons[name] for name in kept if name in reasons}
    )


def _in_graph_order(graph: gs.Graph, biases: dict[str, gs.Constant]) -> list[str]:
    """Bias terms by their first use: one that moves on then finds those after it still in their places."""
    position = {id(node): number for number, node in enumerate(graph.nodes)}
    return sorted(biases, key=lambda name: min((position[id(node)] for node in biases[name].outputs), default=0))


def _why_not(name: str, trace: ShiftTrace, biases: dict[str, gs.Constant], output: str | None) -> str | None:
    """Why a bias must stay, or None when every one of its ends takes it up."""
    if trace.refused:
        causes = list(Cause)
        return min(trace.refused, key=lambda refused: causes.index(refused.cause)).reason
    if not trace.entries:
        return "it is added nowhere"
    to_output = [end for end in trace.absorbed if end.target is None]
    if len(to_output) > 1 or (to_output and output is not None):
        return f"more than one shift would reach {OUTPUT}"
    targets = {end.target for end in trace.absorbed if end.target is not None}
    if name in targets:
        return "it would move into itself"
    for target in sorted(targets):
        if not _all_uses_agree(biases[target], [end for end in trace.absorbed if end.target == target]):
            return f"{target} would take it up, and is also added where other values come"
    return None


def _all_uses_agree(target: gs.Constant, ends: list[Absorbed]) -> bool:
    """Returns whether every node that adds the target would take up the same: its values are one for all uses."""
    received = [[end.factors for end in ends if end.node is node] for node in target.outputs]
    return all(each and each == received[0] for each in received)


def _worth_telling(trace: ShiftTrace) -> bool:
    """Returns whether something stood in the way; a bias that does its work where it is has nothing to explain."""
    causes = {refused.cause for refused in trace.refused}
    if trace.vanished or any(entry.node.op == "LayerNormalization" for entry in trace.entries):
        return True
    return Cause.NONLINEAR not in causes and (bool(trace.absorbed) or Cause.PRODUCT not in causes)


def _steps(name: str, trace: ShiftTrace) -> list[FoldStep]:
    """One step for each target; its uses agree, so those of its first node count."""
    steps = []
    for target in dict.fromkeys(end.target for end in trace.absorbed if end.target is not None):
        ends = [end for end in trace.absorbed if end.target == target]
        steps += [FoldStep(name, target, product_of(end.factors)) for end in ends if end.node is ends[0].node]
    return steps


def _that_matter(steps: list[FoldStep], wanted: set[str | None]) -> tuple[FoldStep, ...]:
    """The steps whose values get to a wanted bias term; what moves into a key bias vanishes with it."""
    reached = set(wanted)
    alive: list[FoldStep] = []
    for step in reversed(steps):
        if step.target in reached:
            reached.add(step.source)
            alive.append(step)
    return tuple(reversed(alive))


def _remove(graph: gs.Graph, entry: Entry) -> None:
    """Take a bias out of the node that adds it; an Add leaves the graph."""
    node = entry.node
    if node.op == "Add":
        bypass(graph, node, node.inputs[1 - entry.index])
    else:
        del node.inputs[entry.index]
