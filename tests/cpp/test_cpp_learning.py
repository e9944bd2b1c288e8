"""The C++ trainer learns what Python's learns: optimiser, seeds, rows, checkpoints, and what cannot be learnt from."""

from __future__ import annotations

import json
import signal
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from bitfit_export.bundle import decode_row
from bitfit_export.compiler import CompileOptions
from bitfit_export.delta import TaskDelta
from bitfit_export.runtime import BiasSession
from bitfit_export.runtime.learning import BiasTrainer, LabelledTexts, LearningSettings
from tests.conftest import random_delta
from tests.cpp.conftest import run
from tests.cpp.learning import FAST, LABELS, MOODS, TEXTS, TOLERANCE, Learn
from tests.runtime.learning.in_pytorch import PyTorchLearner
from tests.traces import compile_bundle

# --- its parts, against NumPy and PyTorch


@pytest.mark.parametrize("seed", [[0], [0, 3], [2**40 + 5, 1], [1, 2, 3, 4, 5, 6]])
def test_seeds_mean_what_they_mean_in_numpy(learning_test: Path, seed: list[int]) -> None:
    order, normal = run([learning_test, "random", *map(str, seed)]).stdout.splitlines()
    random = np.random.default_rng(seed)
    assert json.loads(order) == random.permutation(1000).tolist()
    np.testing.assert_allclose(json.loads(normal), random.standard_normal(20_000), rtol=0, atol=1e-13)


def test_float16_is_rounded_as_numpy_rounds(learning_test: Path) -> None:
    random = np.random.default_rng(0)
    values = np.concatenate([random.normal(size=200), random.normal(0, 1e-6, 200)]).astype(np.float32)
    ties = np.array([0, 1 + 2**-11, 1 + 3 * 2**-11, 2**-25, 3 * 2**-25, 2**-14, 65519, 65520, -65504, 1e30], np.float32)
    values = np.concatenate([values, ties])
    found = json.loads(run([learning_test, "halves", *(f"{value:.9g}" for value in values)]).stdout)
    with np.errstate(over="ignore"):
        assert found == values.astype(np.float16).view(np.uint16).tolist()


def test_adamw_clipping_and_schedule_are_pytorchs(learning_test: Path) -> None:
    from transformers import get_linear_schedule_with_warmup

    random = np.random.default_rng(0)
    start = random.normal(size=50).astype(np.float32)
    gradients = (random.normal(size=(50, 50)) * 3).astype(np.float32)
    settings = {"learning_rate": 1e-2, "epsilon": 1e-8, "weight_decay": 0.1, "schedule": "linear", "warmup": 0.2}
    given = {"settings": settings, "values": start.tolist(), "gradients": gradients.tolist()}
    lines = run([learning_test, "adamw"], input=json.dumps(given)).stdout.splitlines()

    tensor = torch.tensor(start, requires_grad=True)
    optimiser = torch.optim.AdamW([tensor], lr=1e-2, eps=1e-8, weight_decay=0.1)
    schedule = get_linear_schedule_with_warmup(optimiser, 10, 50)
    for line, gradient in zip(lines, gradients, strict=True):
        tensor.grad = torch.tensor(gradient)
        torch.nn.utils.clip_grad_norm_([tensor], 1.0)
        optimiser.step()
        schedule.step()
        np.testing.assert_allclose(json.loads(line), tensor.detach().numpy(), rtol=1e-5, atol=1e-6)


# --- the same row as Python's, and as PyTorch's


CASES: dict[str, tuple[LabelledTexts, tuple[str, ...], dict[str, Any]]] = {
    "single_label": (MOODS, LABELS, {"schedule": "linear", "warmup": 0.2, "weight_decay": 0.01, "seed": 3}),
    "unbalanced": (
        LabelledTexts(TEXTS[:9], MOODS.labels[:9]),
        LABELS,
        {"balance": True, "clip": None, "patience": 2, "metric": "f1"},
    ),
    "multi_label": (LabelledTexts(TEXTS, [[1, 0, 1]] * 6 + [[0, 1, 0]] * 6), ("a", "b", "c"), {}),
    "regression": (LabelledTexts([(*text, "or not") for text in TEXTS], [2.0] * 6 + [-1.0] * 6), (), {"part_size": 3}),
}  # fmt: skip


@pytest.mark.parametrize("case", CASES)
def test_the_same_data_gives_the_row_that_python_learns(
    cpp_learn: Learn, python_trainer: BiasTrainer, case: str
) -> None:
    data, labels, changes = CASES[case]
    problem_type = case if case in ("multi_label", "regression") else "single_label"
    settings = replace(FAST, learning_rate=1e-3, **changes)
    losses: list[float] = []
    expected = python_trainer.learn(
        "mood", data, data, labels=labels, problem_type=problem_type, settings=settings,
        on_step=lambda number, total, loss: losses.append(loss),
    )  # fmt: skip

    found = cpp_learn(data, data, labels=labels, problem_type=problem_type, settings=settings)

    np.testing.assert_allclose(found.losses, losses, rtol=0, atol=1e-4)
    assert found.end["best_epoch"] == expected.best_epoch
    for epoch, scores in zip(found.epochs, expected.history, strict=True):
        assert epoch["scores"] == pytest.approx(scores, abs=1e-4)
    row = found.row
    about = ("task", "problem_type", "labels", "task_version", "layout_digest")
    assert [getattr(row, name) for name in about] == [getattr(expected.row, name) for name in about]
    for mine, theirs in zip((row.biases, *row.head), (expected.row.biases, *expected.row.head), strict=True):
        assert mine.dtype == theirs.dtype
        np.testing.assert_allclose(mine, theirs, rtol=0, atol=TOLERANCE)


def test_60_steps_follow_pytorch(cpp_learn: Learn, tiny_base: Any, tmp_path: Path) -> None:
    """A batch of all examples has no order: the loss of each step is PyTorch's.

    In the layout packed, with float16 rows, and without folding, for the terms of the row are then those of PyTorch.
    """
    delta = random_delta(tiny_base, "mood", labels=LABELS, seed=5)
    options = CompileOptions(trainable=True, layout="packed", fold=False, row_dtype="fp16")
    compile_bundle(tiny_base, {"mood": delta}, tmp_path, options)
    start = decode_row((tmp_path / "tasks" / "mood.bias").read_bytes())
    settings = replace(FAST, learning_rate=3e-4, epochs=60, batch_size=12)

    found = cpp_learn(bundle=tmp_path, settings=settings, start=start)

    session = BiasSession(tmp_path, engine="onnxruntime", threads=1)
    expected = losses_in_pytorch(tiny_base, delta, session, settings)
    # The start row has lost digits in float16.
    np.testing.assert_allclose(found.losses, expected, rtol=0, atol=1e-3)
    assert found.losses[-1] < 0.95 * found.losses[0]
    assert found.row.biases.dtype == np.float16


def losses_in_pytorch(base: Any, delta: TaskDelta, session: BiasSession, settings: LearningSettings) -> list[float]:
    learner = PyTorchLearner(base, delta, settings)
    inputs = {name: torch.from_numpy(value) for name, value in session.encode([each[0] for each in TEXTS]).items()}
    losses = []
    for _ in range(settings.epochs):
        loss = torch.nn.functional.cross_entropy(learner.model(**inputs)["logits"], torch.tensor(MOODS.labels))
        losses.append(learner.step(loss))
    return losses


def test_a_row_is_loaded_where_it_was_learnt(cpp_learn: Learn) -> None:
    assert cpp_learn(settings=replace(FAST, epochs=10)).end["answers"] == ["good", "bad"]


def test_a_start_row_keeps_its_head_where_it_fits(cpp_learn: Learn) -> None:
    first = cpp_learn().row
    still = replace(FAST, epochs=1, learning_rate=1e-12)
    again = cpp_learn(settings=still, start=first).row
    other = cpp_learn(settings=still, labels=("a", "b", "c"), start=first).row
    for mine, theirs in zip((again.biases, *again.head), (first.biases, *first.head), strict=True):
        np.testing.assert_allclose(mine, theirs, rtol=0, atol=1e-9)
    np.testing.assert_allclose(other.biases, first.biases, rtol=0, atol=1e-9)
    assert other.labels == 3


# --- checkpoints


@pytest.mark.parametrize("killed_at", [1, 4, 6, 8])
def test_a_run_that_is_killed_resumes_to_the_bit(cpp_learn: Learn, tmp_path: Path, killed_at: int) -> None:
    settings = replace(FAST, epochs=3, checkpoint_steps=2)
    file = tmp_path / "mood.checkpoint"
    whole = cpp_learn(settings=settings)
    killed = cpp_learn(settings=settings, checkpoint=file, killed_at=killed_at)
    assert (killed.code, killed.end) == (-signal.SIGKILL, {})
    resumed = cpp_learn(settings=settings, checkpoint=file)
    assert killed_at - 3 <= resumed.steps[0] - 1 <= killed_at
    assert resumed.end["row"] == whole.end["row"]


def test_a_checkpoint_of_another_run_and_a_damaged_one_are_refused(cpp_learn: Learn, tmp_path: Path) -> None:
    file = tmp_path / "mood.checkpoint"
    short = replace(FAST, epochs=1)
    cpp_learn(settings=short, checkpoint=file)
    refused = cpp_learn(settings=replace(short, learning_rate=1.0), checkpoint=file)
    assert "is of a run with other settings, data or model" in refused.end["message"]
    for damage in (lambda data: data[:100], lambda data: data[:-9] + b"x" + data[-8:], lambda data: b""):
        file.write_bytes(damage(file.read_bytes()))
        refused = cpp_learn(settings=short, checkpoint=file)
        assert "is damaged, or is not a checkpoint" in refused.end["message"]
        assert refused.end["hint"] == f"remove {file}, and learn from the start"


def test_no_room_for_a_checkpoint_is_said_and_the_old_one_stays(cpp_learn: Learn, tmp_path: Path) -> None:
    file = tmp_path / "mood.checkpoint"
    settings = replace(FAST, checkpoint_steps=2)
    cpp_learn(settings=settings, checkpoint=file, killed_at=3)
    before = file.read_bytes()
    refused = cpp_learn(settings=settings, checkpoint=file, room=1000)
    assert refused.end["message"] == f"{file} cannot be written: File too large"
    assert refused.end["answers"]
    assert file.read_bytes() == before
    assert [each.name for each in tmp_path.iterdir()] == [file.name]


# --- memory


def test_memory_is_said_before_the_first_step_and_parts_bound_it(cpp_learn: Learn) -> None:
    # Long texts: what they take is then more than what the process takes anyway.
    data = LabelledTexts([("good " * 60,), ("bad " * 60,)] * 64, [1, 0] * 64)
    settings = replace(FAST, epochs=1, batch_size=128)
    whole = cpp_learn(data, settings=settings)
    parts = cpp_learn(data, settings=replace(settings, part_size=2))
    assert (whole.plan["part_items"], parts.plan["part_items"]) == (128, 2)
    assert whole.plan["part_tokens"] == 62
    assert 0 < parts.plan["peak_bytes"] < whole.plan["peak_bytes"]
    assert whole.plan["own_bytes"] > 6 * 4 * whole.plan["values"]

    limit = (parts.plan["peak_bytes"] + whole.plan["peak_bytes"]) // 2
    refused = cpp_learn(data, settings=settings, memory_limit=limit)
    assert refused.losses == []
    assert refused.end["message"].startswith("learning needs ")
    assert refused.end["hint"] == "compute fewer at once: part size 64"
    assert cpp_learn(data, settings=replace(settings, part_size=2), memory_limit=limit).end["code"] == 0


# --- what cannot be learnt from

REFUSED: dict[str, tuple[LabelledTexts, dict[str, Any], str]] = {
    "no example": (LabelledTexts([], []), {}, "the training set has no examples"),
    "a label that the head lacks": (
        LabelledTexts([("a",), ("b",)], [0, 2]), {}, "example 2 has the label 2, expected 0 to 1, one of bad, good",
    ),
    "one class": (LabelledTexts([("a",), ("b",)], [1, 1]), {}, "examples of the label good alone"),
    "one label": (MOODS, {"labels": ("good",)}, "a single_label task has 1 labels, expected at least two"),
    "a token task": (MOODS, {"problem_type": "token"}, "the problem type is token, expected single_label"),
    "a name that no task can have": (MOODS, {"task": "a b"}, 'the task name is "a b"'),
    "a metric of other tasks": (
        MOODS, {"settings": replace(FAST, metric="pearson")},
        "the metric is pearson, expected one of accuracy, f1, matthews_correlation",
    ),
    "a rate that is too high": (MOODS, {"settings": replace(FAST, learning_rate=1e38)}, "expected a finite number"),
}  # fmt: skip


@pytest.mark.parametrize(("train", "given", "message"), REFUSED.values(), ids=REFUSED)
def test_what_cannot_be_learnt_is_said_and_the_session_runs_on(
    cpp_learn: Learn, train: LabelledTexts, given: dict[str, Any], message: str
) -> None:
    found = cpp_learn(train, **given)
    assert message in found.end["message"]
    assert found.end["answers"]
    assert found.end["row"] == []


def test_a_bundle_without_the_program_cannot_learn(cpp_learn: Learn, tiny_bundle: Path) -> None:
    refused = cpp_learn(bundle=tiny_bundle).end
    assert refused["message"] == "the bundle has no program train_step, expected one"
    assert "--trainable" in refused["hint"]


def test_a_row_for_another_bundle_is_no_start(cpp_learn: Learn, trainable_bundle: Path) -> None:
    row = decode_row((trainable_bundle / "base.bias").read_bytes())
    refused = cpp_learn(start=replace(row, layout_digest="0" * 64)).end
    assert "made for another base model or layout" in refused["message"]
