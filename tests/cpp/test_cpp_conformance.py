"""The cases of `conformance/` that the Python package runs too; `test_cpp_conformance_files.py` has the files."""

from __future__ import annotations

import json
import subprocess
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import pytest

from bitfit_export.bundle import read_manifest
from bitfit_export.errors import RowFault
from tests.conformance.session_cases import (
    RUNS,
    SCRIPTS,
    TOLERANCE,
    batch_of,
    save_rows,
    session_bundles,
    with_infinity,
)
from tests.conftest import MakeDelta
from tests.cpp.conftest import ROOT, Driver, logits_of, run

if TYPE_CHECKING:
    from bitfit_export.base_model.loading import BaseModel

CONFORMANCE = ROOT / "conformance"
TOKENIZERS: dict[str, Any] = json.loads((CONFORMANCE / "tokenizer" / "index.json").read_text(encoding="utf-8"))
#: Tokenizer files with components that this runtime does not have, which it refuses.
UNKNOWN = {"unigram.json": "has the model Unigram"}
#: What a word and an answer are called here.
NAMES = {"word": "text", "answer": "text"}
#: Tokens that neighbouring windows share, where there is room.
OVERLAP = 128


class TestTokenizer:
    @pytest.fixture
    def encode(self, programs: Path) -> Callable[..., list[Any]]:
        """The tokens of each case's text."""

        def encode(name: str, cases: list[dict[str, Any]], *options: int) -> list[Any]:
            texts = [case.get("text", case.get("pair", {"words": case.get("words")})) for case in cases]
            command = [programs / "tests" / "tokenizer_print", CONFORMANCE / "tokenizer" / name, *map(str, options)]
            done = run(command, input="".join(f"{json.dumps(text)}\n" for text in texts))
            return [json.loads(line) for line in done.stdout.splitlines()]

        return encode

    @pytest.mark.parametrize("name", sorted(TOKENIZERS.keys() - UNKNOWN.keys()))
    def test_texts(self, encode: Callable[..., list[Any]], name: str) -> None:
        cases = TOKENIZERS[name]["texts"]
        for case, found in zip(cases, encode(name, cases), strict=True):
            assert found == with_none(case["tokens"]), case

    @pytest.mark.parametrize("name", sorted(TOKENIZERS.keys() - UNKNOWN.keys()))
    def test_texts_that_are_cut(self, encode: Callable[..., list[Any]], name: str) -> None:
        for case in TOKENIZERS[name]["cut"]:
            assert encode(name, [case], case["limit"]) == [with_none(case["tokens"])], case

    @pytest.mark.parametrize("name", sorted(TOKENIZERS.keys() - UNKNOWN.keys()))
    def test_contexts_that_are_read_in_windows(self, encode: Callable[..., list[Any]], name: str) -> None:
        for case in TOKENIZERS[name]["windows"]:
            expected = [with_none(window) for window in case["windows"]]
            assert encode(name, [case], case["limit"], OVERLAP) == [expected], case

    @pytest.mark.parametrize("name", UNKNOWN)
    def test_what_is_not_known_is_refused(self, programs: Path, name: str) -> None:
        command = [programs / "tests" / "tokenizer_print", CONFORMANCE / "tokenizer" / name]
        done = subprocess.run(command, input="", capture_output=True, text=True, check=False)
        assert done.returncode == 1
        assert UNKNOWN[name] in done.stderr


def with_none(tokens: list[list[int | None]]) -> list[list[int]]:
    """Tokens as the program prints them: -1 stands for none."""
    return [[-1 if value is None else value for value in token] for token in tokens]


def test_answers(programs: Path) -> None:
    """All answers of each case, best first."""
    index = CONFORMANCE / "answers" / "index.json"
    cases = json.loads(index.read_text(encoding="utf-8"))
    found = [
        json.loads(line) for line in run([programs / "tests" / "files_test", "answers", index]).stdout.splitlines()
    ]
    for case, answers in zip(cases, found, strict=True):
        assert same_answers([answers], [case["expected"]]), (case, answers)


def test_batches(programs: Path) -> None:
    index = CONFORMANCE / "batches" / "index.json"
    cases = json.loads(index.read_text(encoding="utf-8"))
    found = run([programs / "tests" / "files_test", "batches", index]).stdout.splitlines()
    for case, line in zip(cases, found, strict=True):
        assert json.loads(line) == case["batches"], case


@pytest.fixture(scope="module")
def bundle_of(
    tmp_path_factory: pytest.TempPathFactory, tiny_base: BaseModel, make_delta: MakeDelta
) -> Callable[[str], Path]:
    return session_bundles(tmp_path_factory, tiny_base, make_delta)


@pytest.mark.parametrize(("name", "layout"), RUNS)
def test_each_script_of_session_calls(
    programs: Path, bundle_of: Callable[[str], Path], tmp_path: Path, name: str, layout: str
) -> None:
    bundle = bundle_of(layout)
    player = Player(programs / "tests" / "session_test", bundle, save_rows(read_manifest(bundle).layout, tmp_path))
    for number, step in enumerate(SCRIPTS[name]["steps"]):
        player.play(step, f"step {number} of {name}: {step}")
    player.session.close()


class Player:
    """A C++ session that does what a script says; each answer is compared with the script's."""

    def __init__(self, program: Path, bundle: Path, rows: dict[str, Path]) -> None:
        self.program = program
        self.bundle = bundle
        self.rows = rows

    def play(self, step: dict[str, Any], where: str) -> None:
        found = getattr(self, step["call"])(step)
        code = found.get("code", "ok") if isinstance(found, dict) else "ok"
        assert code == step.get("error", "ok"), (where, found)
        if "fault" in step:
            assert found["row_status"] == list(RowFault).index(RowFault[step["fault"]]) + 1, where
        if "error" in step or "returns" not in step:
            return
        if step["call"] == "run":
            np.testing.assert_array_equal(logits_of(found), with_infinity(step["returns"]), err_msg=where)
        elif step["call"] == "predict":
            assert same_answers(found["results"], step["returns"]), (where, found)
        elif step["call"] != "load_task":  # which returns no name here
            assert found == step["returns"], where

    def open(self, step: dict[str, Any]) -> Any:
        self.session = Driver(self.program, self.bundle, *(f"task={task}" for task in step.get("tasks", ())))
        if "error" in step:
            self.session.close()
        return self.session.opened

    def tasks(self, step: dict[str, Any]) -> Any:
        return sorted(self.session("tasks"))

    def labels(self, step: dict[str, Any]) -> Any:
        """From the list of tasks, in which a task that is not loaded is not."""
        tasks = self.session("tasks")
        return tasks[step["task"]]["labels"] if step["task"] in tasks else {"code": "input_error"}

    def load_task(self, step: dict[str, Any]) -> Any:
        options = {key: step[key] for key in ("name", "labels") if key in step}
        return self.session("load", path=str(self.rows[step["row"]]), **options)

    def unload_task(self, step: dict[str, Any]) -> Any:
        return self.session("unload", name=step["task"])

    def run(self, step: dict[str, Any]) -> Any:
        return self.session("run", tasks=step["tasks"], **batch_of(step))

    def predict(self, step: dict[str, Any]) -> Any:
        options = {"top_k": step["top_k"]} if "top_k" in step else {}
        return self.session("predict", tasks=step["tasks"], texts=step["texts"], **options)


def same_answers(found: list[list[dict[str, Any]]], expected: list[list[dict[str, Any]]]) -> bool:
    """Whether every answer has what is expected of it; a label that is not expected is empty."""
    pairs = [
        (answer, wanted)
        for answers, wanteds in zip(found, expected, strict=True)
        for answer, wanted in zip(answers, wanteds, strict=True)
    ]
    return all(
        abs(answer["score"] - wanted["score"]) <= TOLERANCE
        and answer["label"] == wanted.get("label", "")
        and all(answer[NAMES.get(key, key)] == wanted[key] for key in wanted.keys() - {"label", "score"})
        for answer, wanted in pairs
    )
