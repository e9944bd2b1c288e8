"""C learns what Python learns, by the API of `bitfit/learn.h`."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from bitfit_export.bundle import decode_row
from bitfit_export.runtime import BiasSession
from bitfit_export.runtime.learning import BiasTrainer, LabelledTexts, LearningSettings
from tests.cpp.conftest import run
from tests.cpp.learning import LABELS, TOLERANCE

C_TEXTS = LabelledTexts(
    [
        ("good fine lovely",), ("a lovely day",), ("fine and good",), ("good food",),
        ("bad awful",), ("an awful day",), ("bad and poor",), ("awful people", "or not"),
    ],
    [1] * 4 + [0] * 4,
)  # fmt: skip


def test_c_learns_the_same_row_and_resumes(
    learning_programs: Path, python_trainer: BiasTrainer, trainable_bundle: Path, tmp_path: Path
) -> None:
    row, checkpoint = tmp_path / "mood.bias", tmp_path / "mood.checkpoint"
    lines = run([learning_programs / "tests" / "c_learn_test", trainable_bundle, row, checkpoint]).stdout.splitlines()

    settings = LearningSettings(learning_rate=5e-3, epochs=3, batch_size=4, metric="f1")
    losses: list[float] = []
    expected = python_trainer.learn(
        "mood", C_TEXTS, C_TEXTS, labels=LABELS, settings=settings,
        on_step=lambda number, total, loss: losses.append(loss),
    )  # fmt: skip
    ended, plan, *epochs, resumed, answer = lines[:6]
    assert ended == "5 learning was ended by on_step"
    assert plan.startswith("plan 6 4 ")
    # It ended within the fourth step, before that step's checkpoint.
    assert resumed == f"resumed at 4, best {expected.best_epoch}"
    session = BiasSession(trainable_bundle, engine="onnxruntime", threads=1)
    session.load_task(row)
    assert answer == session.predict("a lovely day", "mood")[0]["label"]
    for line, number in zip(epochs, (2, 3), strict=True):
        word, epoch, metric, *values = line.split()
        scores = expected.history[number - 1]
        assert (word, int(epoch), metric) == ("epoch", number, "f1")
        assert list(map(float, values)) == pytest.approx(
            [scores["f1"], scores["loss"], losses[2 * number - 1]], abs=1e-4
        )
    found = decode_row(row.read_bytes())
    np.testing.assert_allclose(found.biases, expected.row.biases, rtol=0, atol=TOLERANCE)
    assert lines[6:] == [
        "4 options is NULL, expected one",
        "4 trainer is NULL, expected one",
        "3 the training set: example 2 has the label 2, expected 0 to 1, one of bad, good",
        "4 the label of an example is NULL, expected one",
        "4 the problem type is token, expected single_label, multi_label or regression",
        "4 task is NULL, expected one",
        "1 1",
    ]


def test_c_says_that_a_bundle_cannot_learn(learning_programs: Path, tiny_bundle: Path, tmp_path: Path) -> None:
    done = run([learning_programs / "tests" / "c_learn_test", tiny_bundle, tmp_path / "row", tmp_path / "checkpoint"])
    assert done.stdout.startswith("4 the bundle has no program train_step, expected one (")
