"""The frozen model: ONNX Runtime's session on it."""

from __future__ import annotations

import ctypes
import threading
from collections.abc import Iterator, Mapping, Sequence
from typing import Any, TypeAlias

import numpy as np
import onnxruntime as ort
from numpy.typing import NDArray
from onnxruntime.capi.onnxruntime_pybind11_state import InvalidArgument

from bitfit_export.bundle import MODEL_FILE, CheckedFiles, Manifest, check_files
from bitfit_export.errors import BundleError, InputError, first_line
from bitfit_export.runtime.engines.graph_check import EXPORT_AGAIN, LOGITS, TOKEN_LOGITS, check_digest, check_interface
from bitfit_export.runtime.forks import hold_during_forks
from bitfit_export.runtime.inputs import TEXT_INPUTS
from bitfit_export.runtime.tasks.task_store import Feeds

__all__ = ["LOGITS", "MODEL_FILE", "TOKEN_LOGITS", "FrozenModel"]

# Where ONNX Runtime looks for the weights of a model that it gets as bytes.
_WEIGHTS_FOLDER = "session.model_external_initializers_file_folder_path"
# It would guess from the bytes otherwise, and its own format is not what was checked.
_MODEL_FORMAT = ("session.load_model_format", "ONNX")
# ONNX Runtime's failures are raised and become errors here; what it would log besides is a repetition.
_LOG_FATAL_ONLY = 4

Float32Array: TypeAlias = NDArray[np.float32]
TextArrays: TypeAlias = Mapping[str, NDArray[np.int64]]


class FrozenModel:
    """`model.onnx` of a bundle, on the CPU. Any number of threads may run it.

    Args:
        files: the bundle's; the model is made of the bytes that were checked.
        manifest: the bundle's.
        threads: for one run; by default ONNX Runtime's choice.

    Attributes:
        text_inputs: the names of the graph inputs that a text becomes.
        outputs: the names of the graph outputs.
        labels: the number of labels that the head inputs have, where it is fixed.
        max_positions: the longest sequence, in tokens.

    Raises:
        BundleError: the model can't be loaded, or is not the one that the manifest describes; its weights changed
            after they were checked.
    """

    def __init__(self, files: CheckedFiles, manifest: Manifest, *, threads: int | None = None) -> None:
        path = files.folder / MODEL_FILE
        self._folder, self._manifest, self._threads = files.folder.absolute(), manifest, threads
        self._session = _open_session(files, manifest, threads)
        self._opening = threading.Lock()
        hold_during_forks(self, self._opening, in_child=FrozenModel._leave_session)
        check_digest(path, self._session, manifest.layout)
        self.labels = check_interface(path, self._session, manifest)
        self.text_inputs = tuple(name for name in TEXT_INPUTS if name in manifest.inputs)
        self.outputs = manifest.outputs
        self.max_positions = manifest.static_shape[1] if manifest.static_shape else manifest.max_positions
        self._static_shape = manifest.static_shape
        self._pad_token_id = manifest.pad_token_id

    def run(self, text: TextArrays, feeds: Feeds, outputs: Sequence[str]) -> dict[str, Float32Array]:
        """Run a batch of any size; a graph of static shape runs it in batches of its own size.

        Args:
            text: the text inputs of the graph, contiguous int64 [batch, sequence].
            feeds: all other inputs, as OrtValues.
            outputs: the names of the wanted ones.

        Returns:
            For each wanted output an array: `logits` float32 [batch, labels of the feeds], `token_logits` float32
            [batch, sequence, labels of the feeds].

        Raises:
            InputError: an input that only the model itself can refuse, such as a token type that it lacks.
            BundleError: any other failure of ONNX Runtime.
        """
        if self._static_shape is None:
            return dict(zip(outputs, self._run(text, feeds, outputs), strict=True))
        rows, length = text["input_ids"].shape
        parts = [self._run(part, feeds, outputs) for part in self._fit(text, self._static_shape)]
        joined = (np.concatenate(each)[:rows] for each in zip(*parts, strict=True))
        return {
            name: values[:, :length] if name == TOKEN_LOGITS else values
            for name, values in zip(outputs, joined, strict=True)
        }

    def _fit(self, text: TextArrays, shape: tuple[int, int]) -> Iterator[dict[str, NDArray[np.int64]]]:
        """Batches of exactly this shape: what a text lacks is padding, and so are rows that the last batch lacks."""
        rows, length = text["input_ids"].shape
        for start in range(0, rows, shape[0]):
            part = {}
            for name, values in text.items():
                part[name] = np.full(shape, self._pad_token_id if name == "input_ids" else 0, np.int64)
                chosen = values[start : start + shape[0]]
                part[name][: len(chosen), :length] = chosen
            yield part

    def _run(self, text: TextArrays, feeds: Feeds, outputs: Sequence[str]) -> list[Float32Array]:
        wrap = ort.OrtValue.ortvalue_from_numpy
        # OrtValues, for onnxruntime promises to copy none of these; they keep their numpy arrays alive.
        values = {name: wrap(array) for name, array in text.items()} | dict(feeds)
        session = self._own_session()
        try:
            found = session.run_with_ort_values(list(outputs), values)
            # Copies, for the originals live in ONNX Runtime's memory.
            return [np.array(each.numpy()) for each in found]
        except Exception as error:
            kind = InputError if isinstance(error, InvalidArgument) else BundleError
            raise kind(f"the model can't run this batch: {first_line(error)}") from error

    def _own_session(self) -> Any:
        """ONNX Runtime's session of this process, which a forked one opens when it first runs the model.

        Raises:
            BundleError: the bundle is no longer as it was.
        """
        session = self._session
        if session is not None:
            return session
        with self._opening:
            if self._session is None:
                files = check_files(self._folder, self._manifest, hash_files=True)
                self._session = _open_session(files, self._manifest, self._threads)
            return self._session

    def _leave_session(self) -> None:
        """Give up the session that this process inherited: it lacks its threads, and may have a lock that one held."""
        # Nothing ever ends it, also not the end of Python: it would wait for its threads for ever.
        ctypes.pythonapi.Py_IncRef(ctypes.py_object(self._session))
        self._session = None


def _open_session(files: CheckedFiles, manifest: Manifest, threads: int | None) -> Any:
    options = ort.SessionOptions()
    options.add_session_config_entry(*_MODEL_FORMAT)
    if manifest.target == "ort":
        # The compiler has optimised the graph. What is left would fuse SkipLayerNormalization, which is slower. Only
        # float16 weights are still to be widened, once.
        levels = ort.GraphOptimizationLevel
        stored_in_half = manifest.precision == "fp16"
        options.graph_optimization_level = levels.ORT_ENABLE_BASIC if stored_in_half else levels.ORT_DISABLE_ALL
    options.log_severity_level = _LOG_FATAL_ONLY
    options.inter_op_num_threads = 1
    if threads is not None:
        options.intra_op_num_threads = threads
    try:
        options.add_session_config_entry(_WEIGHTS_FOLDER, str(files.folder.absolute()))
        session = ort.InferenceSession(files.model, options, providers=["CPUExecutionProvider"])
    except Exception as error:
        path = files.folder / MODEL_FILE
        raise BundleError(f"the model {path} can't be loaded: {first_line(error)}", hint=EXPORT_AGAIN) from error
    files.refuse_changed()
    return session
