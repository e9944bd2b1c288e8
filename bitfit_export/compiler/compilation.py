"""What a compilation is made of: passes, and what they hand to each other.

A pass says what it requires, what it ensures and what it ends. So a list of passes can be checked before anything runs,
printed, and written down step by step.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from enum import Enum
from typing import TYPE_CHECKING, ClassVar, TypeAlias

if TYPE_CHECKING:
    import numpy as np
    import onnx
    import onnx_graphsurgeon as gs

    from bitfit_export.base_model import BaseModel
    from bitfit_export.bundle import Layout
    from bitfit_export.compiler.calibration.activation_ranges import ActivationRange
    from bitfit_export.compiler.calibration.activation_stats import ActivationStats
    from bitfit_export.compiler.options import CompileOptions
    from bitfit_export.compiler.passes.find_bias_sites import BiasSite
    from bitfit_export.compiler.passes.fold_biases import FoldPlan
    from bitfit_export.compiler.passes.plan_layout import HeadPlan
    from bitfit_export.delta import TaskDelta

__all__ = ["Compilation", "Fact", "Pass", "Refusal", "TextParts"]

#: A text, or two that a task reads as a pair.
TextParts: TypeAlias = tuple[str, ...]


class Fact(Enum):
    """Something that holds for a compilation between two passes."""

    TRACED = "the graph is the traced base model: its biases are constants, its outputs are hidden states"
    CANONICAL = "a bias is used by Add, Gemm or LayerNormalization, or by a Reshape in front of them"
    BATCH_AXIS = "what depends on biases alone has a first dimension for the batch"
    SITES = "the sites of all bias terms are known"
    FOLD_PLAN = "it is decided which bias terms are in a row, and what moves into them"
    STATISTICS = "it is known what the products with weights read"
    LAYOUT = "the layout is fixed, and the graph has an input for each of its parts"
    HEADS = "the graph's outputs are the tasks' logits"
    LIFTED = "no bias is a constant"
    EMITTED = "the model is complete, with its defaults and digests"


@dataclass(frozen=True)
class Refusal:
    """Why a pass cannot continue: the compilation ends with this reason.

    Attributes:
        reason: what was found and what was expected, lower case, without a full stop.
        hint: what to do about it, where that is known.
    """

    reason: str
    hint: str | None = None


@dataclass
class Compilation:
    """One compilation, from the traced graph to the frozen model. Passes change it in place.

    Attributes:
        base: the base model.
        deltas: the tasks, by their names in the bundle; they decide which heads the graph gets.
        options: what the user asked for.
        graph: the graph as the passes so far have left it.
        texts: what to look at activations with, where the user gave such.
        sites: where bias values enter the graph (`Fact.SITES`).
        fold: which bias terms are in a row, and what moves into them (`Fact.FOLD_PLAN`).
        statistics: by the name of a product's node, what it reads (`Fact.STATISTICS`).
        heads: what the tasks' heads need of the graph (`Fact.LAYOUT`).
        layout: of the rows (`Fact.LAYOUT`).
        row_inputs: the graph inputs that bring biases and heads, by name (`Fact.LAYOUT`).
        model: the frozen model (`Fact.EMITTED`).
        train_step: the program that computes loss and gradients, where it is wanted.
        ranges: of activations that are rounded to a range that is a constant, by the name of the product's node.
        bias_scales: float32 [n] of each bias input that is int32, by its name.
        not_quantized: products that stay in float32 though fewer bits were asked for, by the node's name -> why.
        keeps_padding: why the graph computes padding though it was to be removed; None where it does not.
    """

    base: BaseModel
    deltas: Mapping[str, TaskDelta]
    options: CompileOptions
    graph: gs.Graph
    texts: Sequence[TextParts] = ()
    sites: Sequence[BiasSite] = ()
    statistics: Mapping[str, ActivationStats] = field(default_factory=dict)
    row_inputs: Mapping[str, gs.Variable] = field(default_factory=dict)
    train_step: onnx.ModelProto | None = None
    ranges: Mapping[str, ActivationRange] = field(default_factory=dict)
    bias_scales: Mapping[str, np.ndarray] = field(default_factory=dict)
    not_quantized: Mapping[str, str] = field(default_factory=dict)
    keeps_padding: str | None = None
    # Set by passes; reading one before its pass has run is an AttributeError, which the order of passes rules out.
    fold: FoldPlan = field(init=False)
    heads: HeadPlan = field(init=False)
    layout: Layout = field(init=False)
    model: onnx.ModelProto = field(init=False)

    @property
    def most_labels(self) -> int:
        """The largest number of labels of the tasks; the head inputs of a graph of fixed shape have it."""
        return max((delta.config.output_size for delta in self.deltas.values()), default=1)


class Pass(ABC):
    """One step of a compilation. The module of a pass says in its docstring what the pass does, and what it does not.

    Attributes:
        name: a verb phrase, as the pass's module is called.
        requires: what must hold before it.
        ensures: what holds after it.
        ends: what no longer holds after it.
    """

    name: ClassVar[str]
    requires: ClassVar[frozenset[Fact]] = frozenset()
    ensures: ClassVar[frozenset[Fact]] = frozenset()
    ends: ClassVar[frozenset[Fact]] = frozenset()

    @abstractmethod
    def run(self, compilation: Compilation) -> bool | Refusal:
        """Change the compilation in place.

        Returns:
            Whether the graph has changed; or a refusal, after which the compilation is of no use.
        """
