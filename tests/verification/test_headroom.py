"""How much of its ranges a bundle's tasks use, and a row that came later."""

from __future__ import annotations

import dataclasses
from pathlib import Path

import numpy as np
import pytest

from bitfit_export.base_model.loading import BaseModel
from bitfit_export.bundle import BiasRow, read_manifest, read_recorded_row
from bitfit_export.compiler import CompileOptions
from bitfit_export.compiler.calibration.sample_texts import SAMPLE_PAIRS, SAMPLE_TEXTS
from bitfit_export.delta import TaskDelta
from bitfit_export.errors import UsageError
from bitfit_export.verification.headroom import measure_headroom
from tests import traces

TEXTS = [*SAMPLE_TEXTS, *SAMPLE_PAIRS]


def bundle_and_rows(base: BaseModel, deltas: dict[str, TaskDelta], **options: object) -> tuple[Path, list[BiasRow]]:
    """A bundle, and its rows."""
    folder = traces.bundle_of(base, deltas, CompileOptions(**options))  # type: ignore[arg-type]
    manifest = read_manifest(folder)
    return folder, [read_recorded_row(folder, manifest, task) for task in manifest.tasks.values()]


@pytest.mark.parametrize(
    ("target", "layout", "shape"),
    [("ort", "table", None), ("portable", "table", None), ("ort", "named", None), ("portable", "packed", (2, 48))],
)
def test_the_tasks_of_a_bundle_fit_its_ranges(
    tiny_base: BaseModel,
    tiny_deltas: dict[str, TaskDelta],
    target: str,
    layout: str,
    shape: tuple[int, int] | None,
) -> None:
    bundle, rows = bundle_and_rows(
        tiny_base, tiny_deltas, precision="int8-static", layout=layout, target=target, static_shape=shape
    )
    found = measure_headroom(bundle, rows, TEXTS)
    assert [each.task for each in found] == sorted(tiny_deltas)
    ranges = read_manifest(bundle).quantization.ranges
    for each in found:
        assert each.calibrated == ranges[each.product].used
        assert 0.3 < each.used < 1.3
        assert each.saturated < 0.001


def test_a_row_that_pushes_beyond_the_ranges_shows(tiny_base: BaseModel, tiny_deltas: dict[str, TaskDelta]) -> None:
    bundle, (row, *_) = bundle_and_rows(tiny_base, tiny_deltas, precision="int8-static")
    later = dataclasses.replace(row, task="later", biases=(row.biases * 20).astype(np.float32))
    before, after = measure_headroom(bundle, [row, later], TEXTS)
    assert after.task == "later"
    assert after.used > 1.5 > before.used
    assert after.saturated > 0.01 > before.saturated


def test_a_bundle_without_constant_ranges_is_refused(tiny_base: BaseModel, tiny_deltas: dict[str, TaskDelta]) -> None:
    bundle, rows = bundle_and_rows(tiny_base, tiny_deltas)
    with pytest.raises(UsageError, match="has no ranges that are constants") as caught:
        measure_headroom(bundle, rows, TEXTS)
    assert caught.value.hint == "bitfit-export --precision int8-static"
