"""A `bitfit::Session` allocates nothing, runs whole rows while they are swapped, and passes the sanitizers."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from bitfit_export.bundle import decode_row
from tests.cpp.conftest import (
    CONTEXT,
    LAYOUTS,
    ONE_AT_A_TIME,
    QUESTION,
    SENTENCE_TASKS,
    TEXTS,
    TOKEN_TASKS,
    Driver,
    GetBundle,
    build,
    build_sanitized,
    changed_row,
    run,
)


class TestMemory:
    @pytest.mark.parametrize("kind", LAYOUTS)
    def test_a_run_allocates_nothing_after_the_first(self, programs: Path, get_bundle: GetBundle, kind: str) -> None:
        tasks = [["three_way"], ["tags"]]
        tasks += [] if kind in ONE_AT_A_TIME else [["three_way", "score", "two_way"], ["tags", "answers"]]
        for each in tasks:
            counts = json.loads(run([programs / "tests" / "allocation_test", get_bundle(kind), *each]).stdout)
            assert counts["first"] > 0, "nothing is counted"
            assert counts["later"] == 0


class TestThreads:
    def check_swaps(self, folder: Path, bundle: Path, tmp_path: Path, runs: int, **options: Any) -> None:
        row = decode_row((bundle / "tasks" / "two_way.bias").read_bytes())
        other = changed_row(bundle, "two_way", tmp_path / "other", biases=row.biases[::-1].copy())
        bad = tmp_path / "bad"
        bad.write_bytes(b"\0" * 1000)
        rows = [bundle / "tasks" / "two_way.bias", other, bad]
        done = run([folder / "tests" / "session_test", "swap", bundle, *rows, "8", str(runs)], **options)
        counts = json.loads(done.stdout)
        assert counts["wrong"] == 0
        assert counts["first"] + counts["second"] == runs
        assert min(counts["first"], counts["second"], counts["swaps"]) > 0
        assert counts["refused"] == counts["swaps"]

    @pytest.mark.parametrize("kind", ["table", "packed"])
    def test_a_run_sees_one_whole_row(self, programs: Path, get_bundle: GetBundle, tmp_path: Path, kind: str) -> None:
        self.check_swaps(programs, get_bundle(kind), tmp_path, 4000)

    @pytest.mark.slow
    def test_many_runs(self, programs: Path, get_bundle: GetBundle, tmp_path: Path) -> None:
        self.check_swaps(programs, get_bundle("table"), tmp_path, 40_000)

    @pytest.mark.slow
    @pytest.mark.parametrize("kind", ["table", "packed"])
    def test_under_thread_sanitizer(self, get_bundle: GetBundle, tmp_path: Path, kind: str) -> None:
        self.check_swaps(build("tsan-test", "session_test"), get_bundle(kind), tmp_path, 2000)


@pytest.mark.slow
@pytest.mark.parametrize("kind", ["table", "static", "overridable"])
def test_under_address_sanitizer(get_bundle: GetBundle, batch: dict[str, Any], kind: str) -> None:
    driver = Driver(build_sanitized() / "tests" / "session_test", get_bundle(kind))
    for task in SENTENCE_TASKS + TOKEN_TASKS:
        assert "values" in driver("run", tasks=[task], **batch)
        assert "logits" in driver("run_outputs", tasks=[task], **batch)
    assert driver("run", tasks=["nope"], **batch)["code"] == "input_error"
    texts: list[Any] = [TEXTS[0], {"words": ["Ada", "日本"]}, [QUESTION, CONTEXT]]
    assert "results" in driver("predict", texts=texts, tasks=["score", "tags", "answers"])
    for number in range(8):
        path = str(get_bundle(kind) / "tasks" / "score.bias")
        assert driver("load", path=path, name=f"copy-{number}")["code"] == "ok"
        assert "values" in driver("run", tasks=[f"copy-{number}"], **batch)
    driver.close()
