"""The programs and the C API answer as the Python package does."""

from __future__ import annotations

import json
import re
import shutil
import subprocess
import sys
from collections.abc import Callable, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from bitfit_export.bundle import decode_row, encode_row, read_manifest
from bitfit_export.runtime import BiasSession
from tests.conftest import real_data, real_examples
from tests.cpp.conftest import GetBundle, assert_same_lines, cpp_run, run


def python_run(*arguments: str | Path, **options: Any) -> subprocess.CompletedProcess[str]:
    """`bitfit run` of the Python package."""
    command = [sys.executable, "-c", "import sys; from bitfit_export.cli import main; sys.exit(main())", "run"]
    return subprocess.run([*command, *arguments], capture_output=True, text=True, check=False, **options)


class TestBitfitRun:
    ROWS: Sequence[dict[str, Any]] = (
        {"task": "two_way", "text": 'A "warm", funny\tfilm.'},
        {"task": "score", "sentence1": "naïve 日本", "sentence2": "x"},
        {"sentence": "no task of its own"},
        {"task": "topics", "text": "a", "text_pair": "b"},
        {"task": "tags", "tokens": ["Ada", "日本", "\u2028"]},
        {"task": "tags", "text": "Ada lives, in Paris"},
        {"task": "answers", "question": "Who?", "context": "Ada 👍🏽 lives here."},
    )

    @pytest.mark.parametrize("kind", ["table", "named"])
    def test_a_file(self, programs: Path, get_bundle: GetBundle, tmp_path: Path, kind: str) -> None:
        path = tmp_path / "rows.jsonl"
        path.write_text("\n\n".join(json.dumps(row) for row in self.ROWS) + "\n", encoding="utf-8")
        arguments = [get_bundle(kind), "--task", "three_way", "--input", path, "--threads", "1"]
        expected = python_run(*arguments)
        assert expected.returncode == 0, expected.stderr
        found = cpp_run(programs, *arguments)
        assert found.returncode == 0, found.stderr
        assert_same_lines(found.stdout, expected.stdout)

    def test_stdin(self, programs: Path, get_bundle: GetBundle) -> None:
        """More rows than a batch has."""
        lines = "".join(json.dumps({"text": f"row {number}"}) + "\n" for number in range(70))
        arguments = [get_bundle("table"), "--task", "score", "--input", "-"]
        assert_same_lines(cpp_run(programs, *arguments, input=lines).stdout, python_run(*arguments, input=lines).stdout)

    @pytest.mark.parametrize("pair", [False, True])
    def test_texts(self, programs: Path, get_bundle: GetBundle, pair: bool) -> None:
        arguments = [get_bundle("table"), "--task", "two_way", "--text", "one", "--text", "two"] + ["--pair"] * pair
        assert_same_lines(cpp_run(programs, *arguments).stdout, python_run(*arguments).stdout)

    @pytest.mark.parametrize(
        ("arguments", "stdin"),
        [
            (["--text", "x"], ""),
            (["--task", "nope", "--text", "x"], ""),
            (["--task", "score", "--pair", "--text", "x"], ""),
            (["--task", "score", "--text", "x " * 80], ""),
            (["--task", "score", "--input", "-"], '{"text": "fine"}\n{"text": "' + "x " * 80 + '"}\n'),
            (["--task", "score", "--input", "-"], "{"),
            (["--task", "score", "--input", "-"], "[1]"),
            (["--task", "score", "--input", "-"], '{"words": 1}'),
            (["--task", "score", "--input", "-"], '{"text": 1}'),
            (["--task", "score", "--input", "-"], ""),
            (["--task", "score", "--input", "/nowhere"], ""),
            (["--task", "tags", "--input", "-"], '{"tokens": "Ada"}'),
            (["--task", "score", "--text", "x", "--row", "/nowhere"], ""),
            (["--task", "score"], ""),
            (["--task", "score", "--text", "x", "--threads", "2abc"], ""),
            (["--task", "score", "--text", "x", "--threads", "9999999999"], ""),
            (["--task", "score", "--input", "-"], '{"sentence1": "a", "sentence2": 5}'),
            (["--task", "answers", "--input", "-"], '{"question": "a", "context": null}'),
            (["--unknown"], ""),
        ],
    )
    def test_what_is_wrong(self, programs: Path, get_bundle: GetBundle, arguments: list[str], stdin: str) -> None:
        """Exit status 2, and a message on stderr, as the Python package has."""
        expected = python_run(get_bundle("table"), *arguments, input=stdin)
        found = cpp_run(programs, get_bundle("table"), *arguments, input=stdin)
        assert (found.returncode, expected.returncode) == (2, 2)
        assert found.stdout == expected.stdout == ""
        assert found.stderr.startswith("error: ")

    def test_a_task_that_is_not_loaded_is_named_with_its_line(self, programs: Path, get_bundle: GetBundle) -> None:
        lines = '{"text": "fine", "task": "score"}\n{"text": "fine", "task": "nope"}\n'
        arguments = [get_bundle("table"), "--input", "-"]
        for done in (python_run(*arguments, input=lines), cpp_run(programs, *arguments, input=lines)):
            assert (done.returncode, done.stdout) == (2, "")
            assert re.match(
                r"""error: line 2 of -: the task ['"]nope['"] is not loaded, expected one of """, done.stderr
            )

    def test_a_second_text_that_is_null_is_none(self, programs: Path, get_bundle: GetBundle) -> None:
        lines = '{"text": "fine", "text_pair": null}\n{"sentence1": "fine", "sentence2": null}\n'
        arguments = [get_bundle("table"), "--task", "score", "--input", "-"]
        found = cpp_run(programs, *arguments, input=lines)
        assert_same_lines(found.stdout, python_run(*arguments, input=lines).stdout)
        assert len(found.stdout.splitlines()) == 2

    def test_a_text_that_the_model_refuses_is_named_by_its_line(
        self, programs: Path, get_bundle: GetBundle, tmp_path: Path
    ) -> None:
        """Short texts are run first, and a long context in several pieces."""
        folder = Path(shutil.copytree(get_bundle("table"), tmp_path / "bundle"))
        manifest = json.loads((folder / "manifest.json").read_text())
        (folder / "manifest.json").write_text(json.dumps(manifest | {"vocab_size": 20_000}))
        fine, odd = "fine fine fine", "unicorns"
        lines = [{"task": "score", "text": fine}, {"task": "score", "text": odd}]
        for rows, wrong in ((lines, 2), ([{"task": "answers", "question": fine, "context": f"{odd} fine " * 80}], 1)):
            text = "".join(json.dumps(row) + "\n" for row in rows)
            for done in (
                python_run(folder, "--input", "-", input=text),
                cpp_run(programs, folder, "--input", "-", input=text),
            ):
                assert (done.returncode, done.stdout) == (2, "")
                assert re.match(rf"error: line {wrong} of - has \d+ in input_ids, expected 0 to 19999", done.stderr)

    def test_logits_that_are_no_numbers_are_no_answer(
        self, programs: Path, get_bundle: GetBundle, tmp_path: Path
    ) -> None:
        bundle = get_bundle("table")
        row = decode_row((bundle / "tasks" / "two_way.bias").read_bytes())
        (tmp_path / "huge.bias").write_bytes(
            encode_row(replace(row, task="huge", biases=np.full_like(row.biases, 3e38)))
        )
        arguments = [bundle, "--row", tmp_path / "huge.bias", "--task", "huge", "--text", "fine"]
        for done in (python_run(*arguments), cpp_run(programs, *arguments)):
            assert (done.returncode, done.stdout) == (2, "")
            assert "text 1 has logits that are not finite numbers from the task huge" in done.stderr

    def test_a_row_that_is_named(self, programs: Path, get_bundle: GetBundle) -> None:
        lines = '{"text": "fine"}\n{"text": "' + "x " * 80 + '"}\n'
        found = cpp_run(programs, get_bundle("table"), "--task", "score", "--input", "-", input=lines)
        assert found.stderr.startswith("error: line 2 of - has 82 tokens, expected at most 64\nhint: ")


def test_bitfit_bench_counts_its_own_memory_and_not_that_of_what_started_it(
    programs: Path, get_bundle: GetBundle
) -> None:
    mine = np.ones(100_000_000)
    options = ["--rounds", "1", "--shape", "1x4", "--tasks", "1"]
    report = json.loads(run([programs / "bitfit_bench", get_bundle("table"), *options]).stdout)
    assert 10 < report["peak_memory_mb_after_first_answer"] <= report["peak_memory_mb"] < mine.nbytes / 1e6


def test_no_more_threads_than_a_few_per_core(programs: Path, get_bundle: GetBundle) -> None:
    found = cpp_run(programs, get_bundle("table"), "--task", "score", "--text", "x", "--threads", "1000000")
    assert (found.returncode, found.stdout) == (2, "")
    assert re.match(r"error: threads is 1000000, expected at most \d+, 4 per core", found.stderr)


@pytest.mark.parametrize("program", ["bitfit_run", "bitfit_learn", "bitfit_bench"])
def test_help(programs: Path, program: str) -> None:
    shown = run([programs / program, "--help"]).stdout
    assert shown.startswith(f"usage: {program} BUNDLE ")
    assert f"example: {program} bundles/" in shown
    refused = subprocess.run([programs / program, "bundle", "--nope"], capture_output=True, text=True, check=False)
    assert (refused.returncode, refused.stderr.splitlines()[0]) == (2, "error: unknown argument --nope")


def test_bitfit_bench(programs: Path, get_bundle: GetBundle) -> None:
    options = ["--rounds", "2", "--shape", "1x8", "--shape", "2x8", "--tasks", "1", "--tasks", "9"]
    report = json.loads(run([programs / "bitfit_bench", get_bundle("table"), *options]).stdout)
    assert report["first_answer_ms"] > report["open_ms"] > 0
    assert set(report["runs"]) == {"1x8", "2x8"}
    assert report["runs"]["2x8"]["mixed_ms"] > 0
    assert set(report["switch"]) == {"1", "9"}


def test_the_c_api(programs: Path, get_bundle: GetBundle) -> None:
    bundle = get_bundle("table")
    row = bundle / "tasks" / "two_way.bias"
    lines = run([programs / "tests" / "c_test", bundle, "two_way", "A warm, funny film.", row]).stdout.splitlines()
    words = subprocess.run(
        [programs / "tests" / "c_test", bundle, "tags", "Ada", row], capture_output=True, text=True, check=False
    )
    assert (words.returncode, words.stdout) == (1, "")
    assert "the task tags answers words" in words.stderr
    session = BiasSession(bundle, threads=1)
    (expected,) = session.predict(["A warm, funny film."], "two_way")
    label, score = lines[0].split()
    assert label == expected["label"]
    assert float(score) == pytest.approx(expected["score"], abs=1e-5)
    assert lines[1] == "refused"
    logits = session.run("two_way", input_ids=[[1, 2, 3, 4]], attention_mask=[[1, 1, 1, 0]])
    np.testing.assert_allclose([float(value) for value in lines[2].split()], logits[0], rtol=0, atol=1e-5)
    assert lines[3].startswith('3 the task "copy" is not loaded, expected one of answers, ')
    assert lines[4].startswith('3 the task "\\x1b[2J\\x0aerror: forged" is not loaded, expected one of answers, ')
    # NULL for each argument of bitfit_row_read, no bytes, bitfit_row_value, then sessions and calls.
    assert lines[5] == "-1 -1 -1 1 an argument is NULL 1 1 1 1 1 4 4"
    manifest = read_manifest(bundle)
    widest = max(len(task.labels) for task in manifest.tasks.values())
    assert lines[6] == f"{manifest.max_positions} {2 * 8 * widest}"
    codes = {"single_label": 1, "multi_label": 2, "regression": 3, "token": 4, "span": 5}
    assert [line.split() for line in lines[7:]] == [
        [name, str(codes[task.problem_type]), str(max(1, len(task.labels))), str(task.task_version), *task.labels]
        for name, task in sorted(manifest.tasks.items())
    ]


def test_engines_and_outputs_of_the_c_api(programs: Path, get_bundle: GetBundle) -> None:
    bundle = get_bundle("table")
    lines = run([programs / "tests" / "c_engine_test", bundle, "three_way", "tags"]).stdout.splitlines()
    assert lines[:2] == [
        "4 options is NULL, expected one",
        "4 the size of options is 0, expected sizeof of their struct",
    ]
    assert lines[2] == "4 providers is NULL, expected one"
    assert lines[3].startswith('4 the execution provider "TPU" is not available, expected one of ')
    assert lines[4:7] == [
        "4 keys is NULL, expected one",
        "4 a key is NULL, expected one",
        "4 the name of a provider is NULL, expected one",
    ]
    assert lines[7] == "4 threads is 2, expected 0: the engine makes no threads to share"
    # A newer caller's options, with what this release does not know unset and set; an older caller's.
    assert lines[8:11] == ["taken", "4 options are set that this release of the library does not know", "taken"]
    expected = BiasSession(bundle, threads=1).run_outputs(
        ["three_way", "tags"], input_ids=[[1, 2, 3], [4, 5, 6]], attention_mask=[[1, 1, 1], [1, 1, 0]]
    )
    assert lines[11:13] == [
        "4 the option htp_arch of the engine qnn is 74, expected one of 69, 73, 75, 79, 81",
        "4 the QNN library no/such.so cannot be loaded:",
    ]
    assert lines[13] == "this machine's processor"
    for line, name, shape in zip(lines[14:16], ["token_logits", "logits"], ["2 3 5", "2 0 5"], strict=True):
        assert line.startswith(f"{name} {shape} ")
        values = [float(value) for value in line.split()[4:]]
        np.testing.assert_allclose(values, expected[name].reshape(-1), rtol=0, atol=1e-5)
    assert lines[16] == "3 the logits have room for 1 values, expected 30 or more"
    assert lines[17:] == ["4 4 4 1"]


def test_a_task_is_what_answered(programs: Path, get_bundle: GetBundle) -> None:
    """Somebody else replaces it by a token task and back meanwhile."""
    bundle = get_bundle("table")
    rows = [bundle / "tasks" / f"{task}.bias" for task in ("two_way", "tags")]
    counts = json.loads(run([programs / "tests" / "session_test", "answered", bundle, *rows, "400"]).stdout)
    assert counts["wrong"] == 0
    assert 0 < counts["by_token"] < 400


class TestOutput:
    """A program that could not write its answers says so and does not exit with 0."""

    ANSWER = ("--task", "score", "--text", "x")
    BENCH = ("--rounds", "1", "--shape", "1x4", "--tasks", "1")

    @pytest.mark.parametrize(
        ("program", "arguments"),
        [
            ("bitfit_run", ANSWER),
            ("bitfit_bench", BENCH),
            ("bitfit_run", ["--help"]),
            ("bitfit_bench", ["--help"]),
        ],
    )
    @pytest.mark.parametrize(("output", "reason"), [("/dev/full", "No space left"), ("closed", "Bad file descriptor")])
    def test_a_full_disk_and_a_closed_output(
        self, programs: Path, get_bundle: GetBundle, program: str, arguments: Sequence[str], output: str, reason: str
    ) -> None:
        first = [] if arguments == ["--help"] else [get_bundle("table")]
        redirection = "1>&-" if output == "closed" else f"> {output}"
        command = ["sh", "-c", f'"$@" {redirection}', "sh", programs / program, *first, *arguments]
        done = subprocess.run(command, capture_output=True, text=True, check=False)
        assert done.returncode == 2
        assert done.stderr.startswith(f"error: the output cannot be written: {reason}")

    def test_a_long_file_ends_at_the_first_batch(self, programs: Path, get_bundle: GetBundle) -> None:
        """It does not go on answering for nobody: the input has no end."""
        command = 'yes \'{"text": "a"}\' | "$@" > /dev/full'
        arguments = [programs / "bitfit_run", get_bundle("table"), "--task", "score", "--input", "-"]
        done = subprocess.run(
            ["sh", "-c", command, "sh", *arguments], capture_output=True, text=True, check=False, timeout=60
        )
        assert (done.returncode, done.stderr) == (2, "error: the output cannot be written: No space left on device\n")


class TestMessages:
    """Names from outside are escaped and cut."""

    @pytest.mark.parametrize(
        "row", [{"task": "{}", "text": "x"}, {"task": "two_way\nerror: {}", "text": "x"}, {"{}": 1, "text": 1}]
    )
    def test_a_row(self, programs: Path, get_bundle: GetBundle, row: dict[str, Any]) -> None:
        line = json.dumps(row).replace("{}", "\\u001b[2J\\u009b\\u2028" + "x" * 1_000_000) + "\n"
        found = cpp_run(programs, get_bundle("table"), "--task", "score", "--input", "-", input=line)
        self.check(found)

    @pytest.mark.parametrize("option", ["--task", "--threads", "--row", "--input", "--nope\x1b[2J", "bundle"])
    def test_an_argument(self, programs: Path, get_bundle: GetBundle, option: str) -> None:
        value = "a\x1b[2J\nerror: forged" + "x" * 50_000
        bundle = value if option == "bundle" else get_bundle("table")
        options = [] if option == "bundle" else [option, value]
        text = [] if option == "--input" else ["--text", "x"]
        task = [] if option == "--task" else ["--task", "score"]
        self.check(cpp_run(programs, bundle, *options, *text, *task), longest=5000)

    def check(self, done: subprocess.CompletedProcess[str], longest: int = 600) -> None:
        assert (done.returncode, done.stdout) == (2, "")
        assert done.stderr.startswith("error: ")
        assert len(done.stderr) < longest
        assert not re.search("[\x00-\x09\x0b-\x1f\x7f-\x9f\u2028\u2029]", done.stderr)
        assert [line.split(":")[0] for line in done.stderr.splitlines()] in (["error"], ["error", "hint"])


@pytest.mark.data
@pytest.mark.slow
@pytest.mark.timeout(1800)
def test_dev_rows_of_the_shipped_tasks(
    programs: Path, shipped_bundle: Path, tmp_path: Path, request: pytest.FixtureRequest
) -> None:
    """From text, one task after the other and then mixed: the labels of Python, and its scores."""
    pytest.importorskip("torch", reason="needs bitfit-export[export]")
    rows = request.config.getoption("--dev-examples") or None
    tasks = ("sst2", "mrpc", "cola", "stsb", "rte")
    real_data(*tasks)
    lines = []
    for task in tasks:
        for row in real_examples(task)[:rows]:
            texts = {name: row[name] for name in ("sentence", "sentence1", "sentence2") if name in row}
            lines.append(json.dumps({"task": task, **texts}) + "\n")
    assert len(lines) == (5 * rows if rows else 4100)
    path = tmp_path / "rows.jsonl"
    arguments = [shipped_bundle, "--input", path, "--truncate", "--threads", "1"]

    def answers(order: np.ndarray, ask: Callable[..., subprocess.CompletedProcess[str]], *program: Path) -> list[str]:
        path.write_text("".join(lines[place] for place in order), encoding="utf-8")
        done = ask(*program, *arguments)
        assert done.returncode == 0, done.stderr
        return done.stdout.splitlines()

    in_turn, mixed = np.arange(len(lines)), np.random.default_rng(0).permutation(len(lines))
    expected = answers(in_turn, python_run)
    for order in (in_turn, mixed):
        found = answers(order, cpp_run, programs)
        assert_same_lines("\n".join(found), "\n".join(expected[place] for place in order), tolerance=1e-4)
