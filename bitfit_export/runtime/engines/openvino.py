"""OpenVINO on the CPU. Needs the `[openvino]` extra.

It runs standard ONNX operators alone, and optimises every model that it opens, whatever `at_load` says. Options:

- `precision`: `f32` (default) or `bf16`. By itself OpenVINO takes bfloat16 wherever the processor has it.
- `streams`: how many runs may go on at once; others wait. Each has as many threads as a run was given.
- `cache_dir`: a folder for compiled models, from which the next process opens them sooner.

A run uses numpy's memory for every input. Requests keep addresses only, so whoever calls keeps the arrays alive.
"""

from __future__ import annotations

import ctypes
import functools
import importlib
import os
import weakref
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any, ClassVar

import numpy as np
from numpy.typing import NDArray

from bitfit_export.bundle.interface import TOKEN_TYPE_IDS
from bitfit_export.bundle.limits import MAX_MODEL_SIZE
from bitfit_export.bundle.regular_files import OPEN_AGAIN, Stamp, read_file
from bitfit_export.errors import BitfitError, BundleError, InputError, MissingExtraError, UsageError, first_line
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
from bitfit_export.runtime.threads import check_threads, most_threads

__all__ = ["ENGINE"]

_DEVICE = "CPU"
_SETTINGS: Mapping[str, Any] = {
    "PERFORMANCE_HINT": "LATENCY",
    # It would bind the calling thread to a core: in every process to the same one.
    "ENABLE_CPU_PINNING": False,
}
# Operators whose output has the values of their first input, in another shape, order or number.
_MOVES = frozenset({"Convert", "Gather", "GatherND", "Reshape", "Slice", "Squeeze", "Transpose", "Unsqueeze"})


class _Tensors(dict[str, Any]):
    """OpenVINO's tensors by name. Unlike a plain dictionary it can be referred to weakly."""


class _Request:
    """An inference request. One thread at a time runs it."""

    def __init__(self, request: Any) -> None:
        self._request = request
        self._bound: weakref.ref[_Tensors] | None = None  # what it has from its last run, if that is still there

    def run(self, tensors: _Tensors, bound: Any, outputs: Sequence[str]) -> list[NDArray[Any]]:
        has_bound = self._bound is not None and self._bound() is bound
        found = self._request.infer(tensors if has_bound else {**bound, **tensors}, share_outputs=True)
        self._bound = weakref.ref(bound)
        # Copies, for the originals are overwritten by the next run of this request.
        return [np.array(found[name]) for name in outputs]


class _Program(Program):
    """A compiled model, and requests that no thread is running at the moment."""

    def __init__(self, openvino: Any, compiled: Any, metadata: Mapping[str, str], *, types: int | None) -> None:
        self._openvino, self._compiled = openvino, compiled
        self._idle: list[_Request] = []
        self._types = types
        self.inputs = {each.any_name: _tensor(each) for each in compiled.inputs}
        self.defaults: Mapping[str, GraphTensor] = {}
        self.outputs = tuple(each.any_name for each in compiled.outputs)
        self.metadata = metadata

    def bind(self, arrays: Arrays) -> _Tensors:
        return _Tensors({name: self._share(array) for name, array in arrays.items()})

    def run(self, arrays: Arrays, bound: Bound, outputs: Sequence[str]) -> list[NDArray[Any]]:
        self._check_types(arrays)
        if len(arrays) + len(bound) != len(self.inputs):  # a request would read what its last run was fed
            raise BundleError(f"the model can't run this batch: expected all of {', '.join(self.inputs)}")
        try:
            request = self._idle.pop()
        except IndexError:
            request = _Request(self._compiled.create_infer_request())
        try:
            found = request.run(self.bind(arrays), bound, outputs)
        except Exception as error:  # the request is not used again
            raise BundleError(f"the model can't run this batch: {_reason(error)}") from error
        self._idle.append(request)
        return found

    def abandon(self) -> None:
        # Nothing ever ends the model, also not the end of Python: it would wait for its threads for ever.
        ctypes.pythonapi.Py_IncRef(ctypes.py_object(self))

    def _share(self, array: NDArray[Any]) -> Any:
        """A tensor that uses the array's memory and keeps it alive; of a read-only array, which it refuses, a copy."""
        return self._openvino.Tensor(array if array.flags.writeable else array.copy(), shared_memory=True)

    def _check_types(self, arrays: Arrays) -> None:
        """OpenVINO reads zeros for a token type that the model lacks; other ids were checked before they came here."""
        if self._types is not None and TOKEN_TYPE_IDS in arrays:
            largest = int(arrays[TOKEN_TYPE_IDS].max())
            if largest >= self._types:
                raise InputError(
                    f"the model can't run this batch: it has {largest} in {TOKEN_TYPE_IDS}, "
                    f"expected 0 to {self._types - 1}"
                )


def _is_count(value: str) -> bool:
    return value in map(str, range(1, most_threads() + 1))


class _OpenVino(Engine):
    name = "openvino"
    targets: ClassVar[frozenset[str]] = frozenset({"portable"})
    runs = "standard ONNX operators alone"
    feeds_defaults = False
    options: ClassVar[Mapping[str, EngineOption]] = {
        "precision": EngineOption(("f32", "bf16").__contains__, "f32 or bf16"),
        "streams": EngineOption(_is_count, f"a number from 1 to {most_threads()}"),
        "cache_dir": EngineOption(bool, "a folder"),
    }

    def open(self, files: ProgramFiles, *, threads: int | None = None, options: OptionValues = NO_OPTIONS) -> Program:
        core = _own_core()
        settings = _settings(core, threads, options)
        try:
            model = _read_model(files)
            metadata, types = _metadata(model), _token_types(model)
            compiled = core.compile_model(model, _DEVICE, settings)
        except BitfitError:
            raise
        except Exception as error:
            raise BundleError(
                f"the model {files.path} cannot be loaded: {_reason(error)}",
                hint="copy the bundle again, or export it again",
            ) from error
        program = _Program(_import("openvino"), compiled, metadata, types=types)
        program.exact = settings["INFERENCE_PRECISION_HINT"] == "f32"
        return program


def _import(module: str) -> Any:
    try:
        return importlib.import_module(module)  # it has no types
    except ImportError as error:
        raise MissingExtraError("openvino", "openvino") from error


@functools.cache
def _core() -> tuple[Any, int]:
    """OpenVINO's core, which loads its plugin once, and the process that made it."""
    return _import("openvino").Core(), os.getpid()


def _own_core() -> Any:
    """The core of this process.

    Raises:
        BundleError: it was made before a fork. OpenVINO's threads are not in the new process, but locks that they held
            are, and compiling a model would wait for them for ever.
    """
    core, process = _core()
    if process != os.getpid():
        raise BundleError(
            "OpenVINO cannot run in this process: the process that it was forked from had opened a model with it",
            hint="start processes with spawn or forkserver, or open the first session after the fork",
        )
    return core


def _settings(core: Any, threads: int | None, options: OptionValues) -> dict[str, Any]:
    precision, streams = options.get("precision", "f32"), int(options.get("streams", "1"))
    if precision == "bf16" and "BF16" not in core.get_property(_DEVICE, "OPTIMIZATION_CAPABILITIES"):
        raise UsageError(
            "the option precision of the engine openvino is 'bf16', but this processor has no bfloat16 arithmetic: "
            "OpenVINO would compute in float32",
            hint="leave the option out",
        )
    settings = {**_SETTINGS, "INFERENCE_PRECISION_HINT": precision, "NUM_STREAMS": streams}
    if threads is not None:
        settings["INFERENCE_NUM_THREADS"] = check_threads(threads * streams, "threads times streams")
    if "cache_dir" in options:
        settings["CACHE_DIR"] = str(_cache_folder(Path(options["cache_dir"])))
    return settings


def _cache_folder(path: Path) -> Path:
    try:
        path.mkdir(parents=True, exist_ok=True)
    except (OSError, ValueError) as error:
        raise UsageError(f"the cache_dir {path} cannot be made: {getattr(error, 'strerror', error)}") from error
    return path.absolute()


def _read_model(files: ProgramFiles) -> Any:
    """OpenVINO's form of the model. It finds weights from the model's path alone, so it reads the file once more.

    Raises:
        BundleError: the file is no longer the one that was checked.
    """
    try:
        before = Stamp.of(os.stat(files.path))
        unchanged = read_file(files.path, limit=MAX_MODEL_SIZE) == files.model
        # Not by `Core.read_model`, which guesses the format from the bytes.
        frontend = _import("openvino.frontend").FrontEndManager().load_by_framework("onnx")
        model = frontend.convert(frontend.load(str(files.path.absolute()))) if unchanged else None
        unchanged = unchanged and Stamp.of(os.stat(files.path)) == before
    except OSError as error:
        raise BundleError(f"{files.path} cannot be read: {error.strerror or error}", hint=OPEN_AGAIN) from error
    if not unchanged:
        raise BundleError(f"{files.path} changed while the bundle was opened", hint=OPEN_AGAIN)
    return model


def _metadata(model: Any) -> dict[str, str]:
    """What ONNX calls `metadata_props`."""
    return dict(model.get_rt_info(["framework"]).value) if model.has_rt_info(["framework"]) else {}


def _token_types(model: Any) -> int | None:
    """The number of token types: of entries in the table in which the graph looks up `token_type_ids`."""
    for parameter in model.get_parameters():
        if TOKEN_TYPE_IDS in parameter.output(0).names:
            sizes = [size for size in _lookups(parameter) if size is not None]
            return min(sizes, default=None)
    return None


def _lookups(source: Any) -> Iterator[int | None]:
    """The size of each table in which the values of this node's output are looked up; None where it is not fixed."""
    for use in source.output(0).get_target_inputs():
        node, place = use.get_node(), use.get_index()
        if place == 1 and node.get_type_name() == "Gather":
            (size, *_) = node.input(0).get_partial_shape()
            yield None if size.is_dynamic else size.get_length()
        elif place == 0 and node.get_type_name() in _MOVES:
            yield from _lookups(node)


def _tensor(port: Any) -> GraphTensor:
    """A graph input as OpenVINO describes it."""
    shape = tuple(None if each.is_dynamic else each.get_length() for each in port.partial_shape)
    return GraphTensor(str(port.element_type.to_dtype()), shape)


def _reason(error: BaseException) -> str:
    """What OpenVINO says in its lines about files of its source."""
    lines = [line for line in str(error).split("\n") if line.strip() and not line.startswith("Exception from ")]
    return first_line(RuntimeError(lines[-1] if lines else str(error)))


ENGINE = _OpenVino()
