"""A session on the tiny bundle, and what PyTorch says about the same rows."""

from __future__ import annotations

import shutil
from collections.abc import Callable, Iterator
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypeAlias

import numpy as np
import pytest

from bitfit_export.bundle import Layout, TaskRecord, read_manifest, read_row, record_file, write_manifest, write_row
from bitfit_export.files import sha256_of_file
from bitfit_export.runtime import BiasSession
from tests import traces
from tests.conftest import ENGINE_TARGETS

if TYPE_CHECKING:
    from bitfit_export.base_model.loading import BaseModel
    from bitfit_export.delta import TaskDelta

TOLERANCE = 1e-5
TASKS = ("three_way", "two_way", "score")
LABELS = {"three_way": 3, "two_way": 2, "score": 1}
TEXTS = [
    "A short one.",
    ("The dog sleeps on the sofa.", "An animal is resting."),
    "Something rather longer, with a few more words in it, so that the others of the batch are padded.",
    "",
    ("one", "two"),
]

#: Compiler options by the name that the tests give to what they make.
LAYOUTS: dict[str, dict[str, Any]] = {
    "table": {},
    "packed": {"layout": "packed"},
    "named": {"layout": "named"},
    "overridable": {"layout": "named", "overridable": True},
    "static": {"layout": "packed", "static_shape": (3, 48)},
}
#: The labels of the token task; no two neighbours with one of these are grouped by a Hugging Face pipeline.
TAGS = ("B-place", "B-person", "B-thing", "B-time")
MakeBundle: TypeAlias = Callable[[str], Path]
OpenBundle: TypeAlias = Callable[..., BiasSession]


class Reference:
    """The logits that PyTorch gives for a task, one row at a time and without padding."""

    def __init__(self, base: BaseModel, deltas: dict[str, TaskDelta]) -> None:
        from bitfit_export.reference.task_model import merged_model

        self.models = {name: merged_model(base, delta) for name, delta in deltas.items()}

    def rows(self, task: str, batch: dict[str, np.ndarray]) -> Iterator[np.ndarray]:
        """[labels] of each row, or [its tokens, labels] for a token or span task."""
        import torch

        for row in range(len(batch["input_ids"])):
            length = int(batch["attention_mask"][row].sum())
            inputs = {name: torch.from_numpy(values[row : row + 1, :length]) for name, values in batch.items()}
            with torch.inference_mode():
                yield self.models[task](**inputs)["logits"].numpy()[0]

    def __call__(self, task: str, batch: dict[str, np.ndarray]) -> np.ndarray:
        """[batch, labels], for a sentence task."""
        return np.stack(list(self.rows(task, batch)))


@pytest.fixture(scope="module")
def reference(tiny_base: BaseModel, tiny_deltas: dict[str, TaskDelta]) -> Reference:
    return Reference(tiny_base, tiny_deltas)


@pytest.fixture(scope="session")
def kind_deltas(tiny_base: BaseModel, tiny_deltas: dict[str, TaskDelta], make_delta: Any) -> dict[str, TaskDelta]:
    """Sentence tasks with and without a dense layer, a token task with more labels than these, and a span task."""
    dense = make_delta(tiny_base, "dense", labels=("no", "yes"), pooling="cls", activation="tanh", seed=4)
    tags = make_delta(tiny_base, "tags", labels=TAGS, problem_type="token", seed=5)
    answers = make_delta(tiny_base, "answers", labels=("start", "end"), problem_type="span", seed=6)
    return tiny_deltas | {"dense": dense, "tags": tags, "answers": answers}


@pytest.fixture(scope="session")
def kind_reference(tiny_base: BaseModel, kind_deltas: dict[str, TaskDelta]) -> Reference:
    return Reference(tiny_base, kind_deltas)


@pytest.fixture(scope="session")
def bundle(
    engine: str,
    request: pytest.FixtureRequest,
    tiny_base: BaseModel,
    tiny_deltas: dict[str, TaskDelta],
) -> Path:
    """The tiny bundle, for the engine. Tests must not write into it."""
    if engine == "onnxruntime":
        return Path(request.getfixturevalue("tiny_bundle"))
    from bitfit_export.compiler import CompileOptions

    return traces.bundle_of(tiny_base, tiny_deltas, CompileOptions(target=ENGINE_TARGETS[engine]))


@pytest.fixture(scope="session")
def make_bundle(engine: str, tiny_base: BaseModel, kind_deltas: dict[str, TaskDelta]) -> MakeBundle:
    """The folder of a bundle of `kind_deltas` with one of `LAYOUTS`, compiled when it is first asked for."""
    pytest.importorskip("onnx_graphsurgeon", reason="needs bitfit-export[export]")
    from bitfit_export.compiler import CompileOptions

    def make(name: str) -> Path:
        if engine == "openvino" and LAYOUTS[name].get("overridable"):
            pytest.skip("OpenVINO refuses it, as tests/runtime/test_openvino.py says")
        return traces.bundle_of(tiny_base, kind_deltas, CompileOptions(target=ENGINE_TARGETS[engine], **LAYOUTS[name]))

    return make


@pytest.fixture(scope="session")
def open_layout(make_bundle: MakeBundle, open_bundle: OpenBundle) -> Callable[[str], BiasSession]:
    """A session on a bundle of one of `LAYOUTS`, for tests that load and unload nothing."""
    sessions: dict[str, BiasSession] = {}

    def get(name: str) -> BiasSession:
        if name not in sessions:
            sessions[name] = open_bundle(make_bundle(name))
        return sessions[name]

    return get


@pytest.fixture(scope="module")
def shared(bundle: Path, open_bundle: OpenBundle) -> BiasSession:
    """For tests that load and unload nothing."""
    return open_bundle(bundle)


@pytest.fixture
def session(bundle: Path, open_bundle: OpenBundle) -> BiasSession:
    return open_bundle(bundle)


@pytest.fixture
def copied(bundle: Path, tmp_path: Path) -> Path:
    """A bundle to damage."""
    return Path(shutil.copytree(bundle, tmp_path / "bundle"))


@pytest.fixture(scope="module")
def layout(bundle: Path) -> Layout:
    return read_manifest(bundle).layout


@pytest.fixture
def save_row(bundle: Path, layout: Layout, tmp_path: Path) -> Any:
    """Write a row of the bundle with some fields changed, and give its path."""

    def save(source: str = "two_way", /, **changes: Any) -> Path:
        row = read_row(bundle / "tasks" / f"{source}.bias", layout=layout)
        path = tmp_path / f"{len(list(tmp_path.iterdir()))}.bias"
        write_row(path, replace(row, **changes))
        return path

    return save


def random_batch(rows: int, length: int, *, seed: int = 0) -> dict[str, np.ndarray]:
    """Random ids; each row is padded from its own length on, the first one not at all."""
    random = np.random.default_rng(seed)
    lengths = np.concatenate([[length], random.integers(1, length + 1, rows - 1)])
    mask = (np.arange(length) < lengths[:, None]).astype(np.int64)
    types = random.integers(0, 2, (rows, length)) * mask
    return {
        "input_ids": random.integers(1, 30522, (rows, length)) * mask,
        "attention_mask": mask,
        "token_type_ids": types,
    }


BATCH = random_batch(4, 9)


def change_manifest(folder: Path, **changes: Any) -> None:
    write_manifest(folder, replace(read_manifest(folder), **changes))


def change_program(folder: Path, **changes: Any) -> None:
    """Change what the manifest says of the program infer."""
    manifest = read_manifest(folder)
    change_manifest(folder, programs=manifest.programs | {"infer": replace(manifest.infer, **changes)})


def record_again(folder: Path, name: str) -> None:
    """Give the manifest the sums of a file that a test has changed."""
    change_manifest(folder, files=read_manifest(folder).files | {name: record_file(folder / name)})


def record_of(folder: Path, task: str, **changes: Any) -> dict[str, TaskRecord]:
    tasks = read_manifest(folder).tasks
    path = folder / tasks[task].file
    return tasks | {task: replace(tasks[task], sha256=sha256_of_file(path), **changes)}
