"""Shipped tasks of every kind in one bundle: sentences, words of a sentence, spans of a context, in one batch.

`--dev-examples 0` takes the whole dev sets: more than half an hour on one core, most of it for the spans.
"""

from __future__ import annotations

import itertools
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from bitfit_export.base_model.loading import BaseModel
from bitfit_export.delta import TOKEN_PROBLEMS, TaskDelta
from bitfit_export.reference.task_model import merged_model, pad_features, predict_features
from bitfit_export.runtime import BiasSession
from bitfit_export.training.data import load_task_data
from bitfit_export.training.features import EncodedExamples, encode_examples
from bitfit_export.verification.comparison import FP32_TOLERANCE
from tests.conftest import real_data

TASKS = ("sst2", "mrpc", "stsb", "ewt", "squad")
pytestmark = [pytest.mark.slow, pytest.mark.data]


@dataclass(frozen=True)
class Shipped:
    """A bundle of the five tasks, their encoded dev examples, and PyTorch's logits for each feature, not padded."""

    base: BaseModel
    deltas: dict[str, TaskDelta]
    session: BiasSession
    encoded: dict[str, EncodedExamples]
    expected: dict[str, list[np.ndarray]]

    def features(self, tasks: tuple[str, ...]) -> list[tuple[str, int]]:
        """Task and number of each feature, short ones first, so that a batch has examples of about one length."""
        pairs = [(task, index) for task in tasks for index in range(len(self.encoded[task].features))]
        return sorted(pairs, key=lambda pair: len(self.encoded[pair[0]].features[pair[1]]["input_ids"]))

    def run(self, batch: list[tuple[str, int]]) -> list[np.ndarray]:
        """The bundle's logits for these features, each in the shape of PyTorch's."""
        features = [self.encoded[task].features[index] for task, index in batch]
        inputs: dict[str, Any] = {
            name: tensor.numpy() for name, tensor in pad_features(self.base.tokenizer, features).items()
        }
        outputs = self.session.run_outputs([task for task, _ in batch], **inputs)
        found = []
        for example, ((task, _), feature) in enumerate(zip(batch, features, strict=True)):
            config = self.deltas[task].config
            if config.problem_type in TOKEN_PROBLEMS:
                found.append(outputs["token_logits"][example, : len(feature["input_ids"]), : config.output_size])
            else:
                found.append(outputs["logits"][example, : config.output_size])
        return found


@pytest.fixture(scope="module")
def shipped(
    minilm: BaseModel, deltas: dict[str, TaskDelta], shipped_bundle: Path, request: pytest.FixtureRequest
) -> Shipped:
    real_data(*TASKS)
    examples = request.config.getoption("--dev-examples") or None
    encoded = {task: encode_dev_set(minilm, deltas[task], examples) for task in TASKS}
    expected = {
        task: predict_features(merged_model(minilm, deltas[task]), minilm.tokenizer, encoded[task].features)
        for task in TASKS
    }
    return Shipped(minilm, deltas, BiasSession(shipped_bundle, threads=1), encoded, expected)


def encode_dev_set(base: BaseModel, delta: TaskDelta, examples: int | None = None) -> EncodedExamples:
    """A task's dev set, or so many of its examples."""
    config = delta.config
    data = load_task_data(config.task, data=real_data(config.task), validation_examples=examples)
    return encode_examples(
        data.spec,
        data.validation,
        base.tokenizer,
        max_length=config.max_length,
        stride=config.training.get("stride"),
    )


def assert_pytorchs(shipped: Shipped, pairs: list[tuple[str, int]]) -> dict[str, list[np.ndarray]]:
    """Run features in batches of 32, compare each with PyTorch, and give the logits of each task in their order."""
    found: dict[str, dict[int, np.ndarray]] = {task: {} for task in TASKS}
    for start in range(0, len(pairs), 32):
        batch = pairs[start : start + 32]
        for (task, index), logits in zip(batch, shipped.run(batch), strict=True):
            expected = shipped.expected[task][index]
            assert logits.shape == expected.shape
            assert np.abs(logits - expected).max() <= FP32_TOLERANCE, (task, index)
            # A span is where its start and its end are most likely; everything else is a choice of labels.
            axis = 0 if shipped.deltas[task].config.problem_type == "span" else -1
            assert (logits.argmax(axis) == expected.argmax(axis)).all(), (task, index)
            found[task][index] = logits
    return {task: [logits[index] for index in sorted(logits)] for task, logits in found.items()}


def test_tasks_of_sentences_and_of_words_in_one_batch(shipped: Shipped) -> None:
    pairs = shipped.features(TASKS[:4])
    batches = [pairs[start : start + 32] for start in range(0, len(pairs), 32)]
    assert any({task for task, _ in batch} == set(TASKS[:4]) for batch in batches)
    assert_pytorchs(shipped, pairs)


def test_tasks_of_every_kind_in_one_batch(shipped: Shipped) -> None:
    pairs = shipped.features(TASKS)
    random = np.random.default_rng(0)
    assert_pytorchs(shipped, [pairs[index] for index in random.permutation(len(pairs))[:256]])


@pytest.mark.parametrize("task", ["ewt", "squad"])
def test_the_bundles_logits_score_as_pytorchs_do(shipped: Shipped, task: str) -> None:
    found = assert_pytorchs(shipped, shipped.features((task,)))[task]
    assert shipped.encoded[task].score(found) == shipped.encoded[task].score(shipped.expected[task])


def test_the_accuracy_of_words_is_the_model_cards(shipped: Shipped) -> None:
    """Of the bundle's logits for the whole dev set."""
    whole = replace(shipped, encoded={"ewt": encode_dev_set(shipped.base, shipped.deltas["ewt"])})
    pairs = whole.features(("ewt",))
    batches = (whole.run(pairs[start : start + 32]) for start in range(0, len(pairs), 32))
    logits = dict(zip(pairs, itertools.chain.from_iterable(batches), strict=True))
    metrics = shipped.deltas["ewt"].config.metrics
    assert whole.encoded["ewt"].score([logits[pair] for pair in sorted(pairs)]) == {
        name: pytest.approx(value, abs=1e-9) for name, value in metrics.items()
    }
