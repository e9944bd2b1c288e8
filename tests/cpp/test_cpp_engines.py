"""The seam of engines in C++: a session on an engine of one's own, and ONNX Runtime with options."""

from __future__ import annotations

import json
import subprocess
from collections.abc import Callable
from pathlib import Path
from typing import Any, TypeAlias

import numpy as np
import onnxruntime as ort
import pytest

from bitfit_export.runtime import BiasSession
from tests.cpp.conftest import GetBundle, build_sanitized, run

Options: TypeAlias = Callable[..., list[dict[str, Any]]]

#: What `engine_test` runs.
BATCH = {"input_ids": [[1, 2], [3, 4], [5, 6]], "attention_mask": [[1, 1], [1, 0], [1, 1]]}
#: The providers that ONNX Runtime brings. Later in a process there are those that a test registered, too.
AVAILABLE = ", ".join(name.removesuffix("ExecutionProvider") for name in ort.get_available_providers())
#: Of one session's own beside the thread that runs it, where it has three for a run.
OWN = 2


class TestAnEngineOfOnesOwn:
    """It notes what it is given, and delegates."""

    def log(self, programs: Path, bundle: Path, *tasks: str) -> tuple[list[str], list[str], list[float]]:
        """The notes while a bundle is opened, those of a run per task, and the logits of the last one."""
        *lines, logits = run([programs / "tests" / "engine_test", "log", bundle, *tasks]).stdout.splitlines()
        opened = lines.index("opened")
        return lines[:opened], lines[opened + 1 :], json.loads(logits)["logits"]

    @pytest.mark.parametrize("kind", ["table", "packed", "static", "named", "overridable"])
    def test_a_session_runs_through_it(self, programs: Path, get_bundle: GetBundle, kind: str) -> None:
        bundle = get_bundle(kind)
        opening, runs, logits = self.log(programs, bundle, "two_way", "score")
        assert opening[0] == "open model.onnx load_time 0 threads 1"
        assert {line.split()[0] for line in opening[1:]} == {"bind"}
        assert {line.split()[0] for line in runs} == {"run"}
        expected = BiasSession(bundle, threads=1).run("score", **BATCH)
        np.testing.assert_allclose(logits, expected.reshape(-1), rtol=0, atol=1e-5)

    def test_switching_tasks_binds_nothing(self, programs: Path, get_bundle: GetBundle) -> None:
        """A table is held as one, whatever is run of it, and a run is given ids and slots alone."""
        _, runs, _ = self.log(programs, get_bundle("table"), "two_way", "topics", "two_way", "tags")
        assert len({line.split(" -> ")[0] for line in runs}) == 1
        assert runs[0].startswith("run input_ids attention_mask token_type_ids task_ids bound ")

    def test_a_task_of_its_own_memory_is_bound_once(self, programs: Path, get_bundle: GetBundle) -> None:
        opening, runs, _ = self.log(programs, get_bundle("packed"), "two_way", "topics", "two_way")
        assert len(opening) == 1 + 6, "one bind per task"
        first, second, again = (line.split(" -> ")[0] for line in runs)
        assert first == again != second
        assert first.startswith("run input_ids attention_mask token_type_ids bound ")

    def test_logits_that_fit_are_written_in_place(self, programs: Path, get_bundle: GetBundle) -> None:
        *_, (only,), _ = self.log(programs, get_bundle("packed"), "two_way")
        assert only.endswith(" -> logits in place")

    @pytest.mark.parametrize(
        ("fault", "code", "message"),
        [
            ("open", "bundle_error", "the chip has no such operator"),
            (
                "targets",
                "bundle_error",
                "the bundle is for the target ort, which the engine does not run (faulty runs chip, card)",
            ),
            ("nothing", "failure", "the engine faulty opened no program"),
            ("no digest", "bundle_error", "the model {bundle}/model.onnx has no layout digest"),
            ("bind", "bundle_error", "no room on the chip"),
            ("run", "input_error", "a token type\\x0a\\x1b[2J"),
            ("throw", "failure", "the chip is too hot"),
            ("none", "ok", ""),
        ],
    )
    def test_what_it_reports_is_what_the_session_reports(
        self, programs: Path, get_bundle: GetBundle, fault: str, code: str, message: str
    ) -> None:
        bundle = get_bundle("table")
        status = json.loads(run([programs / "tests" / "engine_test", "fault", bundle, fault]).stdout)
        assert (status["code"], status["message"]) == (code, message.format(bundle=bundle))

    def test_it_need_not_take_adapters(self, programs: Path, get_bundle: GetBundle) -> None:
        command = [programs / "tests" / "engine_test", "fault", get_bundle("named"), "none", "two_way"]
        status = json.loads(run(command).stdout)
        assert (status["code"], status["message"]) == ("usage_error", "the engine takes no adapters, expected a row")


@pytest.fixture
def with_options(programs: Path, get_bundle: GetBundle) -> Options:
    """What becomes of sessions that are opened in turn, each with these options."""

    def answers(*each: dict[str, Any], folder: Path = programs) -> list[dict[str, Any]]:
        command = [folder / "tests" / "engine_test", "options", get_bundle("table"), "two_way"]
        done = run(command, input="".join(f"{json.dumps(options)}\n" for options in each))
        return [json.loads(line) for line in done.stdout.splitlines()]

    return answers


class TestProviders:
    @pytest.mark.parametrize("name", ["CPU", "cpu", "CPUExecutionProvider"])
    def test_the_cpu_is_always_there(self, with_options: Options, name: str) -> None:
        default, named = with_options({}, {"providers": [{"name": name}]})
        assert default["code"] == named["code"] == "ok"
        assert named["logits"] == default["logits"]

    def test_another_one_takes_options(self, with_options: Options) -> None:
        """It has no operator of the model, so the CPU takes all of them."""
        if "AzureExecutionProvider" not in ort.get_available_providers():
            pytest.skip("needs an ONNX Runtime with one provider more")
        azure = {"name": "Azure", "options": {"key": "value"}}
        default, named, refused = with_options(
            {},
            {"providers": [azure, {"name": "CPU"}]},
            {"providers": [azure | {"options": {"key": ""}}]},
        )
        assert named["code"] == "ok"
        assert named["logits"] == default["logits"]
        assert refused["code"] == "usage_error"
        assert refused["message"].startswith("the execution provider Azure cannot be used: ")

    @pytest.mark.parametrize(
        ("providers", "message"),
        [
            ([{"name": "TPU"}], 'the execution provider "TPU" is not available, expected one of {available}'),
            ([{"name": ""}], 'the execution provider "" is not available, expected one of {available}'),
            ([{"name": "\033[2J"}], 'the execution provider "\\x1b[2J" is not available, expected one of {available}'),
            (
                [{"name": "CPU", "options": {"fast": "1"}}],
                "the execution provider CPU has options, expected none",
            ),
            (
                [{"name": "CPU"}, {"name": "Azure"}],
                "the execution provider CPU is before Azure, expected it last: it takes every operator",
            ),
        ],
    )
    def test_what_cannot_be_is_a_usage_error(
        self, with_options: Options, providers: list[dict[str, Any]], message: str
    ) -> None:
        (answer,) = with_options({"providers": providers})
        assert (answer["code"], answer["message"]) == ("usage_error", message.format(available=AVAILABLE))


class TestThreads:
    def test_sessions_have_threads_of_their_own(self, with_options: Options) -> None:
        one, two, three = with_options(*[{"session_threads": 1 + OWN, "keep": True}] * 3)
        assert two["threads"] - one["threads"] == three["threads"] - two["threads"] == OWN

    def test_sessions_of_engines_that_share_threads_have_the_same(self, with_options: Options) -> None:
        shared = {"share_threads": True, "threads": 1 + OWN, "keep": True}
        alone, *rest = with_options({"session_threads": 1 + OWN}, *[shared] * 3)
        assert {each["code"] for each in rest} == {"ok"}
        assert {each["threads"] for each in rest} == {alone["threads"]}
        assert all(each["logits"] == alone["logits"] for each in rest)

    def test_operators_that_do_not_wait_for_one_another(self, with_options: Options) -> None:
        default, parallel = with_options({"session_threads": 1}, {"session_threads": 1, "inter_threads": 2})
        assert parallel["code"] == "ok"
        assert parallel["logits"] == default["logits"]
        assert parallel["threads"] > default["threads"]

    @pytest.mark.parametrize(
        ("options", "message"),
        [
            ({"inter_threads": -1}, "inter_threads is -1, expected 0 or more"),
            ({"inter_threads": 100_000}, "inter_threads is 100000, expected at most"),
            ({"share_threads": True, "threads": -1}, "threads is -1, expected 0 or more"),
            ({"threads": 2}, "threads is 2, expected 0: the engine makes no threads to share"),
            (
                {"share_threads": True, "session_threads": 2},
                "threads is 2, expected 0: the session shares the threads of its engine",
            ),
        ],
    )
    def test_what_cannot_be_is_a_usage_error(
        self, with_options: Options, options: dict[str, Any], message: str
    ) -> None:
        (answer,) = with_options(options)
        assert answer["code"] == "usage_error"
        assert answer["message"].startswith(message)

    def test_engines_that_share_at_one_time_have_the_same_numbers(self, with_options: Options) -> None:
        """When the last one has gone, the next may have others."""
        two, three = ({"share_threads": True, "threads": number} for number in (2, 3))
        kept, refused, _ = with_options(two | {"keep": True}, three, two)
        assert kept["code"] == "ok"
        assert refused["code"] == "usage_error"
        assert refused["message"].startswith("threads is 3 and inter_threads 0, expected 2 and 0, the threads")
        assert [each["code"] for each in with_options(two, three)] == ["ok", "ok"]

    def test_an_environment_that_was_made_without_them_has_none_to_share(self, with_options: Options) -> None:
        kept, refused = with_options({"keep": True}, {"share_threads": True})
        assert kept["code"] == "ok"
        assert refused["code"] == "usage_error"
        assert refused["message"].startswith("ONNX Runtime's environment has no threads to share")
        assert refused["hint"].startswith("make the engine that shares threads before any other session")


class TestAnEnvironmentOfTheApplication:
    def test_sessions_leave_it_as_it_is(self, with_options: Options) -> None:
        answers = with_options(*[{"environment": "plain"}] * 3)
        assert [each["code"] for each in answers] == ["ok"] * 3

    def test_its_threads_can_be_shared(self, with_options: Options) -> None:
        shared = {"environment": "pools", "share_threads": True, "keep": True}
        first, second = with_options(shared, shared)
        assert first["code"] == second["code"] == "ok"
        assert first["threads"] == second["threads"]

    def test_it_may_have_none(self, with_options: Options) -> None:
        (answer,) = with_options({"environment": "plain", "share_threads": True})
        assert answer["code"] == "usage_error"

    def test_it_says_itself_how_many_it_has(self, with_options: Options) -> None:
        (answer,) = with_options({"environment": "pools", "share_threads": True, "threads": 2})
        assert answer["message"] == "threads is 2, expected 0: the engine makes no threads to share"


@pytest.mark.slow
def test_under_address_sanitizer(get_bundle: GetBundle, with_options: Options) -> None:
    folder = build_sanitized()
    bundle = get_bundle("table")
    for words in (["log", bundle, "two_way", "tags"], ["fault", bundle, "throw"], ["fault", bundle, "no digest"]):
        subprocess.run([folder / "tests" / "engine_test", *words], check=True, capture_output=True)
    run([folder / "tests" / "engine_test", "log", get_bundle("named"), "two_way"])
    shared = {"share_threads": True, "threads": 2, "keep": True}
    answers = with_options({"providers": [{"name": "TPU"}]}, shared, shared, {"environment": "plain"}, folder=folder)
    assert [each["code"] for each in answers] == ["usage_error", "ok", "ok", "ok"]
