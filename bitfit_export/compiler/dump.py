"""The graph after each pass, as files that any reader of ONNX opens."""

from __future__ import annotations

import hashlib
from pathlib import Path

import onnx
import onnx_graphsurgeon as gs
from onnx.external_data_helper import set_external_data

from bitfit_export.compiler.compilation import Compilation, Pass
from bitfit_export.errors import OutputError

__all__ = ["GraphDump"]

_WEIGHTS = "weights"
#: Smaller tensors stay in the model's own file.
_EXTERNAL_FROM_BYTES = 1024


class GraphDump:
    """Writes `<number>_<pass>.onnx` after each pass that changed the graph; an observer of `run_passes`.

    Weights lie in `weights/`, each once, named by its SHA-256, so the dump of a model is little larger than the model.

    Args:
        folder: made if it does not exist; files of an earlier dump are replaced.
    """

    def __init__(self, folder: Path) -> None:
        self._folder = folder
        try:
            (folder / _WEIGHTS).mkdir(parents=True, exist_ok=True)
        except OSError as error:
            raise OutputError(
                f"{folder} cannot be made: {error.strerror}", hint="choose another --dump-passes"
            ) from error

    def __call__(self, number: int, step: Pass, changed: bool, compilation: Compilation) -> None:
        if not changed:
            return
        model: onnx.ModelProto = gs.export_onnx(compilation.graph)
        try:
            for tensor in model.graph.initializer:
                self._move_out(tensor)
            (self._folder / f"{number:02}_{step.name}.onnx").write_bytes(model.SerializeToString())
        except OSError as error:
            raise OutputError(
                f"the dump in {self._folder} cannot be written: {error.strerror}", hint="free some space"
            ) from error

    def _move_out(self, tensor: onnx.TensorProto) -> None:
        if len(tensor.raw_data) < _EXTERNAL_FROM_BYTES:
            return
        path = Path(_WEIGHTS, hashlib.sha256(tensor.raw_data).hexdigest()[:16])
        if not (self._folder / path).exists():
            (self._folder / path).write_bytes(tensor.raw_data)
        set_external_data(tensor, path.as_posix(), offset=0, length=len(tensor.raw_data))
        tensor.ClearField("raw_data")
