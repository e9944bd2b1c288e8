"""`bitfit serve` as a process: a public client of the protocol, rows that come and go, its end, and bad options."""

from __future__ import annotations

import json
import signal
import socket
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import TypeAlias

import numpy as np
import pytest

from tests.serving.conftest import WriteRow
from tests.serving.processes import PATIENCE, Serving

pytest.importorskip("fastapi", reason="needs bitfit-export[serve]")

MANAGER = "m" * 20


Serve: TypeAlias = Callable[..., Serving]


@pytest.fixture
def serve(tiny_bundle: Path) -> Iterator[Serve]:
    started: list[Serving] = []

    def start(*words: str | Path) -> Serving:
        started.append(Serving(tiny_bundle, *words))
        return started[-1]

    yield start
    for each in started:
        each.end(signal.SIGKILL)


@pytest.mark.slow
def test_a_client_of_triton_lists_asks_and_unloads_tasks(
    serve: Serve, rows: Path, add_row: WriteRow, tmp_path: Path
) -> None:
    http = pytest.importorskip("tritonclient.http", reason="needs tritonclient[http]")
    add_row("a", lead=2.0)
    tokens = tmp_path / "tokens"
    tokens.write_text(f"manage {MANAGER}\n")
    client = http.InferenceServerClient(serve("--tasks-dir", rows, "--tokens", tokens).address)
    headers = {"Authorization": f"Bearer {MANAGER}"}
    assert client.is_server_live()
    assert client.is_server_ready()
    assert client.is_model_ready("a", headers=headers)
    assert client.get_server_metadata(headers=headers)["name"] == "bitfit"
    listed = {each["name"]: each["state"] for each in client.get_model_repository_index(headers=headers)}
    assert listed == dict.fromkeys(("a", "score", "three_way", "two_way"), "READY")
    for binary in (True, False):
        texts = http.InferInput("text", [2], "BYTES")
        texts.set_data_from_numpy(np.array(["One text.", "Another, of more words."], object), binary_data=binary)
        wanted = [http.InferRequestedOutput(name, binary_data=binary) for name in ("label", "scores")]
        found = client.infer("a", [texts], outputs=wanted, headers=dict(headers))  # it writes into them
        # The sigmoid of the row's lead, 2, whatever the text.
        np.testing.assert_allclose(found.as_numpy("scores"), [[0.119203, 0.880797]] * 2, atol=1e-6)
        assert [each.decode() if binary else each for each in found.as_numpy("label")] == ["LABEL_1", "LABEL_1"]
    client.unload_model("a", headers=headers)
    assert not client.is_model_ready("a", headers=headers)
    client.load_model("a", headers=headers)
    assert client.is_model_ready("a", headers=headers)
    with pytest.raises(Exception, match="does not have the task 'b'"):
        client.get_model_metadata("b", headers=headers)


@pytest.mark.slow
def test_a_row_that_appears_is_answered_and_sigterm_ends_it_well(serve: Serve, rows: Path, add_row: WriteRow) -> None:
    service = serve("--tasks-dir", rows)
    assert "answering 3 tasks" in service.first
    add_row("late", lead=2.0)
    end = time.monotonic() + PATIENCE
    while "late" not in [each["name"] for each in service.post("/v2/repository/index", {})]:
        assert time.monotonic() < end
        time.sleep(0.1)
    (answer,) = service.post("/predict", {"task": "late", "texts": ["A text."]})["answers"]
    assert answer == {"task": "late", "label": "LABEL_1", "score": 0.880797}
    assert service.end(signal.SIGTERM) == 0
    events = [json.loads(line) for line in service.log]
    assert {"event": "row loaded", "task": "late"}.items() <= next(each for each in events if each.get("task")).items()


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (["--memory", "0"], "--memory is 0, expected 1 or more"),
        (["--port", "70000"], "--port is 70000, expected 0 to 65535"),
        (["--tasks-dir", "nowhere"], "the folder of rows nowhere cannot be read: No such file or directory"),
        (["--tokens", "nowhere"], "the tokens in nowhere cannot be read"),
        (["--timeout", "nan"], "--timeout more than 0"),
        (["--host", "no.such.host.invalid"], "cannot be listened at"),
    ],
)
def test_bad_options_are_one_clear_error(
    tiny_bundle: Path, words: list[str], message: str, capsys: pytest.CaptureFixture[str]
) -> None:
    from bitfit_export.cli import main

    assert main(["serve", str(tiny_bundle), *words]) == 2
    assert message in capsys.readouterr().err


def test_a_port_that_is_taken_is_one_clear_error(tiny_bundle: Path, capsys: pytest.CaptureFixture[str]) -> None:
    from bitfit_export.cli import main

    with socket.create_server(("127.0.0.1", 0)) as taken:
        port = taken.getsockname()[1]
        assert main(["serve", str(tiny_bundle), "--port", str(port)]) == 2
    assert f"port {port} of 127.0.0.1 cannot be listened at: Address already in use" in capsys.readouterr().err
