"""The frozen model: ONNX Runtime's session on it, and the check that its graph is the one that the manifest names."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, TypeAlias

import numpy as np
import onnxruntime as ort
from numpy.typing import NDArray
from onnxruntime.capi.onnxruntime_pybind11_state import InvalidArgument

from bitfit_export.bundle import Layout, Manifest
from bitfit_export.errors import BundleError, InputError
from bitfit_export.runtime.inputs import TEXT_INPUTS
from bitfit_export.runtime.table import BIAS_TABLE

__all__ = ["LOGITS", "MODEL_FILE", "TASK_IDS", "FrozenModel"]

MODEL_FILE = "model.onnx"
LOGITS = "logits"
#: The graph input that names each batch row's slot; [1] means one slot for the whole batch.
TASK_IDS = "task_ids"
_DIGEST_PROPERTY = "bitfit_export.layout_digest"
_EXPORT_AGAIN = "copy the bundle again, or export it again"
# ONNX Runtime's failures are raised and become errors here; what it would log besides is a repetition.
_LOG_FATAL_ONLY = 4

# A graph input as ONNX Runtime describes it: its type, and a number or None (any) for each dimension.
_Signature: TypeAlias = tuple[str, tuple[int | None, ...]]


class FrozenModel:
    """`model.onnx` of a bundle, on the CPU. Any number of threads may run it.

    Attributes:
        inputs: the names of the graph inputs.

    Raises:
        BundleError: the model can't be loaded, or is not the one that the manifest describes.
    """

    def __init__(self, folder: Path, manifest: Manifest, *, threads: int | None = None) -> None:
        path = folder / MODEL_FILE
        if manifest.layout_kind != "table":
            raise BundleError(
                f"the bundle {folder} has layout {manifest.layout_kind}, expected table",
                hint="export it again with --layout table, or run it with ONNX Runtime itself",
            )
        self._session = _open_session(path, threads)
        self.inputs = tuple(each.name for each in self._session.get_inputs())
        _check_digest(path, self._session, manifest.layout)
        _check_interface(path, self._session, manifest)

    def run(
        self, text: Mapping[str, NDArray[np.int64]], slots: NDArray[np.int64], table: Mapping[str, Any]
    ) -> NDArray[np.float32]:
        """Logits float32 [batch, labels of the table].

        Args:
            text: the text inputs of the graph, contiguous int64 [batch, sequence].
            slots: int64 [batch] or [1].
            table: OrtValues for the bias table and the head inputs.

        Raises:
            InputError: an input that only the model itself can refuse, such as a token type that it lacks.
            BundleError: any other failure of ONNX Runtime.
        """
        wrap = ort.OrtValue.ortvalue_from_numpy
        # OrtValues, for onnxruntime promises to copy none of these; they keep their numpy arrays alive.
        values = {name: wrap(array) for name, array in text.items()} | {TASK_IDS: wrap(slots)} | dict(table)
        try:
            (logits,) = self._session.run_with_ort_values([LOGITS], values)
            # A copy, for the original lives in ONNX Runtime's memory.
            return np.array(logits.numpy())
        except Exception as error:
            kind = InputError if isinstance(error, InvalidArgument) else BundleError
            raise kind(f"the model can't run this batch: {_first_line(error)}") from error


def _open_session(path: Path, threads: int | None) -> Any:
    options = ort.SessionOptions()
    options.log_severity_level = _LOG_FATAL_ONLY
    options.inter_op_num_threads = 1
    if threads is not None:
        options.intra_op_num_threads = threads
    try:
        return ort.InferenceSession(str(path), options, providers=["CPUExecutionProvider"])
    except Exception as error:
        raise BundleError(f"the model {path} can't be loaded: {_first_line(error)}", hint=_EXPORT_AGAIN) from error


def _check_digest(path: Path, session: Any, layout: Layout) -> None:
    """A model and a manifest of two bundles may have the same interface; only the digest tells them apart."""
    found = session.get_modelmeta().custom_metadata_map.get(_DIGEST_PROPERTY)
    if found != layout.digest:
        what = "has no layout digest" if found is None else f"has layout digest {found[:12]}"
        raise BundleError(
            f"the model {path} {what}, expected {layout.digest[:12]} as in the manifest", hint=_EXPORT_AGAIN
        )


def _check_interface(path: Path, session: Any, manifest: Manifest) -> None:
    found = {each.name: _signature(each.type, each.shape) for each in session.get_inputs()}
    if tuple(found) != manifest.inputs:
        raise BundleError(
            f"the model {path} has the inputs {', '.join(found)}, expected {', '.join(manifest.inputs)}",
            hint=_EXPORT_AGAIN,
        )
    expected = _expected_inputs(manifest.layout)
    if "token_type_ids" not in found:
        del expected["token_type_ids"]
    if found.keys() != expected.keys():
        raise BundleError(
            f"the model {path} has the inputs {', '.join(found)}, expected {', '.join(expected)}", hint=_EXPORT_AGAIN
        )
    for name, signature in expected.items():
        if found[name] != signature:
            raise BundleError(
                f"the model {path} has the input {name} {_show(found[name])}, expected {_show(signature)}",
                hint=_EXPORT_AGAIN,
            )
    if LOGITS not in {each.name for each in session.get_outputs()}:
        raise BundleError(f"the model {path} has no output {LOGITS}", hint=_EXPORT_AGAIN)


def _expected_inputs(layout: Layout) -> dict[str, _Signature]:
    head = {entry.name: _signature("tensor(float)", ["tasks", *entry.shape]) for entry in layout.head}
    text = {name: _signature("tensor(int64)", ["batch", "sequence"]) for name in TEXT_INPUTS}
    return {
        **text,
        TASK_IDS: _signature("tensor(int64)", ["batch"]),
        BIAS_TABLE: _signature("tensor(float)", ["tasks", layout.bias_count]),
        **head,
    }


def _signature(kind: str, shape: Sequence[int | str | None]) -> _Signature:
    return kind, tuple(each if isinstance(each, int) else None for each in shape)


def _show(signature: _Signature) -> str:
    kind, shape = signature
    return f"{kind} [{', '.join('any' if each is None else str(each) for each in shape)}]"


def _first_line(error: Exception) -> str:
    return (str(error).strip() or type(error).__name__).split("\n")[0]
