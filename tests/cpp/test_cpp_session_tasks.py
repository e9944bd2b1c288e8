"""Tasks come, go and change in a `bitfit::Session`; a bad row changes nothing."""

from __future__ import annotations

import json
import os
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from bitfit_export.bundle import decode_row
from bitfit_export.errors import RowFault
from tests.cpp.conftest import Driver, GetBundle, OpenBundle, changed_row, logits_of


class TestTasks:
    @pytest.mark.parametrize("kind", ["table", "packed", "named"])
    def test_load_replace_and_unload(
        self, open_session: OpenBundle, get_bundle: GetBundle, batch: dict[str, Any], kind: str, tmp_path: Path
    ) -> None:
        session, bundle = open_session(kind), get_bundle(kind)
        row = bundle / "tasks" / "three_way.bias"
        assert session("load", path=str(row), name="copy")["code"] == "ok"
        assert session("tasks")["copy"] == {"labels": ["LABEL_0", "LABEL_1", "LABEL_2"], "label_count": 3, "version": 1}
        run_copy = {"tasks": ["copy"], **batch}
        expected = logits_of(session("run", tasks=["three_way"], **batch))
        np.testing.assert_allclose(logits_of(session("run", **run_copy)), expected, rtol=0, atol=1e-6)

        biases = decode_row(row.read_bytes()).biases
        newer = changed_row(bundle, "three_way", tmp_path / "newer", biases=biases + np.float32(0.1), task_version=2)
        assert session("load", path=str(newer), name="copy", labels=["x", "y", "z"])["code"] == "ok"
        assert session("tasks")["copy"] == {"labels": ["x", "y", "z"], "label_count": 3, "version": 2}
        assert np.abs(logits_of(session("run", **run_copy)) - expected).max() > 1e-3

        older = session("load", path=str(row), name="copy")
        assert older["code"] == "input_error"
        assert older["message"].startswith("the task copy has version 1, expected 2 or more")
        assert session("unload", name="copy")["code"] == "ok"
        assert session("run", **run_copy)["message"].startswith('the task "copy" is not loaded')
        assert session("unload", name="copy")["code"] == "input_error"

    def test_a_task_with_more_labels_than_any_before(
        self, open_session: OpenBundle, get_bundle: GetBundle, batch: dict[str, Any], tmp_path: Path
    ) -> None:
        """The table grows, and so do the heads; the others' logits stay."""
        bundle = get_bundle("table")
        row = decode_row((bundle / "tasks" / "topics.bias").read_bytes())
        head = tuple(np.concatenate([each, each + 1]) if each.shape[:1] == (4,) else each for each in row.head)
        wide = changed_row(bundle, "topics", tmp_path / "wide", head=head, labels=8)
        session = open_session("table")
        before = logits_of(session("run", tasks=["topics"], **batch))
        for number in range(9):
            assert session("load", path=str(wide), name=f"wide-{number}")["code"] == "ok"
        after = logits_of(session("run", tasks=["topics"], **batch))
        np.testing.assert_allclose(after, before, rtol=0, atol=1e-6)
        found = logits_of(session("run", tasks=["wide-8", "topics", "wide-0"], **batch))
        np.testing.assert_allclose(found[:, :4], before, rtol=0, atol=1e-6)
        assert np.isneginf(found[1, 4:]).all()
        assert np.isfinite(found[[0, 2]]).all()

    @pytest.mark.parametrize("kind", ["table", "packed"])
    def test_rows_that_were_replaced_take_no_memory(self, programs: Path, get_bundle: GetBundle, kind: str) -> None:
        """4,000 rows of some 4 KB would show."""
        session = Driver(programs / "tests" / "session_test", get_bundle(kind))
        if not Path(f"/proc/{session.pid}/statm").exists():
            pytest.skip("needs /proc")

        def megabytes() -> float:
            pages = int(Path(f"/proc/{session.pid}/statm").read_text(encoding="ascii").split()[1])
            return pages * os.sysconf("SC_PAGE_SIZE") / 1e6

        path = str(get_bundle(kind) / "tasks" / "two_way.bias")
        used = []
        for loads in (50, 4000):
            for _ in range(loads):
                assert session("load", path=path)["code"] == "ok"
            used.append(megabytes())
        session.close()
        assert used[1] - used[0] < 4

    @pytest.mark.parametrize(
        ("place", "fault"),
        [
            (0, RowFault.BAD_MAGIC),
            (8, RowFault.BAD_VERSION),
            (12, RowFault.BAD_HEADER_SIZE),
            (100, RowFault.BAD_HEADER_CHECKSUM),
            (460, RowFault.BAD_PAYLOAD_CHECKSUM),
        ],
    )
    def test_a_row_that_is_refused_changes_nothing(
        self,
        open_session: OpenBundle,
        get_bundle: GetBundle,
        batch: dict[str, Any],
        tmp_path: Path,
        place: int,
        fault: RowFault,
    ) -> None:
        """A row of the bundle with another byte at one place."""
        session = open_session("table")
        data = bytearray((get_bundle("table") / "tasks" / "score.bias").read_bytes())
        data[place] ^= 4
        path = tmp_path / "bad"
        path.write_bytes(data)
        before = session("run", tasks=["score"], **batch), session("tasks")
        refused = session("load", path=str(path), name="score")
        assert refused["code"] == "row_error"
        assert refused["row_status"] == list(RowFault).index(fault) + 1
        assert (session("run", tasks=["score"], **batch), session("tasks")) == before

    def test_a_row_for_another_layout(self, open_session: OpenBundle, get_bundle: GetBundle, tmp_path: Path) -> None:
        bundle = get_bundle("table")
        other = changed_row(bundle, "score", tmp_path / "other", layout_digest="0" * 64)
        refused = open_session("table")("load", path=str(other))
        assert (refused["code"], refused["row_status"]) == ("row_error", 16)
        row = decode_row((bundle / "tasks" / "two_way.bias").read_bytes())
        fewer = changed_row(bundle, "two_way", tmp_path / "fewer", head=row.head[:-1])
        refused = open_session("table")("load", path=str(fewer))
        assert (refused["code"], refused["row_status"]) == ("row_error", 10)

    @pytest.mark.parametrize(
        ("arguments", "message"),
        [
            ({"name": "a/b"}, 'the task name is "a/b"'),
            ({"labels": ["x"]}, "the labels of two_way cannot be used, expected 2 different names"),
            ({"labels": ["x", "x"]}, "the labels of two_way cannot be used, expected 2 different names"),
        ],
    )
    def test_names_and_labels(
        self, open_session: OpenBundle, get_bundle: GetBundle, arguments: dict[str, Any], message: str
    ) -> None:
        path = str(get_bundle("table") / "tasks" / "two_way.bias")
        refused = open_session("table")("load", path=path, **arguments)
        assert refused["code"] == "input_error"
        assert refused["message"].startswith(message)

    def test_a_file_that_is_not_there(self, open_session: OpenBundle) -> None:
        refused = open_session("table")("load", path="/nowhere/x.bias")
        assert refused["code"] == "bundle_error"
        assert refused["message"] == "/nowhere/x.bias cannot be read: No such file or directory"

    @pytest.mark.parametrize("kind", ["named", "overridable"])
    def test_adapters(self, open_session: OpenBundle, batch: dict[str, Any], kind: str) -> None:
        """ONNX Runtime's own LoraAdapter brings the same values."""
        session = open_session(kind)
        for task in ("three_way", "tags"):
            expected = logits_of(session("run", tasks=[task], **batch))
            assert session("unload", name=task)["code"] == "ok"
            assert session("adapter", name=task)["code"] == "ok"
            np.testing.assert_array_equal(logits_of(session("run", tasks=[task], **batch)), expected)

    def test_no_adapters_in_other_layouts(self, open_session: OpenBundle) -> None:
        assert open_session("packed")("adapter", name="score")["code"] == "input_error"


def test_biases_as_integers_are_rounded_to_even_and_saturate(ask: Callable[..., list[Any]]) -> None:
    largest = 2.0**31
    cases = {"values": [0.5, 1.5, -2.5, 0.75, largest, -largest, -2 * largest], "scales": [1, 1, 1, 0.25, 1, 1, 1]}
    (found,) = ask("integers", input=json.dumps(cases))
    assert found == {"integers": [0, 2, -2, 3, 2**31 - 1, -(2**31), -(2**31)], "saturated": 2}
