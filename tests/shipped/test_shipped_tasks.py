"""The GLUE deltas that ship: the bundle has the metrics of their cards on the whole dev sets, and PyTorch's logits.

`--dev-examples 0` compares the logits of all examples.
"""

from __future__ import annotations

from collections.abc import Iterable
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
from tests.conftest import real_data

TASKS = ("sst2", "mrpc", "cola", "stsb", "rte")
pytestmark = [pytest.mark.slow, pytest.mark.data]


@dataclass(frozen=True)
class Shipped:
    """The shipped deltas, their bundle, their dev sets, and PyTorch's logits for some examples of each, by number."""

    deltas: dict[str, TaskDelta]
    session: BiasSession
    data: dict[str, TaskData]
    expected: dict[str, dict[int, np.ndarray]]
    found: dict[str, np.ndarray] = field(default_factory=dict)  # the bundle's logits of each task, once it has run


@pytest.fixture(scope="module")
def shipped(
    minilm: BaseModel, deltas: dict[str, TaskDelta], shipped_bundle: Path, request: pytest.FixtureRequest
) -> Shipped:
    data_folder = real_data(*TASKS)
    data = {task: load_task_data(task, data=data_folder) for task in TASKS}
    expected = {}
    for task in TASKS:
        texts = data[task].validation.texts
        # Spread over the whole set, whose examples may be in some order.
        some = np.linspace(0, len(texts) - 1, request.config.getoption("--dev-examples") or len(texts), dtype=int)
        logits = predict_logits(
            merged_model(minilm, deltas[task]),
            minilm.tokenizer,
            [texts[example] for example in some],
            max_length=deltas[task].config.max_length,
        )
        expected[task] = dict(zip(some.tolist(), logits, strict=True))
    return Shipped(deltas, BiasSession(shipped_bundle, threads=1), data, expected)


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


def by_length(shipped: Shipped, pairs: Iterable[tuple[str, int]]) -> list[tuple[str, int]]:
    """Tasks and numbers of examples, short ones first, so that a batch has examples of about one length."""
    return sorted(pairs, key=lambda pair: sum(map(len, shipped.data[pair[0]].validation.texts[pair[1]])))


def task_logits(shipped: Shipped, task: str) -> np.ndarray:
    """The bundle's logits for all dev examples of the task, run once."""
    if task not in shipped.found:
        examples = len(shipped.data[task].validation.labels)
        pairs = by_length(shipped, ((task, example) for example in range(examples)))
        logits = np.stack(run_examples(shipped, pairs))
        shipped.found[task] = logits[np.argsort([example for _, example in pairs])]
    return shipped.found[task]


def assert_pytorchs(shipped: Shipped, pairs: list[tuple[str, int]], found: Iterable[np.ndarray]) -> None:
    for (task, example), logits in zip(pairs, found, strict=True):
        expected = shipped.expected[task][example]
        assert np.abs(logits - expected).max() <= FP32_TOLERANCE, (task, example)
        assert logits.argmax() == expected.argmax(), (task, example)


@pytest.mark.parametrize("task", TASKS)
def test_one_task_at_a_time(shipped: Shipped, task: str) -> None:
    pairs = [(task, example) for example in shipped.expected[task]]
    assert_pytorchs(shipped, pairs, task_logits(shipped, task)[list(shipped.expected[task])])


def test_mixed_batches(shipped: Shipped) -> None:
    """Of examples of one length, and in random order: short examples beside long ones of other tasks."""
    pairs = by_length(shipped, ((task, example) for task in TASKS for example in shipped.expected[task]))
    assert any({task for task, _ in pairs[start : start + 32]} == set(TASKS) for start in range(0, len(pairs), 32))
    assert_pytorchs(shipped, pairs, run_examples(shipped, pairs))
    shuffled = [pairs[index] for index in np.random.default_rng(0).permutation(len(pairs))[:256]]
    assert_pytorchs(shipped, shuffled, run_examples(shipped, shuffled))


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
