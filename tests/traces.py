"""What the tests of a run make once and share: graphs, and folders such as bundles.

A trace takes seconds, and the values of the weights have no part in it.

A run of the tests, whatever its number of workers, traces each architecture once; other weights of that architecture
are put into the same graph. `tests/compiler/frontend/test_shared_traces.py` proves that this is the trace of those
weights. A test whose subject is the trace calls `trace_base_model` itself.
"""

from __future__ import annotations

import hashlib
import json
import os
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest

from bitfit_export.files.locks import locked

if TYPE_CHECKING:
    import onnx
    import torch

    from bitfit_export.base_model.loading import BaseModel
    from bitfit_export.compiler import CompileOptions
    from bitfit_export.compiler.pipeline import CompiledModel
    from bitfit_export.delta import TaskDelta

__all__ = [
    "bundle_of",
    "compile_bundle",
    "compile_model",
    "for_another_process",
    "keep_traces_in",
    "made_once",
    "reweighted",
    "traced",
]

#: Seconds that a worker waits for what another one makes.
_PATIENCE = 300
_folder: Path | None = None


def keep_traces_in(factory: pytest.TempPathFactory) -> None:
    """Keep what is made once in this run's temporary folder, which the workers of pytest-xdist have in common."""
    global _folder
    own = factory.getbasetemp()
    _folder = own.parent if "PYTEST_XDIST_WORKER" in os.environ else own


def traced(base: BaseModel, *, dropout: bool = False) -> onnx.ModelProto:
    """What `trace_base_model` returns for this base, traced in this run of the tests or with its weights put in."""
    import onnx

    from bitfit_export.compiler.frontend.trace import trace_base_model

    folder = made_once(
        f"traced-{_architecture(base)}{'-dropout' if dropout else ''}",
        lambda folder: (folder / "model.onnx").write_bytes(trace_base_model(base, dropout=dropout).SerializeToString()),
    )
    return reweighted(onnx.load(folder / "model.onnx"), base)


def for_another_process() -> str:
    """Python that lets `bitfit-export` compile a graph of this run, where another process runs it first."""
    return (
        "from pathlib import Path; from tests import traces; import bitfit_export.cli.export as export; "
        f"traces._folder = Path({str(_folder)!r}); export.compile_bundle = traces.compile_bundle"
    )


def made_once(name: str, make: Callable[[Path], object]) -> Path:
    """The folder that `make` fills, in this worker or in another one of this run. Tests must not write into it."""
    assert _folder is not None, "the session has not begun"
    path = _folder / name
    if not path.exists():
        with locked(_folder / f"{name}.lock", f"another worker makes {name}", patience=_PATIENCE):
            if not path.exists():
                part = _folder / f"{name}.part"
                part.mkdir()
                make(part)
                part.rename(path)
    return path


def reweighted(model: onnx.ModelProto, base: BaseModel) -> onnx.ModelProto:
    """Put the weights and biases of `base` into a traced graph of the same architecture, in place."""
    state = base.module.state_dict()
    for initializer in model.graph.initializer:
        if initializer.name in state:
            value = state[initializer.name]
            assert tuple(initializer.dims) == tuple(value.shape), initializer.name
            initializer.raw_data = _bytes_of(value)
    return model


def compile_model(
    base: BaseModel, deltas: Mapping[str, TaskDelta], options: CompileOptions | None = None, **others: Any
) -> CompiledModel:
    """The compiler's `compile_model`, from a shared trace."""
    from bitfit_export import compiler

    return compiler.compile_model(base, deltas, options, traced=traced(base), **others)


def compile_bundle(
    base: BaseModel, deltas: Mapping[str, TaskDelta], folder: Path, options: CompileOptions | None = None, **others: Any
) -> CompiledModel:
    """The compiler's `compile_bundle`, from a shared trace."""
    from bitfit_export import compiler

    return compiler.compile_bundle(base, deltas, folder, options, traced=traced(base), **others)


def bundle_of(base: BaseModel, deltas: Mapping[str, TaskDelta], options: CompileOptions | None = None) -> Path:
    """The folder of a bundle that is compiled once in this run of the tests. Tests must not write into it."""
    digest = hashlib.sha256(_architecture(base).encode())
    digest.update(repr((base.source.name, base.digest, options, *deltas)).encode())
    for delta in deltas.values():
        digest.update(repr((delta.config, *delta.biases, *delta.head)).encode())
        for array in (*delta.biases.values(), *delta.head.values()):
            digest.update(array.tobytes())
    return made_once(f"bundle-{digest.hexdigest()}", lambda folder: compile_bundle(base, deltas, folder, options))


def _architecture(base: BaseModel) -> str:
    """Returns a digest of all that a trace depends on: the model's class and config, and its tensors.

    Of the parameters it takes everything but the values, also which of them are the same tensor.
    """
    module = base.module
    config = {name: value for name, value in module.config.to_dict().items() if name != "_name_or_path"}
    first: dict[int, str] = {}
    parameters = [
        (name, str(value.dtype), tuple(value.shape), first.setdefault(id(value), name))
        for name, value in module.named_parameters(remove_duplicate=False)
    ]
    # What a model keeps besides parameters, such as its position ids, may be in the graph under any name.
    buffers = [(name, hashlib.sha256(_bytes_of(value)).hexdigest()) for name, value in module.named_buffers()]
    parts = [str(type(module)), base.modality, base.input_names, list(base.biases), config, parameters, buffers]
    return hashlib.sha256(json.dumps(parts, default=str).encode()).hexdigest()


def _bytes_of(value: torch.Tensor) -> bytes:
    import torch

    data: bytes = value.detach().contiguous().reshape(-1).view(torch.uint8).numpy().tobytes()
    return data
