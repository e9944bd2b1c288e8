"""What a user may ask of the compiler, and which of it goes together."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from bitfit_export.bundle.manifest import LAYOUT_KINDS, PRECISIONS, ROW_DTYPES
from bitfit_export.compiler.targets import TARGETS
from bitfit_export.errors import UsageError

__all__ = ["CompileOptions", "default_options"]


@dataclass(frozen=True, kw_only=True)
class CompileOptions:
    """How to compile a base model.

    Attributes:
        layout: how biases enter the graph: `table` (one input for all tasks, a row chosen by `task_ids`), `packed` (one
            task's values in one vector) or `named` (one input for each bias, under its parameter name).
        target: `ort` for ONNX Runtime's CPU kernels, `portable` for standard ONNX operators alone, `qnn` for Qualcomm's
            HTP.
        precision: of the weights; biases stay float32.
        fold: remove bias terms by exact algebra.
        static_shape: batch and sequence as fixed numbers, for accelerators; None for any.
        overridable: with `named`, every input keeps the base model's value as a default.
        row_dtype: of the values in row files.
        keep_padding: compute padding as if it were text; by default the table layout computes the texts' tokens alone.
        trainable: add the program `train_step`, which computes loss and gradients over the same weights.
        prepack: store the weights as the kernels of ONNX Runtime on this kind of processor want them.
        soc: the chip that a program is compiled ahead of time for, by name or number; None for the target's default.
        htp_arch: the version of its HTP; None for the chip's own.
        keep_onnx: keep the graph beside what was compiled of it, for hosts that compile on the device.

    Raises:
        UsageError: a word that is unknown, or two options that exclude each other.
    """

    layout: str = "table"
    target: str = "ort"
    precision: str = "fp32"
    fold: bool = True
    static_shape: tuple[int, int] | None = None
    overridable: bool = False
    row_dtype: str = "fp32"
    keep_padding: bool = False
    trainable: bool = False
    prepack: bool = False
    soc: str | None = None
    htp_arch: int | None = None
    keep_onnx: bool = False

    @property
    def removes_padding(self) -> bool:
        """Returns whether the graph computes the tokens of texts alone."""
        return self.layout == "table" and not self.keep_padding

    def __post_init__(self) -> None:
        for name, known in (
            ("layout", LAYOUT_KINDS),
            ("target", tuple(TARGETS)),
            ("precision", PRECISIONS),
            ("row_dtype", ROW_DTYPES),
        ):
            if getattr(self, name) not in known:
                flag = "--" + name.replace("_", "-")
                raise UsageError(f"{flag} is {getattr(self, name)!r}, expected one of {', '.join(known)}")
        if self.static_shape is not None and min(self.static_shape) < 1:
            raise UsageError(f"--static-shape is {self.static_shape}, expected a batch and a sequence of 1 or more")
        if self.static_shape is not None and self.layout == "table":
            raise UsageError(
                "--static-shape goes with one task at a time, but --layout is table",
                hint="add --layout packed or --layout named",
            )
        if self.trainable:
            self._check_trainable()
        for name in ("soc", "htp_arch", "keep_onnx"):
            if getattr(self, name) and self.target != "qnn":
                flag = "--" + name.replace("_", "-")
                raise UsageError(f"{flag} goes with --target qnn, not with --target {self.target}")
        if self.overridable and self.layout != "named":
            raise UsageError(
                f"--overridable gives each bias input a default, but --layout {self.layout} has no input for each bias",
                hint="add --layout named",
            )

    def _check_trainable(self) -> None:
        for flag, found, expected in (
            ("--layout", self.layout, ("table", "packed")),
            ("--precision", self.precision, ("fp32",)),
        ):
            if found not in expected:
                raise UsageError(f"--trainable goes with {flag} {' or '.join(expected)}, not with {found}")
        if self.static_shape is not None:
            raise UsageError("--trainable goes with any batch and sequence, not with --static-shape")
        if self.prepack:
            raise UsageError("--trainable reads weights that are stored plainly, not with --prepack")


def default_options(target: str, precision: str | None = None) -> dict[str, Any]:
    """Returns the options that a target takes where the user names no others.

    Args:
        precision: the user's, if any.
    """
    if target != "qnn":
        return {"layout": "table", "precision": "fp32", "static_shape": None}
    # The biases of products in integers are integers where they are inputs of their own.
    layout = "packed" if precision in (None, "fp16") else "named"
    return {"layout": layout, "precision": "fp16", "static_shape": (1, 128)}
