"""`docs/training.md` has what `examples/train_shipped_deltas/curves.py` makes of the results."""

from __future__ import annotations

import importlib
import sys
from collections.abc import Iterator
from pathlib import Path
from types import ModuleType

import pytest

ROOT = Path(__file__).parents[2]
PAGE = ROOT / "docs" / "training.md"


@pytest.fixture
def curves(monkeypatch: pytest.MonkeyPatch) -> Iterator[ModuleType]:
    pytest.importorskip("torch", reason="needs bitfit-export[train]")
    monkeypatch.syspath_prepend(ROOT / "examples" / "train_shipped_deltas")
    yield importlib.import_module("curves")
    for name in ("curves", "publish", "train"):
        sys.modules.pop(name, None)


@pytest.mark.parametrize("model", ["minilm-l6", "mpnet-base"])
def test_the_page_lists_every_run(curves: ModuleType, model: str) -> None:
    runs = curves.read_runs(model)
    assert curves.table(runs) in PAGE.read_text()
    assert len(curves.table(runs).splitlines()) == 2 + len(list((ROOT / "results" / model).glob("*.json")))


def test_a_run_has_its_first_and_its_best_epoch(curves: ModuleType) -> None:
    settings = {"pooling": "mean", "learning_rate": 1e-3, "epochs": 3}
    history = [{"accuracy": 0.5}, {"accuracy": 0.75}, {"accuracy": 0.625}]
    run = {"task": "sst2", "method": "bitfit", "settings": settings, "history": history}
    assert (
        curves.table({"a": run}).splitlines()[2]
        == "| sst2 | BitFit | mean | 0.001 | 3 | accuracy | 0.500 | 0.750 | 2 |"
    )
