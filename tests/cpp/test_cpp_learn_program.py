"""`bitfit_learn` learns what `bitfit learn` learns, and says what is wrong with its files."""

from __future__ import annotations

import json
import re
import subprocess
from collections.abc import Sequence
from pathlib import Path

import numpy as np
import pytest

from bitfit_export.bundle import decode_row
from bitfit_export.runtime.learning import BiasTrainer, LearningSettings
from bitfit_export.training.tasks import GLUE_TASKS
from tests.cpp.learning import LABELS, MOODS


class TestBitfitLearn:
    OPTIONS = ("--epochs", "4", "--batch-size", "4", "--learning-rate", "0.005", "--threads", "1")

    @pytest.fixture
    def folder(self, tmp_path: Path) -> Path:
        """Examples as JSON lines, with labels by name."""
        lines = [
            json.dumps({"text": text, "label": LABELS[label]})
            for (text,), label in zip(MOODS.texts, MOODS.labels, strict=True)
        ]
        for name in ("train.jsonl", "dev.jsonl"):
            (tmp_path / name).write_text("\n".join(lines) + "\n")
        return tmp_path

    @staticmethod
    def learn(programs: Path, bundle: Path, folder: Path, *more: str) -> subprocess.CompletedProcess[str]:
        command = [programs / "bitfit_learn", bundle, "--task", "mood", "--output", folder / "mood.bias"]
        command += ["--data", folder, *more]
        return subprocess.run(list(map(str, command)), capture_output=True, text=True, check=False, timeout=60)

    def test_it_learns_what_the_python_command_learns(
        self, learning_programs: Path, trainable_bundle: Path, python_trainer: BiasTrainer, folder: Path
    ) -> None:
        done = self.learn(learning_programs, trainable_bundle, folder, *self.OPTIONS)
        assert done.returncode == 0, done.stderr
        assert done.stdout == f"{folder / 'mood.bias'}\n"
        settings = LearningSettings(epochs=4, batch_size=4, learning_rate=5e-3)
        expected = python_trainer.learn("mood", MOODS, MOODS, labels=LABELS, settings=settings)
        row = decode_row((folder / "mood.bias").read_bytes())
        np.testing.assert_allclose(row.biases, expected.row.biases, rtol=0, atol=1e-3)
        assert "labels in id order: bad,good\n" in done.stderr
        assert f"epoch {expected.best_epoch} is the best: accuracy" in done.stderr
        assert "MB of memory" in done.stderr
        assert not (folder / ".mood.bias.checkpoint").exists()

        again = self.learn(learning_programs, trainable_bundle, folder, *self.OPTIONS)
        assert (again.returncode, again.stderr.splitlines()[1]) == (2, "hint: pass --overwrite")

    @pytest.mark.parametrize("name", [name for name, spec in GLUE_TASKS.items() if len(spec.labels) == 2])
    def test_a_task_of_glue_has_the_metric_of_bitfit_train(
        self, learning_programs: Path, trainable_bundle: Path, folder: Path, name: str
    ) -> None:
        done = self.learn(learning_programs, trainable_bundle, folder, "--task", name, "--epochs", "1")
        assert f"epoch 1: {GLUE_TASKS[name].metrics[0]} " in done.stderr

    WRONG: Sequence[tuple[str, Sequence[str], str]] = (
        ("", (), "train.jsonl has no JSON object, expected one per line"),
        ('{"text": "a", "label": "good"}', (), "train.jsonl has one label only, good, expected two or more"),
        ('{"text": "a"}', (), "line 1 of .*train.jsonl has no label"),
        ('{"text": "a", "label": true}', (), "line 1 of .*train.jsonl has the label true, expected a number or a name"),
        ('{"text": "a", "label": "odd"}', ("--labels", "bad,good"), "line 1 of .*: the label odd is none of mood's"),
        ('{"text": "a", "label": 1', (), "line 1 of .*train.jsonl is not valid JSON"),
        ('{"text": "a", "label": 1.5}\n{"text": "a", "label": "x"}', (), "line 2 of .*: the label x is not a number"),
    )

    @pytest.mark.parametrize(("lines", "more", "message"), WRONG)
    def test_what_is_wrong_is_said_with_its_line(
        self,
        learning_programs: Path,
        trainable_bundle: Path,
        folder: Path,
        lines: str,
        more: Sequence[str],
        message: str,
    ) -> None:
        (folder / "train.jsonl").write_text(lines)
        done = self.learn(learning_programs, trainable_bundle, folder, *more)
        assert (done.returncode, done.stdout) == (2, "")
        assert done.stderr.startswith("error: ")
        assert re.search(message, done.stderr), done.stderr
        assert not (folder / "mood.bias").exists()
