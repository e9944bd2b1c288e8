"""A session on the tiny bundle, and what PyTorch says about the same rows."""

from __future__ import annotations

import shutil
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import pytest

from bitfit_export.bundle import Layout, TaskRecord, read_manifest, read_row, write_manifest, write_row
from bitfit_export.files import sha256_of_file
from bitfit_export.runtime import BiasSession

if TYPE_CHECKING:
    from bitfit_export.base_models import BaseModel
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


class Reference:
    """The logits that PyTorch gives for a task, one row at a time and without padding."""

    def __init__(self, base: BaseModel, deltas: dict[str, TaskDelta]) -> None:
        from bitfit_export.task_model import merged_model

        self.models = {name: merged_model(base, delta) for name, delta in deltas.items()}

    def __call__(self, task: str, batch: dict[str, np.ndarray]) -> np.ndarray:
        import torch

        rows = []
        for row in range(len(batch["input_ids"])):
            length = int(batch["attention_mask"][row].sum())
            inputs = {name: torch.from_numpy(values[row : row + 1, :length]) for name, values in batch.items()}
            with torch.inference_mode():
                rows.append(self.models[task](**inputs)["logits"].numpy())
        return np.concatenate(rows)


@pytest.fixture(scope="module")
def reference(tiny_base: BaseModel, tiny_deltas: dict[str, TaskDelta]) -> Reference:
    return Reference(tiny_base, tiny_deltas)


@pytest.fixture(scope="module")
def shared(tiny_bundle: Path) -> BiasSession:
    """For tests that load and unload nothing."""
    return BiasSession(tiny_bundle, threads=1)


@pytest.fixture
def session(tiny_bundle: Path) -> BiasSession:
    return BiasSession(tiny_bundle, threads=1)


@pytest.fixture
def copied(tiny_bundle: Path, tmp_path: Path) -> Path:
    """A bundle to damage."""
    return Path(shutil.copytree(tiny_bundle, tmp_path / "bundle"))


@pytest.fixture(scope="module")
def layout(tiny_bundle: Path) -> Layout:
    return read_manifest(tiny_bundle).layout


@pytest.fixture
def save_row(tiny_bundle: Path, layout: Layout, tmp_path: Path) -> Any:
    """Write a row of the bundle with some fields changed, and give its path."""

    def save(source: str = "two_way", /, **changes: Any) -> Path:
        row = read_row(tiny_bundle / "tasks" / f"{source}.bias", layout=layout)
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


def record_of(folder: Path, task: str, **changes: Any) -> dict[str, TaskRecord]:
    tasks = read_manifest(folder).tasks
    path = folder / tasks[task].file
    return tasks | {task: replace(tasks[task], sha256=sha256_of_file(path), **changes)}
