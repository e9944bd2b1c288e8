"""The five deltas that ship, on their dev sets: the bundle answers as PyTorch does, and scores what the cards say.

The scores are of all rows; `--dev-rows` of each task are compared with PyTorch, all with `--dev-rows 0`.
"""

from __future__ import annotations

import os
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np
import pytest

from bitfit_export.base_models import BaseModel, load_base_model
from bitfit_export.compiler import compile_bundle
from bitfit_export.delta import TaskDelta
from bitfit_export.delta_store import find_deltas, load_deltas
from bitfit_export.runtime import BiasSession
from bitfit_export.task_model import merged_model, predict_logits
from bitfit_export.training import metrics
from bitfit_export.training.data import TaskData, load_task_data
from bitfit_export.verify import FP32_TOLERANCE

TASKS = ("sst2", "mrpc", "cola", "stsb", "rte")
pytestmark = [pytest.mark.slow, pytest.mark.data]


@dataclass(frozen=True)
class Shipped:
    """The shipped deltas, their bundle, their dev sets, and PyTorch's logits for `--dev-rows` random rows of each."""

    base: BaseModel
    deltas: dict[str, TaskDelta]
    session: BiasSession
    data: dict[str, TaskData]
    rows: dict[str, list[int]]
    expected: dict[str, np.ndarray]
    found: dict[str, np.ndarray] = field(default_factory=dict)  # the bundle's logits of each task, once it has run


@pytest.fixture(scope="module")
def shipped(tmp_path_factory: pytest.TempPathFactory, minilm_folder: Path, request: pytest.FixtureRequest) -> Shipped:
    if "BITFIT_DATA" not in os.environ:
        pytest.skip("BITFIT_DATA does not name a folder with the GLUE data")
    base = load_base_model("minilm-l6")
    deltas = load_deltas(find_deltas("minilm-l6", ",".join(TASKS)))
    folder = tmp_path_factory.mktemp("shipped")
    compile_bundle(base, deltas, folder)
    data = {task: load_task_data(task, data=Path(os.environ["BITFIT_DATA"])) for task in TASKS}
    count = request.config.getoption("--dev-rows") or None
    random = np.random.default_rng(0)
    rows = {task: random.permutation(len(data[task].validation.labels)).tolist()[:count] for task in TASKS}
    expected = {
        task: predict_logits(
            merged_model(base, deltas[task]),
            base.tokenizer,
            [data[task].validation.texts[row] for row in rows[task]],
            max_length=deltas[task].config.max_length,
        )
        for task in TASKS
    }
    return Shipped(base, deltas, BiasSession(folder), data, rows, expected)


def texts_of(data: TaskData) -> list[str | tuple[str, str]]:
    return [text[0] if len(text) == 1 else (text[0], text[1]) for text in data.validation.texts]


def run_rows(shipped: Shipped, rows: list[tuple[str, int]]) -> list[np.ndarray]:
    """The bundle's logits for (task, row) in batches of 32, from text."""
    texts = {task: texts_of(shipped.data[task]) for task in TASKS}
    limits = {task: shipped.deltas[task].config.max_length for task in TASKS}
    assert len(set(limits.values())) == 1
    found: list[np.ndarray] = []
    for start in range(0, len(rows), 32):
        batch = rows[start : start + 32]
        ids = shipped.session.encode(
            [texts[task][row] for task, row in batch], truncate=True, max_length=limits[batch[0][0]]
        )
        tasks = [task for task, _ in batch]
        logits = shipped.session.run(tasks if len(set(tasks)) > 1 else tasks[0], **ids)
        found += [row[: shipped.deltas[task].config.output_size] for row, task in zip(logits, tasks, strict=True)]
    return found


def task_logits(shipped: Shipped, task: str) -> np.ndarray:
    """The bundle's logits for all dev rows of the task, which it runs in the order of their lengths."""
    if task not in shipped.found:
        texts = shipped.data[task].validation.texts
        order = sorted(range(len(texts)), key=lambda row: sum(map(len, texts[row])))
        logits = np.stack(run_rows(shipped, [(task, row) for row in order]))
        shipped.found[task] = logits[np.argsort(order)]
    return shipped.found[task]


@pytest.mark.parametrize("task", TASKS)
def test_one_task_at_a_time(shipped: Shipped, task: str) -> None:
    found = task_logits(shipped, task)
    assert len(found) == len(shipped.data[task].validation.labels)
    expected = shipped.expected[task]
    np.testing.assert_allclose(found[shipped.rows[task]], expected, atol=FP32_TOLERANCE, rtol=0)
    assert (found[shipped.rows[task]].argmax(-1) == expected.argmax(-1)).all()


def test_mixed_batches_in_random_order(shipped: Shipped) -> None:
    pairs = [(task, number) for task in TASKS for number in range(len(shipped.rows[task]))]
    shuffled = [pairs[index] for index in np.random.default_rng(0).permutation(len(pairs))]
    found = run_rows(shipped, [(task, shipped.rows[task][number]) for task, number in shuffled])
    for (task, number), logits in zip(shuffled, found, strict=True):
        expected = shipped.expected[task][number]
        assert np.abs(logits - expected).max() <= FP32_TOLERANCE, (task, number)
        assert logits.argmax() == expected.argmax(), (task, number)


@pytest.mark.parametrize("task", TASKS)
def test_the_metric_is_the_model_cards(shipped: Shipped, task: str) -> None:
    data, config = shipped.data[task], shipped.deltas[task].config
    logits, references = task_logits(shipped, task), data.validation.labels
    predictions = logits[:, 0] if config.problem_type == "regression" else logits.argmax(-1)
    found = metrics.compute(data.spec.metrics, config.problem_type, predictions, references)
    # A correlation depends on the last bits of each score, a count of right answers does not.
    tolerance = 1e-5 if config.problem_type == "regression" else 0.0
    assert found == {name: pytest.approx(value, abs=tolerance) for name, value in config.metrics.items()}
    card = (Path(find_deltas("minilm-l6", task)[task]) / "README.md").read_text()
    for name, value in config.metrics.items():
        assert f"| {name} | {value:.4f} |" in card
