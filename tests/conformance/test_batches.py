"""The cases of `conformance/batches`."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from bitfit_export.runtime.predict.batches import plan_batches

INDEX = Path(__file__).parents[2] / "conformance" / "batches" / "index.json"
CASES: list[dict[str, Any]] = json.loads(INDEX.read_text(encoding="utf-8"))


@pytest.mark.parametrize("case", CASES, ids=[case["name"] for case in CASES])
def test_which_items_run_together(case: dict[str, Any]) -> None:
    lengths = case["lengths"]
    groups = case.get("groups", [""] * len(lengths))
    limits = {name: case[name] for name in ("batch_size", "batch_tokens")}
    assert plan_batches(lengths, groups, **limits) == case["batches"]
