"""Qualcomm's HTP, by a program that was compiled for it ahead of time. Needs the `[qnn]` extra.

On a device with an NPU it runs there; on Linux x86-64 the library emulates the HTP, which gives the NPU's answers and
takes seconds for each. `Program.device` says which of the two it is. Opening a program compiles nothing. Option:

- `htp_arch`: the version of this device's HTP, such as 73: a program for another one is refused before it is loaded.

Qualcomm's library parses the context binary and trusts it, so its bytes are compared with the manifest first.
"""

from __future__ import annotations

import ctypes
import re
import threading
from collections.abc import Mapping, Sequence
from typing import Any, ClassVar

import onnxruntime as ort
from numpy.typing import NDArray

from bitfit_export.accelerators.qnn import ARCHES, QnnLibrary, load_library, stdout_is_stderr
from bitfit_export.bundle.accelerator import AcceleratorRecord
from bitfit_export.bundle.external_data import context_binaries
from bitfit_export.bundle.regular_files import COPY_AGAIN
from bitfit_export.errors import BundleError, first_line, quoted
from bitfit_export.runtime.engines.base import (
    NO_OPTIONS,
    Arrays,
    Bound,
    Engine,
    EngineOption,
    GraphTensor,
    OptionValues,
    Program,
    ProgramFiles,
)

__all__ = ["ENGINE"]

_DTYPES = {"tensor(int64)": "int64", "tensor(float)": "float32", "tensor(int32)": "int32"}
_RELEASE = re.compile(r"(\d{1,6})\.(\d{1,6})\b")
_EXPORT_HERE = "export the bundle again with the onnxruntime-qnn that runs it"


class _Program(Program):
    """A session of ONNX Runtime whose one node is a context binary."""

    def __init__(self, session: Any, library: QnnLibrary) -> None:
        self._session = session
        self._running = threading.Lock()  # the HTP runs one at a time
        self.inputs = {each.name: _tensor(each) for each in session.get_inputs()}
        self.defaults: Mapping[str, GraphTensor] = {}
        self.outputs = tuple(each.name for each in session.get_outputs())
        self.metadata = session.get_modelmeta().custom_metadata_map
        self.device, self.emulated = library.device, library.emulates

    def bind(self, arrays: Arrays) -> Bound:
        return dict(arrays)

    def run(self, arrays: Arrays, bound: Bound, outputs: Sequence[str]) -> list[NDArray[Any]]:
        try:
            with self._running:
                found = self._session.run(list(outputs), {**bound, **arrays})
            return [each.copy() for each in found]
        except Exception as error:
            raise BundleError(f"the HTP can't run this batch: {first_line(error)}") from error

    def abandon(self) -> None:
        # Nothing ever ends the session, also not the end of Python: it would wait for its threads for ever.
        ctypes.pythonapi.Py_IncRef(ctypes.py_object(self._session))


class _Qnn(Engine):
    name = "qnn"
    targets: ClassVar[frozenset[str]] = frozenset({"qnn"})
    runs = "programs that were compiled for Qualcomm's HTP"
    feeds_defaults = False
    options: ClassVar[Mapping[str, EngineOption]] = {
        "htp_arch": EngineOption(frozenset(map(str, ARCHES)).__contains__, f"one of {', '.join(map(str, ARCHES))}"),
    }

    def open(self, files: ProgramFiles, *, threads: int | None = None, options: OptionValues = NO_OPTIONS) -> Program:
        library = load_library()
        record = files.accelerator
        if record is None:
            raise BundleError(f"{files.path} was not compiled for an accelerator, expected a bundle of --target qnn")
        _check_binary_name(files, record)
        _check_release(record, library)
        arch = options.get("htp_arch", str(record.arch))
        if arch != str(record.arch):
            raise BundleError(
                f"the bundle was compiled for the HTP {record.arch} of {record.soc}, this device has {arch}",
                hint=f"export the bundle with --htp-arch {arch}",
            )
        settings = library.options(soc_model=str(record.soc_model), htp_arch=str(record.arch))
        # ONNX Runtime gets the model as bytes; the binary is looked for beside this path.
        settings.add_session_config_entry("ep.context_file_path", str(files.path.absolute()))
        with stdout_is_stderr():
            try:
                return _Program(ort.InferenceSession(files.model, settings), library)
            except Exception as error:
                raise BundleError(
                    f"the program {files.path} cannot be loaded: {first_line(error)}",
                    hint=f"copy the bundle again, or {_EXPORT_HERE}",
                ) from error


def _check_binary_name(files: ProgramFiles, record: AcceleratorRecord) -> None:
    """The library would read any other file without a check."""
    try:
        named = context_binaries(files.model)
    except ValueError as error:
        raise BundleError(f"the program {files.path} cannot be loaded: {error}", hint=COPY_AGAIN) from error
    if named != [record.binary]:
        found = ", ".join(map(quoted, named)) or "no context binary"
        raise BundleError(
            f"the program {files.path} loads {found}, expected {quoted(record.binary)} as in the manifest",
            hint=COPY_AGAIN,
        )


def _check_release(record: AcceleratorRecord, library: QnnLibrary) -> None:
    """A context binary runs with the SDK that made it, or with a later one of the same major version."""
    made, own = _RELEASE.match(record.sdk), _RELEASE.match(library.sdk)
    if made is None or own is None:
        raise BundleError(f"the bundle's SDK is {quoted(record.sdk)}, expected a version such as {library.sdk}")
    made_by, runs_with = (tuple(map(int, each.groups())) for each in (made, own))
    if made_by[0] != runs_with[0] or made_by > runs_with:
        raise BundleError(
            f"the bundle was compiled with QNN {record.sdk}, this is QNN {library.sdk}, which cannot load it",
            hint=f"install a later onnxruntime-qnn, or {_EXPORT_HERE}",
        )


def _tensor(value: Any) -> GraphTensor:
    """A graph input as ONNX Runtime describes it."""
    shape = tuple(each if isinstance(each, int) else None for each in value.shape)
    return GraphTensor(_DTYPES.get(value.type, value.type), shape)


ENGINE = _Qnn()
