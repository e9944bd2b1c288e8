"""What a bundle can be compiled for. A target is one module here and one line of `TARGETS`."""

from __future__ import annotations

import importlib
from typing import TYPE_CHECKING

from bitfit_export.errors import UsageError

if TYPE_CHECKING:
    from bitfit_export.compiler.targets.base import Target

__all__ = ["TARGETS", "load_target"]

#: The module that has `TARGET`, by the target's name. Modules are imported on use: they need onnx.
TARGETS = {
    "ort": "bitfit_export.compiler.targets.ort",
    "portable": "bitfit_export.compiler.targets.portable",
    "qnn": "bitfit_export.compiler.targets.qnn",
}


def load_target(name: str) -> Target:
    """The target of this name.

    Raises:
        UsageError: no such target.
    """
    if name not in TARGETS:
        raise UsageError(f"--target is {name!r}, expected one of {', '.join(TARGETS)}")
    target: Target = importlib.import_module(TARGETS[name]).TARGET
    return target
