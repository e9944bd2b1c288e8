"""ONNX Runtime on the CPU."""

from __future__ import annotations

import ctypes
from collections.abc import Mapping, Sequence
from typing import Any, ClassVar

import onnxruntime as ort
from numpy.typing import NDArray
from onnxruntime.capi.onnxruntime_pybind11_state import InvalidArgument

from bitfit_export.errors import BundleError, InputError, first_line
from bitfit_export.runtime.engines.base import (
    NO_OPTIONS,
    Arrays,
    Bound,
    Engine,
    GraphTensor,
    OptionValues,
    Program,
    ProgramFiles,
)

__all__ = ["ENGINE"]

# Where ONNX Runtime looks for the weights of a model that it gets as bytes.
_WEIGHTS_FOLDER = "session.model_external_initializers_file_folder_path"
# It would guess from the bytes otherwise, and its own format is not what was checked.
_MODEL_FORMAT = ("session.load_model_format", "ONNX")
# ONNX Runtime's failures are raised and become errors here; what it would log besides is a repetition.
_LOG_FATAL_ONLY = 4
_LEVELS: Mapping[str, Any] = {
    "none": ort.GraphOptimizationLevel.ORT_DISABLE_ALL,
    "basic": ort.GraphOptimizationLevel.ORT_ENABLE_BASIC,
    "all": ort.GraphOptimizationLevel.ORT_ENABLE_ALL,
}
_DTYPES = {"tensor(int64)": "int64", "tensor(float)": "float32"}


class _Program(Program):
    """A session of ONNX Runtime."""

    def __init__(self, session: Any) -> None:
        self._session = session
        # The method of the library: that of Python looks at each input again, which was done when this was opened.
        self._run = session._sess.run
        self.inputs = {each.name: _tensor(each) for each in session.get_inputs()}
        self.defaults = {each.name: _tensor(each) for each in session.get_overridable_initializers()}
        self.outputs = tuple(each.name for each in session.get_outputs())
        self.metadata = session.get_modelmeta().custom_metadata_map

    def bind(self, arrays: Arrays) -> Bound:
        # ONNX Runtime reads contiguous arrays where they are, so there is nothing to prepare.
        return dict(arrays)

    def run(self, arrays: Arrays, bound: Bound, outputs: Sequence[str]) -> list[NDArray[Any]]:
        try:
            found = self._run(outputs, {**bound, **arrays}, None)
            # Copies, for the originals live in ONNX Runtime's memory.
            return [each.copy() for each in found]
        except Exception as error:
            kind = InputError if isinstance(error, InvalidArgument) else BundleError
            raise kind(f"the model can't run this batch: {first_line(error)}") from error

    def abandon(self) -> None:
        # Nothing ever ends the session, also not the end of Python: it would wait for its threads for ever.
        ctypes.pythonapi.Py_IncRef(ctypes.py_object(self._session))


class _OnnxRuntime(Engine):
    name = "onnxruntime"
    targets: ClassVar[frozenset[str]] = frozenset({"ort", "portable"})
    runs = "standard ONNX operators and its own"

    def open(self, files: ProgramFiles, *, threads: int | None = None, options: OptionValues = NO_OPTIONS) -> Program:
        settings = ort.SessionOptions()
        settings.add_session_config_entry(*_MODEL_FORMAT)
        settings.graph_optimization_level = _LEVELS[files.at_load]
        settings.log_severity_level = _LOG_FATAL_ONLY
        settings.inter_op_num_threads = 1
        settings.enable_mem_pattern = files.plans_memory
        if threads is not None:
            settings.intra_op_num_threads = threads
        try:
            settings.add_session_config_entry(_WEIGHTS_FOLDER, str(files.folder.absolute()))
            return _Program(ort.InferenceSession(files.model, settings, providers=["CPUExecutionProvider"]))
        except Exception as error:
            raise BundleError(
                f"the model {files.path} cannot be loaded: {first_line(error)}",
                hint="copy the bundle again, or export it again",
            ) from error


def _tensor(value: Any) -> GraphTensor:
    """A graph input as ONNX Runtime describes it."""
    shape = tuple(each if isinstance(each, int) else None for each in value.shape)
    return GraphTensor(_DTYPES.get(value.type, value.type), shape)


ENGINE = _OnnxRuntime()
