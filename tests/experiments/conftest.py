"""A runner with a tiny base model and two tasks that train in a second."""

from __future__ import annotations

import json
from collections.abc import Sequence
from pathlib import Path

import pytest

from bitfit_export.base_model.loading import BaseModel
from bitfit_export.experiments import DataOptions, TrialRunner, TrialRunnerOptions

WORDS = ("bad", "good")


def write_task(folder: Path, *, train: int = 16, dev: int = 4, words: Sequence[str] = WORDS) -> None:
    """A task that asks which of the words a sentence has."""
    folder.mkdir(parents=True)
    examples = [{"sentence": f"it is {word}", "label": label} for label, word in enumerate(words)]
    for name, count in (("train", train), ("dev", dev)):
        (folder / f"{name}.jsonl").write_text("".join(f"{json.dumps(example)}\n" for example in examples * count))


@pytest.fixture
def data_folder(tmp_path: Path) -> Path:
    """`mood` and `size`, with 32 examples to train on and 8 to validate on each."""
    write_task(tmp_path / "data" / "mood")
    write_task(tmp_path / "data" / "size", words=("small", "large"))
    return tmp_path / "data"


@pytest.fixture
def runner(tmp_path: Path, data_folder: Path, tiny_base: BaseModel) -> TrialRunner:
    return TrialRunner(
        TrialRunnerOptions(tiny_base.source.location, tmp_path / "out", DataOptions(data_folder), threads=1)
    )
