"""What becomes of a shift at a node: it goes on as another shift, or it ends in one of these."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from enum import Enum

import onnx_graphsurgeon as gs

from bitfit_export.compiler.graph.weights import Weight
from bitfit_export.compiler.passes.fold_biases.shift import Shift

__all__ = ["Absorbed", "Cause", "Flow", "Outcome", "Refused", "Scope", "Vanished"]


@dataclass(frozen=True)
class Absorbed:
    """Another bias term takes the shift up: values[target] += product of the factors @ values[source].

    Attributes:
        target: the bias term, or None for the graph's output, where the task's head takes it up.
        node: the node that adds the target there; None with the output.
    """

    target: str | None
    node: gs.Node | None
    factors: tuple[Weight, ...]


@dataclass(frozen=True)
class Vanished:
    """The shift changes nothing from here on."""


class Cause(Enum):
    """What kind of node keeps a bias where it is."""

    OBSTACLE = "a rule would have to pass here, and none can"
    PRODUCT = "it is multiplied by other activations, as queries are by keys"
    NONLINEAR = "it is added in front of a non-linear function"


@dataclass(frozen=True)
class Refused:
    """The bias must stay where it is."""

    reason: str
    cause: Cause = Cause.OBSTACLE


Outcome = Shift | Absorbed | Vanished | Refused


@dataclass(frozen=True)
class Scope:
    """What the rules know of the graph as a whole.

    Attributes:
        biases: the bias terms that are still in the graph, by name.
        outputs: the names of the graph's outputs.
    """

    biases: Mapping[str, gs.Constant]
    outputs: frozenset[str]

    def bias(self, tensor: gs.Tensor) -> gs.Constant | None:
        """The bias term that a tensor is, if it is one."""
        constant = self.biases.get(tensor.name)
        return constant if constant is tensor else None


@dataclass(frozen=True)
class Flow:
    """A shift on its way into a node."""

    shift: Shift
    node: gs.Node
    index: int
    scope: Scope

    @property
    def output(self) -> gs.Tensor:
        return self.node.outputs[0]

    @property
    def label(self) -> str:
        """The node as a reason names it."""
        return f"{self.node.op} {self.node.name}".rstrip()

    def refuse(self, why: str) -> Refused:
        return Refused(f"{self.label} {why}")

    def product(self, other: str) -> Refused:
        return Refused(f"{self.label} multiplies it by {other}, which is not a weight", Cause.PRODUCT)

    def nonlinear(self, why: str) -> Refused:
        return Refused(f"{self.label} {why}", Cause.NONLINEAR)
