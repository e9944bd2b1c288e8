"""`bitfit::Session` runs bundles as PyTorch and the Python session do, and refuses what they refuse."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypeAlias

import numpy as np
import pytest

from bitfit_export.bundle import decode_row, encode_row
from bitfit_export.errors import RowFault
from bitfit_export.runtime import BiasSession
from tests.runtimes.conftest import Driver, GetBundle, build, build_sanitized, run

if TYPE_CHECKING:
    from bitfit_export.base_models import BaseModel
    from bitfit_export.delta import TaskDelta

torch = pytest.importorskip("torch", reason="needs bitfit-export[export]")

OpenBundle: TypeAlias = Callable[[str | Path], Driver]

LAYOUTS = ["table", "fp16 rows", "packed", "static", "named", "overridable"]
ONE_AT_A_TIME = ["packed", "static", "named", "overridable"]
SENTENCE_TASKS = ["two_way", "three_way", "topics", "score"]
TOKEN_TASKS = ["tags", "answers"]
#: Logits differ from PyTorch's by rounding alone; a row of float16 is rounded itself.
TOLERANCE = {"fp16 rows": 5e-2}
SCORES = 1e-5

TEXTS = ["A warm, funny film.", "no", "Two hours that nobody will give back: " + "long " * 30, "naïve 日本 [SEP]"]
QUESTION, CONTEXT = "Who lives here?", "Ada Lovelace lives here, in a small house. " * 12


@pytest.fixture(scope="session")
def open_session(programs: Path, get_bundle: GetBundle) -> Iterator[OpenBundle]:
    """Open a C++ session on a bundle, given by its kind or its folder."""
    opened: list[Driver] = []

    def start(bundle: str | Path) -> Driver:
        folder = get_bundle(bundle) if isinstance(bundle, str) else bundle
        opened.append(Driver(programs / "tests" / "session_test", folder))
        return opened[-1]

    yield start
    for driver in opened:
        driver.close()


@pytest.fixture
def batch() -> dict[str, Any]:
    """Rows of 7, 4 and 1 tokens, with both token types."""
    random = np.random.default_rng(0)
    mask = (np.arange(7) < np.array([[7], [4], [1]])).astype(np.int64)
    return {
        "input_ids": random.integers(0, 30522, (3, 7)).tolist(),
        "attention_mask": mask.tolist(),
        "token_type_ids": random.integers(0, 2, (3, 7)).tolist(),
    }


def pytorch_logits(base: BaseModel, delta: TaskDelta, batch: dict[str, Any]) -> np.ndarray:
    from bitfit_export.task_model import merged_model

    with torch.inference_mode():
        logits: np.ndarray = merged_model(base, delta)(**{k: torch.tensor(v) for k, v in batch.items()})[
            "logits"
        ].numpy()
    return logits


def logits_of(answer: dict[str, Any]) -> np.ndarray:
    """[rows, labels] or [rows, tokens, labels]; null stands for -infinity."""
    assert "values" in answer, answer
    shape = [answer["rows"], answer["tokens"], answer["labels"]]
    values = [-np.inf if value is None else value for value in answer["values"]]
    return np.array(values, np.float32).reshape([each for at, each in enumerate(shape) if at != 1 or each])


def assert_kept(found: np.ndarray, expected: np.ndarray, batch: dict[str, Any], tolerance: float) -> None:
    """Logits of padding mean nothing."""
    kept = np.array(batch["attention_mask"], bool)
    assert found.shape == expected.shape
    if found.ndim == 3:
        found, expected = found[kept], expected[kept]
    np.testing.assert_allclose(found, expected, rtol=0, atol=tolerance)


class TestRun:
    @pytest.mark.parametrize("kind", LAYOUTS)
    @pytest.mark.parametrize("task", SENTENCE_TASKS + TOKEN_TASKS)
    def test_logits_are_those_of_pytorch(
        self,
        open_session: OpenBundle,
        tiny_base: BaseModel,
        cpp_deltas: dict[str, TaskDelta],
        batch: dict[str, Any],
        kind: str,
        task: str,
    ) -> None:
        found = logits_of(open_session(kind)("run", tasks=[task], **batch))
        expected = pytorch_logits(tiny_base, cpp_deltas[task], batch)
        assert_kept(found, expected, batch, TOLERANCE.get(kind, 1e-5))

    @pytest.mark.parametrize("tasks", [["three_way", "score", "topics"], ["tags", "answers", "tags"]])
    def test_a_task_a_row(
        self,
        open_session: OpenBundle,
        tiny_base: BaseModel,
        cpp_deltas: dict[str, TaskDelta],
        batch: dict[str, Any],
        tasks: list[str],
    ) -> None:
        """What lies beyond a row's own labels is -infinity."""
        found = logits_of(open_session("table")("run", tasks=tasks, **batch))
        expected = np.full_like(found, -np.inf)
        for row, task in enumerate(tasks):
            own = pytorch_logits(tiny_base, cpp_deltas[task], batch)[row]
            expected[row, ..., : own.shape[-1]] = own
        assert found.shape[-1] == max(cpp_deltas[task].config.output_size for task in tasks)
        assert_kept(found, expected, batch, 1e-5)

    def test_token_types_are_zeros_by_default(self, open_session: OpenBundle, batch: dict[str, Any]) -> None:
        session = open_session("table")
        del batch["token_type_ids"]
        zeros = np.zeros((3, 7), int).tolist()
        assert session("run", tasks=["score"], **batch) == session(
            "run", tasks=["score"], token_type_ids=zeros, **batch
        )

    def test_more_rows_than_a_static_shape_has(
        self, open_session: OpenBundle, tiny_base: BaseModel, cpp_deltas: dict[str, TaskDelta]
    ) -> None:
        """Its batches have 2 rows of 16 tokens."""
        ids = np.random.default_rng(1).integers(0, 30522, (5, 16))
        batch = {"input_ids": ids.tolist(), "attention_mask": np.ones_like(ids).tolist()}
        found = logits_of(open_session("static")("run", tasks=["tags"], **batch))
        np.testing.assert_allclose(found, pytorch_logits(tiny_base, cpp_deltas["tags"], batch), rtol=0, atol=1e-5)


class TestRefusals:
    @pytest.mark.parametrize(
        ("tasks", "changes", "message"),
        [
            ([], {}, "there are 0 tasks for 3 rows, expected one task, or one for each row"),
            ([""], {}, 'the task "" is not loaded, expected one of answers, score, tags, three_way, topics, two_way'),
            (["nope"], {}, 'the task "nope" is not loaded'),
            (["score"] * 2, {}, "there are 2 tasks for 3 rows"),
            (["score", "tags", "score"], {}, "the batch has the regression task score and the token task tags"),
            (["score"], {"capacity": 2}, "the logits have room for 2 values, expected 3 or more"),
            (
                ["score"],
                {"input_ids": [[1, 2], [3, 30522], [1, 1]]},
                "row 1 has 30522 in input_ids, expected 0 to 30521",
            ),
            (["score"], {"input_ids": [[1, 2], [3, 4], [-1, 1]]}, "row 2 has -1 in input_ids"),
            (["score"], {"attention_mask": [[1, 1], [1, 2], [1, 1]]}, "row 1 has 2 in attention_mask, expected 0 or 1"),
            (["score"], {"attention_mask": [[1, 1], [1, 1], [0, 0]]}, "row 2 has an attention_mask of zeros only"),
            (["score"], {"token_type_ids": [[0, 0], [-1, 0], [0, 0]]}, "row 1 has -1 in token_type_ids"),
            (["score"], {"token_type_ids": [[0, 0], [7, 0], [0, 0]]}, "the model can't run this batch"),
            (
                ["score"],
                {"input_ids": [[1] * 65], "attention_mask": [[1] * 65]},
                "the sequence has 65 tokens, expected at",
            ),
            (["score"], {"input_ids": [], "attention_mask": []}, "the batch has 0 rows of 0 tokens"),
        ],
    )
    def test_of_a_batch(
        self, open_session: OpenBundle, tasks: list[str], changes: dict[str, Any], message: str
    ) -> None:
        batch = {"input_ids": [[1, 2], [3, 4], [5, 6]], "attention_mask": [[1, 1], [1, 0], [1, 1]]} | changes
        answer = open_session("table")("run", tasks=tasks, **batch)
        assert answer.get("code") == "input_error", answer
        assert answer["message"].startswith(message)

    @pytest.mark.parametrize("kind", ONE_AT_A_TIME)
    def test_of_different_tasks_where_one_runs_at_a_time(
        self, open_session: OpenBundle, batch: dict[str, Any], kind: str
    ) -> None:
        answer = open_session(kind)("run", tasks=["score", "two_way", "score"], **batch)
        assert answer["code"] == "input_error"
        assert "expected one task: the bundle's layout runs one at a time" in answer["message"]


class TestPredict:
    """The same answers as the Python session's, from text."""

    @pytest.fixture(params=LAYOUTS)
    def both(self, request: pytest.FixtureRequest, open_session: OpenBundle, get_bundle: GetBundle) -> Any:
        return open_session(request.param), BiasSession(get_bundle(request.param), threads=1)

    @pytest.mark.parametrize("task", SENTENCE_TASKS)
    @pytest.mark.parametrize("pairs", [False, True])
    def test_sentence_tasks(self, both: Any, task: str, pairs: bool) -> None:
        cpp, python = both
        texts: list[Any] = list(zip(TEXTS, reversed(TEXTS), strict=True)) if pairs else TEXTS
        expected = python.predict(texts, task, truncate=True)
        found = cpp("predict", texts=texts, tasks=[task], truncate=True)["results"]
        assert [each[0]["label"] for each in found] == [each.get("label", "") for each in expected]
        np.testing.assert_allclose(
            [each[0]["score"] for each in found], [each["score"] for each in expected], rtol=0, atol=SCORES
        )

    @pytest.mark.parametrize("words", [False, True])
    def test_token_tasks(self, both: Any, words: bool) -> None:
        cpp, python = both
        texts: list[Any] = [text.split() if words else text for text in TEXTS]
        asked = [{"words": text} if words else text for text in texts]
        expected = python.predict(texts, "tags", truncate=True)
        found = cpp("predict", texts=asked, tasks=["tags"], truncate=True)["results"]
        for mine, other in zip(found, expected, strict=True):
            names = ("word", "label", "start", "end")
            assert [(e["text"], e["label"], e["start"], e["end"]) for e in mine] == [
                tuple(e[name] for name in names) for e in other
            ]
            np.testing.assert_allclose([e["score"] for e in mine], [e["score"] for e in other], rtol=0, atol=SCORES)

    @pytest.mark.parametrize("context", [CONTEXT, "Ada.", "日本 and Ada 👍🏽, naïve"])
    def test_span_tasks(self, both: Any, context: str) -> None:
        """The long context is read in windows."""
        cpp, python = both
        (expected,) = python.predict([(QUESTION, context)], "answers")
        ((found,),) = cpp("predict", texts=[[QUESTION, context]], tasks=["answers"])["results"]
        assert (found["text"], found["start"], found["end"]) == (expected["answer"], expected["start"], expected["end"])
        assert found["score"] == pytest.approx(expected["score"], abs=SCORES)

    def test_any_tasks_at_once(self, both: Any) -> None:
        cpp, python = both
        tasks = ["score", "tags", "two_way", "answers", "topics"]
        texts = [TEXTS[0], TEXTS[1], TEXTS[3], (QUESTION, "Ada lives here."), TEXTS[0]]
        expected = python.predict(texts, tasks)
        found = cpp("predict", texts=texts, tasks=tasks)["results"]
        for mine, other in zip(found, expected, strict=True):
            others = other if isinstance(other, list) else [other]
            np.testing.assert_allclose([e["score"] for e in mine], [e["score"] for e in others], rtol=0, atol=SCORES)

    @pytest.mark.parametrize(
        ("texts", "task", "options", "message"),
        [
            (["fine", "long " * 80], "score", {}, "row 1 has 82 tokens, expected at most 64"),
            (["fine", "a b c"], "score", {"max_length": 4}, "row 1 has 5 tokens, expected at most 4"),
            (["fine"], "score", {"max_length": 65}, "max_length is 65, expected 1 to 64 tokens"),
            (["fine"], "score", {"max_length": 1, "truncate": True}, "max_length is 1, expected at least 2"),
            (["fine"], "answers", {}, "row 0 is a text, expected a question and a context for the task answers"),
            ([["a", "b"]], "tags", {}, "row 0 is a pair of texts, expected a text or a list of words"),
            ([{"words": ["a"]}], "score", {}, "row 0 is a list of words, expected a text or a pair of texts"),
            ([["who?", ""]], "answers", {}, "row 0 is refused: the context has no token"),
            ([["who? " * 80, "Ada"]], "answers", {}, "row 0 is refused: the question has"),
            ([], "score", {}, "there is no text, expected at least one"),
        ],
    )
    def test_refusals(
        self, open_session: OpenBundle, texts: list[Any], task: str, options: dict[str, Any], message: str
    ) -> None:
        answer = open_session("table")("predict", texts=texts, tasks=[task], **options)
        assert answer.get("code") in ("input_error", "usage_error"), answer
        assert answer["message"].startswith(message)


def changed_row(bundle: Path, task: str, path: Path, **changes: Any) -> Path:
    """A row of the bundle with other values or fields."""
    from dataclasses import replace

    path.write_bytes(encode_row(replace(decode_row((bundle / "tasks" / f"{task}.bias").read_bytes()), **changes)))
    return path


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
            ({"labels": ["x"]}, "the labels of two_way can't be used, expected 2 different names"),
            ({"labels": ["x", "x"]}, "the labels of two_way can't be used, expected 2 different names"),
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
        assert refused["message"] == "/nowhere/x.bias can't be read: No such file or directory"

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


class TestBundles:
    @pytest.fixture
    def copy(self, get_bundle: GetBundle, tmp_path: Path) -> Path:
        shutil.copytree(get_bundle("table"), tmp_path / "bundle")
        return tmp_path / "bundle"

    @pytest.mark.parametrize(
        ("path", "value", "message"),
        [
            ("format_version", 2, "the manifest has format version 2, expected 1"),
            ("layout_kind", "other", 'layout_kind is "other", expected table, packed or named'),
            ("layout_digest", "0" * 64, "layout_digest is 000000000000, the layout gives"),
            ("max_positions", 0, "max_positions is 0, expected 1 to"),
            ("vocab_size", "many", 'vocab_size is "many", expected an integer'),
            ("vocab_size", True, "vocab_size is true, expected an integer"),
            ("inputs", ["input_ids", "input_ids"], "input_ids is there twice"),
            ("outputs", ["logits"], "has other outputs than the manifest names"),
            ("static_shape", [1, 16], "static_shape can't be"),
            ("overridable", True, "the manifest is overridable"),
            ("files", {"../x": {"sha256": "0" * 64, "size": 1}}, 'the file "../x", expected a path inside the bundle'),
            ("tasks/score/labels", ["x"], "a regression task has 1 labels"),
            ("tasks/score/file", "tasks/tags.bias", "file is tasks/tags.bias, expected tasks/score.bias"),
            ("tasks/score/sha256", "0" * 64, "expected 000000000000"),
            ("tasks/score/task_version", 9, "is the row score (regression, 1 labels, version 1), expected score"),
            ("files/model.onnx/size", 1, "bytes, expected 1"),
            ("base/digest", "0" * 64, "expected 000000000000"),
            ("layout/biases/1/offset", 33, "offset is 33, expected 32 to 32"),
            ("layout/biases/0/shape", [4294967296], "shape is out of range"),
        ],
    )
    def test_a_manifest_that_does_not_hold(
        self, programs: Path, copy: Path, path: str, value: Any, message: str
    ) -> None:
        manifest = json.loads((copy / "manifest.json").read_text(encoding="utf-8"))
        *parents, last = path.split("/") if path.startswith(("tasks", "layout/", "files/", "base")) else [path]
        place = manifest
        for each in parents:
            place = place[int(each) if isinstance(place, list) else each]
        place[last] = value
        (copy / "manifest.json").write_text(json.dumps(manifest), encoding="utf-8")
        driver = Driver(programs / "tests" / "session_test", copy)
        driver.close()
        assert driver.opened["code"] == "bundle_error"
        assert message in driver.opened["message"]

    @pytest.mark.parametrize(
        ("data", "message"),
        [
            (b"", "is no whole JSON file"),
            (b"[]", "is a list of 0 values, expected an object"),
            (b'{"format_version": 1, "format_version": 1}', 'the key "format_version" is there twice'),
            (b'{"format_version": 1}', "lacks layout"),
            (b'{"format_version": "\xff"}', "is no whole JSON file"),
            (b'{"a":' * 100_000, "is no whole JSON file"),
            (b'{"format_version": 1e999}', "has a number that no double can hold"),
        ],
    )
    def test_a_manifest_that_is_none(self, programs: Path, copy: Path, data: bytes, message: str) -> None:
        (copy / "manifest.json").write_bytes(data)
        driver = Driver(programs / "tests" / "session_test", copy)
        driver.close()
        assert driver.opened["code"] == "bundle_error"
        assert message in driver.opened["message"]

    @pytest.mark.parametrize(
        "name", ["manifest.json", "model.onnx", "model.onnx.data", "tokenizer.json", "tasks/tags.bias"]
    )
    def test_a_file_that_is_missing(self, programs: Path, copy: Path, name: str) -> None:
        (copy / name).unlink()
        driver = Driver(programs / "tests" / "session_test", copy)
        driver.close()
        assert driver.opened["code"] == "bundle_error"
        assert name in driver.opened["message"]

    def test_a_model_of_another_bundle(self, programs: Path, copy: Path, get_bundle: GetBundle) -> None:
        other = get_bundle("packed")
        manifest = json.loads((copy / "manifest.json").read_text(encoding="utf-8"))
        for name in ("model.onnx", "model.onnx.data"):
            shutil.copy(other / name, copy / name)
            manifest["files"][name]["size"] = (copy / name).stat().st_size
        (copy / "manifest.json").write_text(json.dumps(manifest), encoding="utf-8")
        driver = Driver(programs / "tests" / "session_test", copy)
        driver.close()
        assert driver.opened["code"] == "bundle_error"
        assert "model.onnx" in driver.opened["message"]


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
    def test_a_hundred_thousand_runs(self, programs: Path, get_bundle: GetBundle, tmp_path: Path) -> None:
        self.check_swaps(programs, get_bundle("table"), tmp_path, 100_000)

    @pytest.mark.slow
    @pytest.mark.parametrize("kind", ["table", "packed"])
    def test_under_thread_sanitizer(self, get_bundle: GetBundle, tmp_path: Path, kind: str) -> None:
        self.check_swaps(build("tsan", "session_test"), get_bundle(kind), tmp_path, 2000)


@pytest.mark.slow
@pytest.mark.parametrize("kind", ["table", "static", "overridable"])
def test_under_address_sanitizer(get_bundle: GetBundle, batch: dict[str, Any], kind: str) -> None:
    driver = Driver(build_sanitized() / "tests" / "session_test", get_bundle(kind))
    for task in SENTENCE_TASKS + TOKEN_TASKS:
        assert "values" in driver("run", tasks=[task], **batch)
    assert driver("run", tasks=["nope"], **batch)["code"] == "input_error"
    texts: list[Any] = [TEXTS[0], {"words": ["Ada", "日本"]}, [QUESTION, CONTEXT]]
    assert "results" in driver("predict", texts=texts, tasks=["score", "tags", "answers"])
    for number in range(8):
        path = str(get_bundle(kind) / "tasks" / "score.bias")
        assert driver("load", path=path, name=f"copy-{number}")["code"] == "ok"
        assert "values" in driver("run", tasks=[f"copy-{number}"], **batch)
    driver.close()


def test_drive_needs_a_bundle(programs: Path, tmp_path: Path) -> None:
    done = subprocess.run(
        [programs / "tests" / "session_test", "drive", tmp_path], capture_output=True, text=True, check=False
    )
    assert done.returncode == 1
    assert json.loads(done.stdout)["message"].endswith("manifest.json can't be read: No such file or directory")
