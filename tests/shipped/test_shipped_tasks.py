"""The five deltas that ship, on the whole dev sets: the bundle answers every example as PyTorch does."""

from __future__ import annotations

from dataclasses import dataclass, field
from pathlib import Path

import numpy as np
import pytest

from bitfit_export.base_model.loading import BaseModel
from bitfit_export.delta import TaskDelta
from bitfit_export.interop.delta_lookup import find_deltas
from bitfit_export.reference.task_model import merged_model, predict_logits
from bitfit_export.runtime import BiasSession
from bitfit_export.training import metrics
from bitfit_export.training.data import TaskData, load_task_data
from bitfit_export.verification.comparison import FP32_TOLERANCE
from tests.conftest import compile_shipped, real_data

TASKS = ("sst2", "mrpc", "cola", "stsb", "rte")
pytestmark = [pytest.mark.slow, pytest.mark.data]


@dataclass(frozen=True)
class Shipped:
    """The shipped deltas, their bundle, their dev sets, and PyTorch's logits for each example."""

    base: BaseModel
    deltas: dict[str, TaskDelta]
    session: BiasSession
    data: dict[str, TaskData]
    expected: dict[str, np.ndarray]
    found: dict[str, np.ndarray] = field(default_factory=dict)  # the bundle's logits of each task, once it has run


@pytest.fixture(scope="module")
def shipped(tmp_path_factory: pytest.TempPathFactory, minilm_folder: Path) -> Shipped:
    data_folder = real_data(*TASKS)
    folder = tmp_path_factory.mktemp("shipped")
    base, deltas = compile_shipped(TASKS, folder)
    data = {task: load_task_data(task, data=data_folder) for task in TASKS}
    expected = {
        task: predict_logits(
            merged_model(base, deltas[task]),
            base.tokenizer,
            data[task].validation.texts,
            max_length=deltas[task].config.max_length,
        )
        for task in TASKS
    }
    return Shipped(base, deltas, BiasSession(folder), data, expected)


def texts_of(data: TaskData) -> list[str | tuple[str, str]]:
    return [text[0] if len(text) == 1 else (text[0], text[1]) for text in data.validation.texts]


def run_examples(shipped: Shipped, examples: list[tuple[str, int]]) -> list[np.ndarray]:
    """The bundle's logits for (task, example) in batches of 32, from text."""
    texts = {task: texts_of(shipped.data[task]) for task in TASKS}
    limits = {task: shipped.deltas[task].config.max_length for task in TASKS}
    assert len(set(limits.values())) == 1
    found: list[np.ndarray] = []
    for start in range(0, len(examples), 32):
        batch = examples[start : start + 32]
        ids = shipped.session.encode(
            [texts[task][example] for task, example in batch], truncate=True, max_length=limits[batch[0][0]]
        )
        tasks = [task for task, _ in batch]
        logits = shipped.session.run(tasks if len(set(tasks)) > 1 else tasks[0], **ids)
        found += [
            example[: shipped.deltas[task].config.output_size] for example, task in zip(logits, tasks, strict=True)
        ]
    return found


def by_length(shipped: Shipped, *tasks: str) -> list[tuple[str, int]]:
    """Task and number of each example, short ones first, so that a batch has examples of about one length."""
    texts = {task: shipped.data[task].validation.texts for task in tasks}
    pairs = [(task, example) for task in tasks for example in range(len(texts[task]))]
    return sorted(pairs, key=lambda pair: sum(map(len, texts[pair[0]][pair[1]])))


def task_logits(shipped: Shipped, task: str) -> np.ndarray:
    """The bundle's logits for all dev examples of the task, run once."""
    if task not in shipped.found:
        pairs = by_length(shipped, task)
        logits = np.stack(run_examples(shipped, pairs))
        shipped.found[task] = logits[np.argsort([example for _, example in pairs])]
    return shipped.found[task]


def assert_rows_are_pytorchs(shipped: Shipped, pairs: list[tuple[str, int]]) -> None:
    for (task, example), logits in zip(pairs, run_examples(shipped, pairs), strict=True):
        expected = shipped.expected[task][example]
        assert np.abs(logits - expected).max() <= FP32_TOLERANCE, (task, example)
        assert logits.argmax() == expected.argmax(), (task, example)


@pytest.mark.parametrize("task", TASKS)
def test_one_task_at_a_time(shipped: Shipped, task: str) -> None:
    found, expected = task_logits(shipped, task), shipped.expected[task]
    assert len(found) == len(shipped.data[task].validation.labels)
    np.testing.assert_allclose(found, expected, atol=FP32_TOLERANCE, rtol=0)
    assert (found.argmax(-1) == expected.argmax(-1)).all()


def test_mixed_batches(shipped: Shipped) -> None:
    pairs = by_length(shipped, *TASKS)
    assert any({task for task, _ in pairs[start : start + 32]} == set(TASKS) for start in range(0, len(pairs), 32))
    assert len(pairs) == sum(len(logits) for logits in shipped.expected.values())
    assert_rows_are_pytorchs(shipped, pairs)


def test_mixed_batches_in_random_order(shipped: Shipped) -> None:
    """Short examples beside long ones of other tasks."""
    pairs = by_length(shipped, *TASKS)
    order = np.random.default_rng(0).permutation(len(pairs))[:256]
    assert_rows_are_pytorchs(shipped, [pairs[index] for index in order])


@pytest.mark.parametrize("task", TASKS)
def test_the_metric_is_the_model_cards(shipped: Shipped, task: str) -> None:
    data, config = shipped.data[task], shipped.deltas[task].config
    logits, references = task_logits(shipped, task), data.validation.labels
    predictions = logits[:, 0] if config.problem_type == "regression" else logits.argmax(-1)
    found = metrics.compute(data.spec.metrics, config.problem_type, predictions, references)
    # A correlation depends on the last bits of each score, a count of right answers does not.
    tolerance = 1e-5 if config.problem_type == "regression" else 0.0
    assert found == {name: pytest.approx(value, abs=tolerance) for name, value in config.metrics.items()}
    card = (Path(find_deltas("minilm-l6", [task])[task]) / "README.md").read_text()
    for name, value in config.metrics.items():
        assert f"| {name} | {value:.4f} |" in card
