"""bitfit run and bitfit inspect."""

from __future__ import annotations

import io
import json
import os
import shutil
import subprocess
import sys
import textwrap
from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace
from typing import TYPE_CHECKING, Any

import pytest

from bitfit_export.bundle import read_manifest, row_file, write_manifest
from bitfit_export.bundle.limits import MAX_LINE_SIZE
from bitfit_export.errors import InputError, UsageError
from bitfit_export.runtime.predict.questions import Question, read_questions
from tests import traces
from tests.cli.conftest import Bitfit, write_lines
from tests.conftest import MakeDelta

if TYPE_CHECKING:
    from bitfit_export.base_model.loading import BaseModel
    from bitfit_export.delta import TaskDelta


@pytest.fixture(scope="session")
def kinds_bundle(tiny_base: BaseModel, tiny_deltas: dict[str, TaskDelta], make_delta: Any) -> Path:
    """A bundle with a sentence task, a token task and a span task."""
    deltas = {
        "two_way": tiny_deltas["two_way"],
        "tags": make_delta(tiny_base, "tags", labels=("O", "B-person"), problem_type="token", seed=5),
        "answers": make_delta(tiny_base, "answers", labels=("start", "end"), problem_type="span", seed=6),
    }
    return traces.bundle_of(tiny_base, deltas)


def lines_of(text: str) -> list[dict[str, Any]]:
    return [json.loads(line) for line in text.splitlines()]


def test_texts_are_answered_in_order(bitfit: Bitfit, tiny_bundle: Path) -> None:
    done = bitfit("run", tiny_bundle, "--task", "two_way", "--text", "one", "--text", "two")
    answers = lines_of(done.out)
    assert [answer["task"] for answer in answers] == ["two_way", "two_way"]
    assert all(
        answer["label"] in ("negative", "positive") and 0.5 <= float(str(answer["score"])) <= 1 for answer in answers
    )


def test_a_regression_has_a_score_alone(bitfit: Bitfit, tiny_bundle: Path) -> None:
    (answer,) = lines_of(bitfit("run", tiny_bundle, "--task", "score", "--text", "one").out)
    assert set(answer) == {"task", "score"}


def test_rows_of_a_file_may_name_their_own_tasks_and_columns(bitfit: Bitfit, tiny_bundle: Path, tmp_path: Path) -> None:
    asked = [
        {"task": "score", "text": "a", "text_pair": "b"},
        {"sentence": "a"},
        {"task": "three_way", "sentence1": "a", "sentence2": "b"},
    ]
    done = bitfit("run", tiny_bundle, "--task", "two_way", "--input", write_lines(tmp_path / "texts", asked * 20))
    answers = lines_of(done.out)
    assert [answer["task"] for answer in answers] == ["score", "two_way", "three_way"] * 20
    pair = lines_of(bitfit("run", tiny_bundle, "--task", "score", "--pair", "--text", "a", "--text", "b").out)
    assert float(str(answers[0]["score"])) == pytest.approx(float(str(pair[0]["score"])), abs=1e-5)


def test_rows_come_from_stdin(bitfit: Bitfit, tiny_bundle: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sys, "stdin", SimpleNamespace(buffer=io.BytesIO(b'{"text": "a"}\n\n{"text": "b"}')))
    assert len(lines_of(bitfit("run", tiny_bundle, "--task", "score", "--input", "-").out)) == 2


def test_a_row_may_be_loaded_besides_the_bundles_own(bitfit: Bitfit, tiny_bundle: Path) -> None:
    row = tiny_bundle / row_file("two_way")
    done = bitfit("run", tiny_bundle, "--row", row, "--task", "two_way", "--text", "a")
    assert lines_of(done.out)[0]["label"] in ("negative", "positive", "LABEL_0", "LABEL_1")


def test_rows_of_every_kind_may_stand_in_one_file(bitfit: Bitfit, kinds_bundle: Path, tmp_path: Path) -> None:
    asked = [
        {"task": "tags", "tokens": ["Ada", "lives", "unbelievably", "well"]},
        {"task": "two_way", "text": "a"},
        {"task": "answers", "question": "Who?", "context": "Ada lives here."},
        {"task": "tags", "text": "Ada lives"},
        {"task": "answers", "text": "Who?", "text_pair": "Ada lives here."},
    ]
    answers = lines_of(bitfit("run", kinds_bundle, "--input", write_lines(tmp_path / "texts.jsonl", asked)).out)
    assert [answer["task"] for answer in answers] == [each["task"] for each in asked]
    words, sentence, span, text, pair = answers
    assert [list(each) for each in words["tokens"]] == [["word", "label", "score"]] * 4
    assert [each["word"] for each in words["tokens"]] == asked[0]["tokens"]
    assert {each["label"] for each in words["tokens"]} <= {"O", "B-person"}
    assert set(sentence) == {"task", "label", "score"}
    assert list(span) == ["task", "answer", "score", "start", "end"]
    assert "Ada lives here."[span["start"] : span["end"]] == span["answer"] != ""
    assert [each["word"] for each in text["tokens"]] == ["Ada", "lives"]
    assert pair == span


def test_every_score_has_six_digits(bitfit: Bitfit, kinds_bundle: Path) -> None:
    (answer,) = lines_of(bitfit("run", kinds_bundle, "--task", "tags", "--text", "Ada lives here").out)
    scores = [each["score"] for each in answer["tokens"]]
    assert scores == [round(score, 6) for score in scores]
    (span,) = lines_of(
        bitfit("run", kinds_bundle, "--task", "answers", "--pair", "--text", "Who?", "--text", "Ada").out
    )
    assert (span["answer"], span["score"]) == ("Ada", round(span["score"], 6))


@pytest.mark.parametrize(
    ("line", "message"),
    [
        ({"task": "tags", "tokens": []}, "line 1 of texts.jsonl has tokens [], expected a list of words"),
        ({"task": "tags", "tokens": "Ada"}, "line 1 of texts.jsonl has tokens 'Ada', expected a list of words"),
        ({"task": "tags", "tokens": ["Ada", 5]}, "has tokens ['Ada', 5], expected a list of words"),
        ({"task": "answers", "question": "Who?", "context": 5}, "line 1 of texts.jsonl has context, question, task,"),
        ({"task": "answers", "question": "Who?"}, "line 1 of texts.jsonl has question, task, expected text"),
        ({"task": "answers", "text": "Who?"}, "line 1 of texts.jsonl is one text, expected a pair of a question"),
        ({"task": "two_way", "tokens": ["a"]}, "line 1 of texts.jsonl is a list of words, expected one text or a"),
        ({"task": "tags", "tokens": ["word"] * 70}, "line 1 of texts.jsonl has 72 tokens, expected at most 64"),
    ],
)
def test_a_line_that_its_task_can_not_take(
    bitfit: Bitfit,
    kinds_bundle: Path,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    line: dict[str, object],
    message: str,
) -> None:
    monkeypatch.chdir(tmp_path)
    done = bitfit("run", kinds_bundle, "--input", write_lines(Path("texts.jsonl"), [line]))
    assert (done.status, done.out) == (2, "")
    assert message in done.err


@pytest.mark.parametrize(
    ("content", "message"),
    [
        ("", "has no JSON object"),
        ("\n\n", "has no JSON object"),
        ('{"text": "a"}\n{"text": ', "line 2 of texts.jsonl is not valid JSON"),
        ("[1]", "line 1 of texts.jsonl is [1], expected an object"),
        ("[" * 100_000, "line 1 of texts.jsonl is not valid JSON"),
        ('{"words": "a"}', "line 1 of texts.jsonl has words, expected text"),
        ('{"text": 5}', "line 1 of texts.jsonl has text, expected text"),
        ('{"text": "a"}\n{"text": "a", "task": "poetry"}', "'poetry' is not loaded"),
        (
            '{"text": "a"}\n\n{"text": "%s"}' % ("word " * 80),
            "line 3 of texts.jsonl has 82 tokens, expected at most 64",
        ),
    ],
)
def test_a_bad_input_file_is_one_clear_error(
    bitfit: Bitfit,
    tiny_bundle: Path,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    content: str,
    message: str,
) -> None:
    monkeypatch.chdir(tmp_path)
    Path("texts.jsonl").write_text(content)
    done = bitfit("run", tiny_bundle, "--task", "two_way", "--input", "texts.jsonl")
    assert (done.status, done.out) == (2, "")
    assert message in done.err


def test_a_file_that_is_not_there_is_one_clear_error(bitfit: Bitfit, tiny_bundle: Path) -> None:
    done = bitfit("run", tiny_bundle, "--task", "two_way", "--input", "/nowhere")
    assert done.err == "error: /nowhere cannot be read: No such file or directory\n"


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (["--task", "two_way"], "expected either --text or --input"),
        (["--text", "a"], "names no task"),
        (["--task", "poetry", "--text", "a"], "'poetry' is not loaded, expected one of"),
        (["--task", "two_way", "--pair", "--text", "a"], "even number of texts"),
        (["--task", "two_way", "--text", "word " * 80], "82 tokens, expected at most 64"),
        (["--task", "two_way", "--threads", "0", "--text", "a"], "threads is 0"),
    ],
)
def test_bad_words_are_one_clear_error(bitfit: Bitfit, tiny_bundle: Path, words: list[str], message: str) -> None:
    done = bitfit("run", tiny_bundle, *words)
    assert (done.status, done.out) == (2, "")
    assert message in done.err


def test_answers_are_utf8_whatever_the_terminal_says(kinds_bundle: Path) -> None:
    command = [sys.executable, "-m", "bitfit_export", "run", kinds_bundle, "--task", "tags", "--text", "naïve"]
    done = subprocess.run(command, capture_output=True, check=False, env=os.environ | {"PYTHONIOENCODING": "ascii"})
    assert done.returncode == 0, done.stderr
    assert '"word": "naïve"' in done.stdout.decode("utf-8")


def test_a_long_text_is_cut_when_asked_for(bitfit: Bitfit, tiny_bundle: Path) -> None:
    assert bitfit("run", tiny_bundle, "--task", "two_way", "--truncate", "--text", "word " * 80).status == 0


def test_the_tokens_of_a_batch_change_no_answer(bitfit: Bitfit, tiny_bundle: Path) -> None:
    words = ["run", tiny_bundle, "--task", "two_way", "--text", "one two three", "--text", "four"]
    labels = [
        [json.loads(line)["label"] for line in bitfit(*words, *more).out.splitlines()]
        for more in ([], ["--batch-tokens", "3"])
    ]
    assert labels[0] == labels[1]
    done = bitfit(*words, "--batch-tokens", "0")
    assert (done.status, done.err) == (2, "error: --batch-tokens is 0, expected 1 or more\n")


def test_a_reader_that_goes_away_is_no_error(tiny_bundle: Path, tmp_path: Path) -> None:
    path = write_lines(tmp_path / "texts.jsonl", [{"text": "a"}] * 500)
    words = ["run", str(tiny_bundle), "--task", "score", "--input", str(path)]
    run = f"from bitfit_export.cli import main; raise SystemExit(main({words!r}))"
    done = subprocess.run(
        ["sh", "-c", '"$0" -c "$1" | head -n 1', sys.executable, run], capture_output=True, text=True, check=False
    )
    assert len(lines_of(done.stdout)) == 1
    assert done.stderr == ""


def test_inspect_says_what_is_in_a_bundle_a_row_and_a_delta(
    bitfit: Bitfit, tiny_bundle: Path, deltas_folder: Path
) -> None:
    bundle = json.loads(bitfit("inspect", tiny_bundle, "--json").out)
    assert (bundle["kind"], set(bundle["tasks"])) == ("bundle", {"three_way", "two_way", "score"})
    row = json.loads(bitfit("inspect", tiny_bundle / row_file("score"), "--json").out)
    assert (row["kind"], row["problem type"], row["labels"]) == ("bias row", "regression", 1)
    delta = json.loads(bitfit("inspect", deltas_folder / "two_way", "--json").out)
    assert delta["kind"] == "task delta"
    # Normal values with a deviation of 0.3 have a mean absolute value of 0.3 * sqrt(2 / pi) = 0.239.
    assert delta["mean absolute change"]["encoder.layer.0.intermediate.dense.bias"] == pytest.approx(0.239, abs=0.06)
    for path in (tiny_bundle, tiny_bundle / row_file("score"), deltas_folder / "two_way"):
        assert bitfit("inspect", path).out.startswith("kind: ")


def test_inspect_of_a_bundle_whose_task_is_called_resize(
    bitfit: Bitfit, tiny_base: BaseModel, make_delta: MakeDelta, tmp_path: Path
) -> None:
    traces.compile_bundle(tiny_base, {"resize": make_delta(tiny_base, "resize")}, tmp_path)
    assert "  resize: " in bitfit("inspect", tmp_path).out


def test_inspect_refuses_what_is_damaged_or_something_else(bitfit: Bitfit, tiny_bundle: Path, tmp_path: Path) -> None:
    half = tmp_path / "half.bias"
    half.write_bytes((tiny_bundle / row_file("score")).read_bytes()[:-4])
    assert "truncated payload" in bitfit("inspect", half).err
    done = bitfit("inspect", tmp_path)
    assert done.status == 2
    assert "is not a bundle, row or delta" in done.err


class TestJsonLines:
    """Every file of `conformance/jsonl` is judged as its index says; the C++ tests read the same files."""

    FOLDER = Path(__file__).parents[2] / "conformance" / "jsonl"
    INDEX = json.loads((FOLDER / "index.json").read_text(encoding="utf-8"))

    @pytest.mark.parametrize("name", sorted(INDEX["files"]))
    def test_each_file(self, name: str) -> None:
        expected = self.INDEX["files"][name]
        read: list[dict[str, Any]] = []

        def read_all() -> None:
            with (self.FOLDER / name).open("rb") as stream:
                for question in read_questions(name, stream, self.INDEX["task"]):
                    read.append(as_line(question))  # what was read before an error counts
            if not read:
                raise InputError("no lines")

        if expected["fault"] is None:
            read_all()
            assert read == expected["questions"]
            return
        with pytest.raises((InputError, UsageError)) as caught:
            read_all()
        if expected["line"] is not None:
            assert caught.value.message.startswith(f"line {expected['line']} of {name}")
            assert len(read) == expected["line"] - 1
        assert ("is not valid JSON" in caught.value.message) == (expected["fault"] == "json")

    def test_the_longest_line(self) -> None:
        line = b'{"text": "a"}'
        longest = MAX_LINE_SIZE
        for mark in (b"", b"\xef\xbb\xbf"):
            data = mark + line.ljust(longest) + b"\n" + line.ljust(longest)
            assert len(list(read_questions("x", io.BytesIO(data), "t"))) == 2
            data = mark + line + b"\n" + line.ljust(longest + 1) + b"\n"
            with pytest.raises(InputError, match="line 2 of x is too long, expected at most 16777216 bytes"):
                list(read_questions("x", io.BytesIO(data), "t"))
        data = b"\xef\xbb\xbf" + line.ljust(longest + 1) + b"\n"
        with pytest.raises(InputError, match="line 1 of x is too long"):
            list(read_questions("x", io.BytesIO(data), "t"))

    @pytest.mark.timeout(20)
    def test_input_without_a_line_end_is_not_read_on(self) -> None:
        with open("/dev/zero", "rb") as stream, pytest.raises(InputError, match="line 1 of x is too long"):
            list(read_questions("x", stream, "t"))

    def test_an_array_in_place_of_lines_has_a_hint(self) -> None:
        with pytest.raises(InputError, match="expected an object\nhint: write one JSON object per line"):
            list(read_questions("x", io.BytesIO(b'[{"text": "a"}]'), "t"))

    def test_long_values_are_shortened(self) -> None:
        for value in ({"tokens": "x" * 100_000}, {"x" * 100_000: 1}, ["x" * 100_000]):
            with pytest.raises(InputError) as caught:
                list(read_questions("x", io.BytesIO(json.dumps(value).encode()), "t"))
            assert len(str(caught.value)) < 500


def as_line(question: Question) -> dict[str, Any]:
    """A question as the index has it."""
    if isinstance(question.text, list):
        return {"task": question.task, "tokens": question.text}
    if isinstance(question.text, str):
        return {"task": question.task, "text": question.text}
    return {"task": question.task, "text": question.text[0], "text_pair": question.text[1]}


@pytest.mark.parametrize("command", ["run", "verify", "inspect"])
def test_a_forged_file_is_found_on_request(bitfit: Bitfit, tiny_bundle: Path, tmp_path: Path, command: str) -> None:
    """Its CRC agrees with the manifest, its SHA-256 does not. `inspect` and `verify` always compare it."""
    bundle = Path(shutil.copytree(tiny_bundle, tmp_path / "bundle"))
    manifest = read_manifest(bundle)
    forged = replace(manifest.files["tokenizer.json"], sha256="0" * 64)
    write_manifest(bundle, replace(manifest, files=manifest.files | {"tokenizer.json": forged}))
    words = {
        "run": ("run", bundle, "--task", "score", "--text", "a", "--check-hashes"),
        "verify": ("verify", bundle, "--files"),
        "inspect": ("inspect", bundle),
    }
    assert bitfit("run", bundle, "--task", "score", "--text", "a").status == 0
    done = bitfit(*words[command])
    assert done.status == 2
    assert "tokenizer.json has sha256" in done.err


class TestVerifyFiles:
    def test_a_good_bundle(self, bitfit: Bitfit, tiny_bundle: Path) -> None:
        assert bitfit("verify", tiny_bundle, "--files").out == "3 files and 3 rows are those of the manifest\n"

    @pytest.mark.parametrize(
        "name", ["manifest.json", "model.onnx", "model.onnx.data", "tokenizer.json", "tasks/score.bias"]
    )
    def test_a_changed_file(self, bitfit: Bitfit, tiny_bundle: Path, tmp_path: Path, name: str) -> None:
        bundle = Path(shutil.copytree(tiny_bundle, tmp_path / "bundle"))
        data = bytearray((bundle / name).read_bytes())
        data[len(data) // 2] ^= 0x80
        (bundle / name).write_bytes(data)
        done = bitfit("verify", bundle, "--files")
        assert done.status == 2
        assert name in done.err

    def test_it_needs_neither_torch_nor_the_base_model(self, tiny_bundle: Path) -> None:
        code = """
            import sys

            class Blocker:
                def find_spec(self, name, path=None, target=None):
                    if name.split(".")[0] in {"torch", "onnx", "transformers", "safetensors", "onnx_ir"}:
                        raise ImportError(f"{name} is blocked")

            sys.meta_path.insert(0, Blocker())
            from bitfit_export.cli import main
            sys.exit(main(["verify", sys.argv[1], "--files"]))
        """
        done = subprocess.run(
            [sys.executable, "-c", textwrap.dedent(code), tiny_bundle], capture_output=True, text=True, check=False
        )
        assert (done.returncode, done.stderr) == (0, "")
