"""A fold plan: which bias values move where. The compiler makes it once, the host applies it to every task.

values[target] += matrix @ values[source]        for each step, in order
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field

import numpy as np

from bitfit_export.errors import DeltaError

__all__ = ["FoldPlan", "FoldStep", "FoldedBiases", "no_fold"]


@dataclass(frozen=True, eq=False)
class FoldStep:
    """One movement: values[target] += matrix @ values[source].

    Attributes:
        matrix: [target size, source size], a view of a weight where possible; None is the identity.
    """

    source: str
    target: str
    matrix: np.ndarray | None


@dataclass(frozen=True, eq=False)
class FoldedBiases:
    """One task's values after folding.

    Attributes:
        biases: the values of the plan's `kept` bias terms, float64, in that order and in their own shapes.
        output_shift: float64 [hidden], what the head must add to every hidden vector that it reads, or None.
    """

    biases: dict[str, np.ndarray]
    output_shift: np.ndarray | None


@dataclass(frozen=True, eq=False)
class FoldPlan:
    """What `fold_biases` did to a graph, and with it what a host must do to every task's values.

    Attributes:
        kept: the bias terms that are still in the graph.
        steps: the movements, in an order in which every source is complete before it moves.
        output: the folded bias term whose values also shift every token of `last_hidden_state`, or None.
        reasons: kept bias term -> what stood in its way. One that nothing but its own work keeps (it is added in
            front of a non-linear function, say) has no entry.
    """

    kept: tuple[str, ...]
    steps: tuple[FoldStep, ...] = ()
    output: str | None = None
    reasons: Mapping[str, str] = field(default_factory=dict)

    def apply(self, values: Mapping[str, np.ndarray]) -> FoldedBiases:
        """Move one task's values, in float64.

        Args:
            values: every bias term's values b_0 + (b_F - b_0), kept and folded; of any float type.

        Raises:
            DeltaError: a bias term of the plan without values.
        """
        needed = {*self.kept, *(step.source for step in self.steps), *([self.output] if self.output else [])}
        missing = sorted(needed - set(values))
        if missing:
            raise DeltaError(f"{len(missing)} bias terms have no values to fold, first {missing[0]}")
        current = {name: np.array(values[name], np.float64) for name in needed}
        for step in self.steps:
            moved = current[step.source].reshape(-1)
            moved = moved if step.matrix is None else step.matrix @ moved
            current[step.target] += moved.reshape(current[step.target].shape)
        shift = None if self.output is None else current[self.output].reshape(-1)
        return FoldedBiases({name: current[name] for name in self.kept}, shift)


def no_fold(names: Iterable[str]) -> FoldPlan:
    """The plan that keeps every one of the named bias terms (`--no-fold`)."""
    return FoldPlan(kept=tuple(dict.fromkeys(names)))
