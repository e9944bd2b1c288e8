"""MPNet-base with the deltas that ship for it, all the way. `BITFIT_MPNET` names the folder of all-mpnet-base-v2, which
`examples/offline_models` assembles."""

from __future__ import annotations

import json
import os
from pathlib import Path
from typing import Any

import pytest

from bitfit_export.cli import main
from bitfit_export.delta import TaskDelta
from bitfit_export.interop.delta_lookup import SHIPPED
from bitfit_export.runtime import BiasSession
from bitfit_export.training import metrics
from bitfit_export.training.data import load_task_data
from tests.cli.conftest import Bitfit
from tests.conftest import real_data

pytestmark = [pytest.mark.slow, pytest.mark.data]
DELTAS = SHIPPED / "mpnet-base"
TASKS = sorted(path.name for path in DELTAS.iterdir())


@pytest.fixture(scope="module")
def bundle(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Of all tasks that ship."""
    if "BITFIT_MPNET" not in os.environ:
        pytest.skip("BITFIT_MPNET does not name a folder with all-mpnet-base-v2")
    folder = tmp_path_factory.mktemp("mpnet") / "out"
    model, deltas = os.environ["BITFIT_MPNET"], str(DELTAS)
    words = ["--model", model, "--tasks", ",".join(TASKS), "--deltas", deltas, "--output", str(folder)]
    assert main(["export", *words]) == 0
    return folder


def test_a_sentence_without_grammar_is_unacceptable(bitfit: Bitfit, bundle: Path) -> None:
    said = bitfit("run", bundle, "--task", "cola", "--text", "The children was garden in the playing.")
    assert json.loads(said.out)["label"] == "unacceptable"


@pytest.mark.parametrize("task", TASKS)
def test_a_task_scores_what_its_card_says(bundle: Path, task: str) -> None:
    data, config = load_task_data(task, data=real_data(task)), TaskDelta.load(DELTAS / task).config
    session = BiasSession(bundle)
    texts = [text[0] if len(text) == 1 else (text[0], text[1]) for text in data.validation.texts]
    answers: Any = session.predict(texts, task)
    labels = session.labels(task)
    found = [labels.index(each["label"]) if labels else each["score"] for each in answers]
    scores = metrics.compute(data.spec.metrics, config.problem_type, found, data.validation.labels)
    assert scores == {name: pytest.approx(value, abs=1e-6) for name, value in config.metrics.items()}
