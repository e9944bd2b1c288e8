"""Compile what a training on this machine needs: loss and gradients of one task, by the original bias terms.

Nothing is folded, and each bias term is an input of its own (the layout `named`), so any of them can be trained. Unlike
`--trainable`, which adds a program to a bundle, this one is for the process that trains, and computes what PyTorch
computes in training.
"""

from __future__ import annotations

from collections.abc import Collection
from dataclasses import dataclass

import onnx
import onnx_graphsurgeon as gs

from bitfit_export.base_model import BaseModel
from bitfit_export.compiler.compilation import Compilation, Pass
from bitfit_export.compiler.options import CompileOptions
from bitfit_export.compiler.passes.attach_heads import AttachHeads, HeadDropout
from bitfit_export.compiler.passes.derive_train_step import DeriveTrainStep
from bitfit_export.compiler.passes.fuse_for_ort import FuseForOrt
from bitfit_export.compiler.passes.fuse_products import FuseProducts
from bitfit_export.compiler.passes.lift_biases import LiftBiases
from bitfit_export.compiler.passes.merge_projections import MergeProjections
from bitfit_export.compiler.passes.plan_layout import PlanLayout
from bitfit_export.compiler.passes.slice_first_token import SliceFirstToken
from bitfit_export.compiler.pipeline import canonicalizing_passes, run_passes
from bitfit_export.delta import TaskDelta

__all__ = ["HeadDropout", "TrainingProgram", "compile_for_training"]

_OPTIONS = CompileOptions(layout="named", fold=False)


@dataclass(frozen=True)
class TrainingProgram:
    """A program like `train_step`, for one task.

    Attributes:
        model: its inputs are those of `train_step` in the layout `named`, and `dropout_seed` uint32 [1] where it drops
            anything.
        poolings: what each value of `head.pooling` stands for.
    """

    model: onnx.ModelProto
    poolings: tuple[str, ...]


def compile_for_training(
    base: BaseModel, task: TaskDelta, trained: Collection[str], dropout: HeadDropout, traced: onnx.ModelProto
) -> TrainingProgram:
    """Compile a training.

    Args:
        task: its head and its problem type count, its values do not.
        trained: the inputs that get a gradient: bias terms, and layers of the head.
        dropout: of the head.
        traced: what `trace_base_model` returned, of the model in training or not.

    Raises:
        CompileError: an operator between what is trained and the loss has no derivative, or the graph cannot be lifted.
    """
    compilation = Compilation(base, {task.config.task: task}, _OPTIONS, gs.import_onnx(traced))
    run_passes(compilation, _passes(trained, dropout))
    assert compilation.train_step is not None
    return TrainingProgram(compilation.train_step, compilation.layout.poolings)


def _passes(trained: Collection[str], dropout: HeadDropout) -> list[Pass]:
    return [
        *canonicalizing_passes(),
        PlanLayout(),
        AttachHeads(dropout),
        SliceFirstToken(),
        LiftBiases(),
        MergeProjections(),
        DeriveTrainStep((FuseProducts(), FuseForOrt()), trained=trained, as_in_training=True),
    ]
