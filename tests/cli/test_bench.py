"""bitfit bench: the stock models compute the same task, and everything is timed in turn."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import onnxruntime as ort
import pytest

from bitfit_export.base_models import BaseModel
from bitfit_export.bench import export_stock, time_in_turn
from bitfit_export.delta import TaskDelta
from bitfit_export.runtime import BiasSession
from tests.cli.conftest import Bitfit


@pytest.mark.slow
def test_a_bundle_is_timed_beside_stock_models(
    bitfit: Bitfit, tiny_bundle: Path, model_folder: str, deltas_folder: Path
) -> None:
    words = ["bench", tiny_bundle, "--model", model_folder, "--deltas", deltas_folder, "--task", "two_way"]
    done = bitfit(*words, "--shapes", "1x4,3x8", "--rounds", 2, "--json")
    assert done.status == 0, done.err
    measured = json.loads(done.out)
    assert list(measured) == ["1x4", "3x8"]
    for shape in measured.values():
        stock = [each for name, each in shape.items() if name.startswith("stock: ")]
        assert len(stock) == 3
        assert min(each["of stock"] for each in stock) == 1.0
        assert shape["bundle, mixed"]["ms"] > 0
    assert "1 x 4" in done.err


@pytest.mark.slow
def test_the_stock_model_answers_as_the_bundle_does(
    tiny_bundle: Path, tiny_base: BaseModel, tiny_deltas: dict[str, TaskDelta], tmp_path: Path
) -> None:
    path = export_stock(tiny_base, tiny_deltas["two_way"], tmp_path)["torch"]
    session = BiasSession(tiny_bundle)
    ids = session.encode(["a text", "another one"])
    (logits,) = ort.InferenceSession(path).run(["logits"], ids)
    np.testing.assert_allclose(session.run("two_way", **ids), logits, atol=1e-5)


@pytest.mark.parametrize(("shapes", "message"), [("1", "'1'"), ("0x4", "'0x4'"), ("1x4,x", "'x'")])
def test_shapes_that_cannot_be_are_refused(bitfit: Bitfit, tiny_bundle: Path, shapes: str, message: str) -> None:
    done = bitfit("bench", tiny_bundle, "--shapes", shapes)
    assert done.status == 2
    assert f"--shapes has {message}, expected BATCHxSEQUENCE" in done.err


def test_things_are_called_in_turn() -> None:
    calls: list[str] = []
    time_in_turn({"a": lambda: calls.append("a"), "b": lambda: calls.append("b")}, rounds=2)
    assert calls == ["a", "b"] * 5
