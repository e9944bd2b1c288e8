"""What a target is to the compiler."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import ClassVar

import onnx

from bitfit_export.bundle.accelerator import AcceleratorRecord
from bitfit_export.compiler.compilation import Pass
from bitfit_export.compiler.graph.model_files import write_model
from bitfit_export.compiler.options import CompileOptions
from bitfit_export.compiler.passes.derive_train_step import DeriveTrainStep
from bitfit_export.compiler.passes.fix_shapes import FixShapes
from bitfit_export.compiler.passes.remove_padding import RemovePadding
from bitfit_export.errors import UsageError

__all__ = ["PrecisionPasses", "Target", "Written"]


@dataclass(frozen=True)
class PrecisionPasses:
    """What one precision adds to a compilation, at the three places where a target has a say.

    Attributes:
        calibrate: passes that look at the traced graph's activations.
        quantize: passes that store weights in fewer bits.
        store: passes that change how the finished graph stores or computes them.
        at_load: how much an engine still has to optimise when it loads the model: `none`, `basic` or `all`.
    """

    calibrate: tuple[Pass, ...] = ()
    quantize: tuple[Pass, ...] = ()
    store: tuple[Pass, ...] = ()
    at_load: str = "none"


@dataclass(frozen=True)
class Written:
    """The files of a program, and how it was compiled ahead of time where it was."""

    files: tuple[str, ...]
    accelerator: AcceleratorRecord | None = None


class Target:
    """A target: its passes, its files and its checks.

    Attributes:
        name: as `--target` takes it.
        precisions: the precisions that the target can have, as `--precision` takes them.
        fuse_training: passes that make of the differentiated graph what the target runs.
    """

    name: ClassVar[str]
    precisions: ClassVar[Mapping[str, PrecisionPasses]]
    fuse_training: ClassVar[tuple[Pass, ...]] = ()

    def check(self, options: CompileOptions) -> None:
        """Refuse options that the target does not take.

        Raises:
            UsageError: an option that the target does not take.
        """
        if options.precision not in self.precisions:
            raise UsageError(
                f"--target {self.name} has no precision {options.precision}, expected {', '.join(self.precisions)}"
            )
        if options.prepack:
            raise UsageError(
                f"--prepack goes with --target ort and --precision fp32, not with --target {self.name}",
                hint="leave --prepack out",
            )

    def calibrate(self, options: CompileOptions) -> tuple[Pass, ...]:
        """Passes that look at the traced graph's activations."""
        return self.precisions[options.precision].calibrate

    def arrange(self, options: CompileOptions) -> tuple[Pass, ...]:
        """Passes that change what the lifted graph computes at once, before its weights are quantised."""
        derive = (DeriveTrainStep(self.fuse_training),) if options.trainable else ()
        return (*derive, *((RemovePadding(),) if options.removes_padding else ()))

    def quantize(self, options: CompileOptions) -> tuple[Pass, ...]:
        """Passes that store weights in fewer bits."""
        return self.precisions[options.precision].quantize

    def lower(self, options: CompileOptions) -> tuple[Pass, ...]:
        """Passes that make of the lifted graph what the target runs."""
        return (*self.precisions[options.precision].store, *fixed_shapes(options))

    def at_load(self, options: CompileOptions) -> str:
        """How much an engine has to optimise when it loads the model: `none`, `basic` or `all`."""
        return self.precisions[options.precision].at_load

    def write_files(self, model: onnx.ModelProto, folder: Path, options: CompileOptions) -> Written:
        """Write the program into the folder of a bundle: `model.onnx`, and what lies beside it."""
        return Written(write_model(model, folder))


def fixed_shapes(options: CompileOptions) -> tuple[Pass, ...]:
    """The pass that fixes dynamic dimensions, where the user asked for that."""
    return () if options.static_shape is None else (FixShapes(),)
