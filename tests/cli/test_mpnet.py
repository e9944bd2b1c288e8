"""MPNet-base with the delta that ships for it, all the way. `BITFIT_MPNET` names the folder of all-mpnet-base-v2, which
`examples/offline_models` assembles."""

from __future__ import annotations

import json
import os
from pathlib import Path

import pytest

from bitfit_export.delta import TaskDelta
from bitfit_export.interop.delta_lookup import SHIPPED
from bitfit_export.runtime import BiasSession
from bitfit_export.training import metrics
from bitfit_export.training.data import load_task_data
from tests.cli.conftest import Bitfit
from tests.conftest import real_data

pytestmark = [pytest.mark.slow, pytest.mark.data]
DELTAS = SHIPPED / "mpnet-base"


def test_the_model_is_compiled_verified_and_scores_what_the_card_says(bitfit: Bitfit, tmp_path: Path) -> None:
    data = load_task_data("cola", data=real_data("cola"))
    if "BITFIT_MPNET" not in os.environ:
        pytest.skip("BITFIT_MPNET does not name a folder with all-mpnet-base-v2")
    words = ["--model", os.environ["BITFIT_MPNET"], "--tasks", "cola", "--deltas", DELTAS, "--output", tmp_path / "out"]
    made = bitfit("export", *words)
    assert made.status == 0, made.err
    said = bitfit("run", tmp_path / "out", "--task", "cola", "--text", "The children was garden in the playing.")
    assert json.loads(said.out)["label"] == "unacceptable"
    session, texts = BiasSession(tmp_path / "out"), [text[0] for text in data.validation.texts]
    predicted = session.predict(texts, "cola")
    labels = session.labels("cola")
    found = [labels.index(each["label"]) for each in predicted]
    score = metrics.compute(data.spec.metrics, "single_label", found, data.validation.labels)["matthews_correlation"]
    assert score == pytest.approx(TaskDelta.load(DELTAS / "cola").config.metrics["matthews_correlation"], abs=1e-6)
