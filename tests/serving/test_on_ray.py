"""The service and the answers of a large file on Ray, for real: a cluster of one machine."""

from __future__ import annotations

import http.client
import os
import signal
import threading
import time
import urllib.error
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from pathlib import Path
from typing import Any

import pytest

from bitfit_export.cli import main
from bitfit_export.errors import UsageError
from tests.cli.conftest import write_lines
from tests.serving.conftest import WriteRow
from tests.serving.processes import PATIENCE, Serving

pytest.importorskip("ray", reason="needs bitfit-export[ray]")
pytest.importorskip("ray.serve", reason="needs bitfit-export[ray]")

CALLERS = 4
#: Of each caller, after a replica was killed.
ANSWERS_AFTER = 50
IN_A_ROW = 20


@pytest.fixture(scope="module")
def cluster() -> Iterator[str]:
    """The address of a cluster of this machine."""
    from ray.cluster_utils import Cluster

    os.environ |= {"RAY_USAGE_STATS_ENABLED": "0", "RAY_SERVE_PROXY_READY_CHECK_TIMEOUT_S": "30"}
    started = Cluster(initialize_head=True, head_node_args={"num_cpus": 4, "include_dashboard": False})
    yield started.address
    started.shutdown()


@pytest.fixture
def service(tiny_bundle: Path, cluster: str, rows: Path) -> Iterator[Serving]:
    """Two replicas that look at the folder of rows."""
    started = Serving(tiny_bundle, "--engine", "ray", "--address", cluster, "--replicas", "2", "--tasks-dir", rows)
    yield started
    started.end(signal.SIGKILL)


# One test of several, as a service takes half a minute to start.
@pytest.mark.slow
def test_two_replicas_answer_the_same_also_when_one_is_killed(service: Serving, add_row: WriteRow) -> None:
    scores = {"a": 0.731059, "b": 0.880797, "c": 0.952574}  # the sigmoids of 1, 2 and 3
    for lead, task in enumerate(scores, 1):
        add_row(task, lead=lead)
        wait_for_all_replicas(service, task)
    with pytest.raises(urllib.error.HTTPError) as caught:
        service.post("/v2/repository/models/a/unload", {})
    assert caught.value.code == 403

    ask_while_one_is_killed(service, scores)
    assert service.end(signal.SIGTERM) == 0
    assert not replicas()


def ask_while_one_is_killed(service: Serving, scores: dict[str, float]) -> None:
    killed, answered = threading.Event(), []

    def ask_on() -> None:
        after = 0
        while after < ANSWERS_AFTER:
            task = tuple(scores)[len(answered) % len(scores)]
            assert ask_again(service, task) == {"task": task, "label": "LABEL_1", "score": scores[task]}
            answered.append(task)
            after += killed.is_set()

    with ThreadPoolExecutor() as pool:
        callers = [pool.submit(ask_on) for _ in range(CALLERS)]
        while len(answered) < ANSWERS_AFTER and not any(each.done() for each in callers):
            time.sleep(0.01)
        victim = replicas()[0]
        os.kill(victim, signal.SIGKILL)
        killed.set()
        for each in callers:
            each.result(PATIENCE)
    end = time.monotonic() + PATIENCE
    while len(set(replicas()) - {victim}) < 2:  # Ray starts another
        assert time.monotonic() < end
        time.sleep(0.1)


def wait_for_all_replicas(service: Serving, task: str) -> None:
    """Until so many requests in a row find the task that each replica is among those that answered."""
    end, found = time.monotonic() + PATIENCE, 0
    while found < IN_A_ROW:
        assert time.monotonic() < end
        try:
            service.ask(task)
            found += 1
        except urllib.error.HTTPError as error:
            if error.code != 404:
                raise
            found = 0


def ask_again(service: Serving, task: str) -> Any:
    """An answer, if need be to a second request."""
    try:
        return service.ask(task)
    except (OSError, http.client.HTTPException) as error:  # an HTTPError is an OSError
        if getattr(error, "code", 500) < 500:
            raise
        return service.ask(task)


def replicas() -> list[int]:
    """The processes of replicas, by the title that Ray gives them."""
    found = []
    for each in Path("/proc").glob("[0-9]*/cmdline"):
        with suppress(OSError):
            if b"ServeReplica:bitfit" in each.read_bytes():
                found.append(int(each.parent.name))
    return found


@pytest.mark.slow
def test_what_is_answered_stays_and_the_rest_is_answered(
    tiny_bundle: Path, cluster: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    asked = [{"task": ("two_way", "three_way")[number % 2], "text": f"Text {number}."} for number in range(20)]
    asked[13]["text"] = "word " * 600
    source, output = write_lines(tmp_path / "texts.jsonl", asked), tmp_path / "answers"
    words = ["run", str(tiny_bundle), "--input", str(source)]
    on_ray = [*words, "--engine", "ray", "--address", cluster, "--part-lines", "4", "--output", str(output)]
    assert main(on_ray) == 2
    assert f"line 14 of {source} has 602 tokens, expected at most 64" in capsys.readouterr().err
    before = sorted(output.glob("part-*.jsonl"))
    assert output / "part-000003.jsonl" not in before

    asked[13]["text"] = "a word"
    write_lines(source, asked)
    output /= "mended"
    on_ray[-1] = str(output)
    assert main(on_ray) == 0
    (output / "part-000002.jsonl").unlink()
    assert main(on_ray) == 0
    assert "5 parts of" in (said := capsys.readouterr().err)
    assert "4 of them answered before" in said
    assert main(words) == 0
    parts = sorted(output.glob("part-*.jsonl"))
    assert "".join(part.read_text() for part in parts) == capsys.readouterr().out


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (["--replicas", "2"], "--replicas goes with --engine ray"),
        (["--engine", "ray", "--replicas", "0"], "--replicas is 0, expected 1 or more"),
        (["--engine", "ray", "--replicas", "2", "--max-replicas", "1"], "--max-replicas is 1, expected --replicas"),
        (["--engine", "ray", "--address", "127.0.0.1:1"], "Ray cannot be reached at 127.0.0.1:1"),
    ],
)
def test_bad_options_are_one_clear_error(
    tiny_bundle: Path, words: list[str], message: str, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main(["serve", str(tiny_bundle), "--port", "0", *words]) == 2
    assert message in capsys.readouterr().err


class TestConfigurationFile:
    def test_its_arguments_are_those_of_the_session_and_the_settings(self, tiny_bundle: Path) -> None:
        from bitfit_export.serving.on_ray.service import build

        assert build({"bundle": str(tiny_bundle), "tasks_dir": "rows", "memory": 64, "wait": 1}) is not None
        with pytest.raises(
            UsageError, match="the arguments are 'bundle, rows', expected bundle, and any of batch_size"
        ):
            build({"bundle": str(tiny_bundle), "rows": "rows"})
        with pytest.raises(UsageError, match="--memory is '64', expected 1 or more"):
            build({"bundle": str(tiny_bundle), "memory": "64"})
