"""The HTTP application: plain JSON, the Open Inference Protocol, and how each thing that is wrong is refused."""

from __future__ import annotations

import asyncio
import json
import logging
import struct
from collections.abc import Callable, Iterator, MutableMapping
from pathlib import Path
from typing import Any, TypeAlias

import numpy as np
import pytest

from bitfit_export.runtime import BiasSession
from tests.serving.conftest import OpenService, WriteRow

pytest.importorskip("fastapi", reason="needs bitfit-export[serve]")
from starlette.testclient import TestClient

from bitfit_export.serving.access import Access
from bitfit_export.serving.app import make_app
from bitfit_export.serving.batcher import BatchLimits
from bitfit_export.serving.body_guard import BodyLimits
from bitfit_export.serving.front import Front

ASKER, MANAGER = "a" * 20, "m" * 20
TEXT = "A text that is as good as any."
Open: TypeAlias = Callable[..., TestClient]


@pytest.fixture
def open_client(open_service: OpenService) -> Iterator[Open]:
    opened: list[TestClient] = []

    def open_one(*, tokens: dict[str, str] | None = None, body: BodyLimits | None = None, **options: Any) -> TestClient:
        app = make_app(Front(open_service(**options), Access(tokens)), body=body)
        opened.append(TestClient(app, raise_server_exceptions=False).__enter__())
        return opened[-1]

    yield open_one
    for each in opened:
        each.__exit__(None, None, None)


@pytest.fixture
def client(open_client: Open) -> TestClient:
    return open_client()


def infer(*texts: str, **fields: Any) -> dict[str, Any]:
    return {"inputs": [{"name": "text", "shape": [len(texts)], "datatype": "BYTES", "data": list(texts)}], **fields}


def tensor(**fields: Any) -> dict[str, Any]:
    return {"name": "text", "shape": [1], "datatype": "BYTES", "data": ["a"], **fields}


def outputs_of(reply: dict[str, Any]) -> dict[str, list[Any]]:
    return {each["name"]: each["data"] for each in reply["outputs"]}


def bearer(token: str) -> dict[str, str]:
    return {"Authorization": f"Bearer {token}"}


class TestPredict:
    def test_the_answers_are_the_sessions(self, client: TestClient, session: BiasSession) -> None:
        texts = [TEXT, {"text": "one", "text_pair": "two"}, {"task": "score", "text": TEXT}]
        answers = client.post("/predict", json={"task": "two_way", "texts": texts}).json()["answers"]
        expected = session.predict([TEXT, ("one", "two"), TEXT], ["two_way", "two_way", "score"])
        assert [each.pop("task") for each in answers] == ["two_way", "two_way", "score"]
        assert [each.get("label") for each in answers] == [each.get("label") for each in expected]
        assert [each["score"] for each in answers] == pytest.approx([each["score"] for each in expected], abs=2e-6)

    def test_top_k_ranks(self, client: TestClient, session: BiasSession) -> None:
        body = {"task": "three_way", "texts": [TEXT], "top_k": 2}
        (answer,) = client.post("/predict", json=body).json()["answers"]
        expected = session.predict([TEXT], "three_way", top_k=2)[0]
        assert [each["label"] for each in answer["answers"]] == [each["label"] for each in expected]

    def test_a_client_of_text_embeddings_inference_is_answered(self, client: TestClient, session: BiasSession) -> None:
        single = client.post("/tei/two_way/predict", json={"inputs": TEXT}).json()
        assert [each["label"] for each in single] == [
            each["label"] for each in session.predict([TEXT], "two_way", top_k=2)[0]
        ]
        batch = client.post("/tei/two_way/predict", json={"inputs": [[TEXT], ["one", "two"]]}).json()
        assert batch[0] == single
        assert len(batch) == 2

    @pytest.mark.parametrize(
        ("body", "status", "words"),
        [
            ({"texts": [TEXT]}, 400, "text 0 names no task"),
            ({"task": "two_way", "texts": []}, 400, "texts: List should have at least 1 item"),
            ({"task": "two_way"}, 400, "texts: Field required"),
            ({"task": "two_way", "texts": [5]}, 400, "texts"),
            ({"task": "two_way", "texts": [{"txt": "a"}]}, 400, "texts"),
            ({"task": "two_way", "texts": [{"text_pair": "a"}]}, 400, "text 0 has text_pair, expected text"),
            ({"task": "none", "texts": [TEXT]}, 404, "does not have the task 'none'"),
            ({"task": "two_way", "texts": ["word " * 100]}, 400, "item 0 "),
            ({"task": "two_way", "texts": [TEXT], "top_k": 0}, 400, "top_k"),
            ({"task": "two_way", "texts": [TEXT] * 1025}, 413, "the request has 1025 texts, expected at most 1024"),
            ({"task": "two_way", "texts": [{"tokens": ["a", "b"]}]}, 400, "item 0 is a list of words"),
        ],
    )
    def test_what_cannot_be_answered_is_refused(
        self, client: TestClient, body: dict[str, Any], status: int, words: str
    ) -> None:
        reply = client.post("/predict", json=body)
        assert reply.status_code == status
        assert words in reply.json()["error"]

    def test_a_text_that_is_too_long_is_cut_on_request(self, client: TestClient) -> None:
        body = {"task": "two_way", "texts": ["word " * 100], "truncate": True}
        assert client.post("/predict", json=body).status_code == 200

    @pytest.mark.parametrize("content", [b"", b"{", b"[]", b"\xff", b"null", b'{"a":' * 10_000])
    def test_a_body_that_is_not_such_json_is_refused(self, client: TestClient, content: bytes) -> None:
        reply = client.post("/predict", content=content, headers={"Content-Type": "application/json"})
        assert reply.status_code == 400
        assert reply.json()["error"]

    def test_no_error_has_the_text_in_it(self, client: TestClient) -> None:
        reply = client.post("/predict", json={"task": "two_way", "texts": ["a secret"], "top_k": "a secret"})
        assert "secret" not in reply.text


class TestProtocol:
    def test_the_server_is_live_and_ready(self, client: TestClient) -> None:
        assert client.get("/v2/health/live").status_code == 200
        assert client.get("/v2/health/ready").status_code == 200
        assert client.get("/v2").json()["extensions"] == ["model_repository", "binary_tensor_data"]

    def test_every_task_is_a_model(self, client: TestClient) -> None:
        index = client.post("/v2/repository/index", json={}).json()
        assert [each["name"] for each in index] == ["score", "three_way", "two_way"]
        assert {each["state"] for each in index} == {"READY"}
        model = client.get("/v2/models/three_way").json()
        assert model["versions"] == ["1"]
        assert model["outputs"][2] == {"name": "scores", "datatype": "FP32", "shape": [-1, 3]}
        assert client.get("/v2/models/three_way/ready").status_code == 200
        assert client.get("/v2/models/none/ready").status_code == 404

    def test_scores_are_in_the_order_of_the_labels(self, client: TestClient, session: BiasSession) -> None:
        reply = client.post("/v2/models/three_way/infer", json=infer(TEXT, "b", id="7")).json()
        assert reply["id"] == "7"
        outputs = {each["name"]: each for each in reply["outputs"]}
        expected = {each["label"]: each["score"] for each in session.predict([TEXT], "three_way", top_k=3)[0]}
        assert outputs["scores"]["shape"] == [2, 3]
        in_order = [expected[each] for each in session.labels("three_way")]
        assert outputs["scores"]["data"][:3] == pytest.approx(in_order, abs=1e-6)
        assert outputs["label"]["data"][0] == max(expected, key=lambda each: expected[each])

    def test_a_regression_has_a_score_alone(self, client: TestClient, session: BiasSession) -> None:
        (output,) = client.post("/v2/models/score/infer", json=infer(TEXT)).json()["outputs"]
        assert output["name"] == "score"
        assert output["data"] == pytest.approx([session.predict(TEXT, "score")[0]["score"]], abs=1e-6)

    def test_tensors_go_as_bytes_both_ways(self, client: TestClient) -> None:
        texts = (TEXT, "ü")
        expected = outputs_of(client.post("/v2/models/two_way/infer", json=infer(*texts)).json())
        data = b"".join(struct.pack("<I", len(each.encode())) + each.encode() for each in texts)
        request = infer(*texts, parameters={"binary_data_output": True})
        request["inputs"][0] |= {"data": None, "parameters": {"binary_data_size": len(data)}}
        header = json.dumps(request).encode()
        headers = {"Inference-Header-Content-Length": str(len(header))}
        reply = client.post("/v2/models/two_way/infer", content=header + data, headers=headers)
        size = int(reply.headers["Inference-Header-Content-Length"])
        rest = reply.content[size:]
        found: dict[str, bytes] = {}
        for each in json.loads(reply.content[:size])["outputs"]:
            length = each["parameters"]["binary_data_size"]
            found[each["name"]], rest = rest[:length], rest[length:]
        assert not rest
        assert np.frombuffer(found["scores"], "<f4").tolist() == pytest.approx(expected["scores"])
        label = expected["label"][0].encode()
        assert found["label"].startswith(struct.pack("<I", len(label)) + label)

    @pytest.mark.parametrize(
        ("body", "words"),
        [
            (infer(TEXT, outputs=[{"name": "logits"}]), "there is no output 'logits', expected one of label"),
            ({"inputs": []}, "inputs: List should have at least 1 item"),
            ({"inputs": [tensor(shape=[2])]}, "has 1 elements, expected 2"),
            ({"inputs": [tensor(datatype="FP32")]}, "expected BYTES"),
            ({"inputs": [tensor(data=[1])]}, "data that is no text"),
            ({"inputs": [tensor(data=None)]}, "has no data"),
            ({"inputs": [tensor(shape=[1, 2], data=["a", "b"])]}, "expected [texts]"),
            ({"inputs": [tensor(name="ids")]}, "the inputs are ids, expected text"),
            ({"inputs": [tensor(), tensor()]}, "is there twice"),
            ({"inputs": [tensor(), tensor(name="text_pair", shape=[0], data=[])]}, "different numbers of texts"),
            ({"inputs": [tensor(parameters={"binary_data_size": 9})]}, "binary_data_size that the body does not have"),
        ],
    )
    def test_a_wrong_tensor_is_refused(self, client: TestClient, body: dict[str, Any], words: str) -> None:
        reply = client.post("/v2/models/two_way/infer", json=body)
        assert reply.status_code == 400
        assert words in reply.json()["error"]

    @pytest.mark.parametrize("data", [b"\x05\0\0\0abcd", b"\x01\0", b"\x01\0\0\0\xff", b"\xff\xff\xff\xff"])
    def test_bytes_that_are_no_texts_are_refused(self, client: TestClient, data: bytes) -> None:
        header = json.dumps({"inputs": [tensor(data=None, parameters={"binary_data_size": len(data)})]}).encode()
        headers = {"Inference-Header-Content-Length": str(len(header))}
        assert client.post("/v2/models/two_way/infer", content=header + data, headers=headers).status_code == 400
        assert client.post("/v2/models/two_way/infer", content=header, headers=headers).status_code == 400

    def test_another_version_is_not_there(self, client: TestClient) -> None:
        assert client.post("/v2/models/two_way/versions/1/infer", json=infer(TEXT)).status_code == 200
        assert client.post("/v2/models/two_way/versions/2/infer", json=infer(TEXT)).status_code == 404

    def test_rows_of_the_folder_are_models(self, open_client: Open, rows: Path, add_row: WriteRow) -> None:
        add_row("a", lead=2.0, version=7)
        (rows / "bad.bias").write_bytes(b"nothing")
        client = open_client(tasks_dir=rows)
        assert client.get("/v2/models/a").json()["versions"] == ["7"]
        outputs = client.post("/v2/models/a/infer", json=infer(TEXT)).json()["outputs"]
        assert outputs[2]["data"] == pytest.approx([0.119203, 0.880797], abs=1e-6)  # the sigmoid of the lead, 2
        assert client.post("/v2/models/bad/infer", json=infer(TEXT)).status_code == 422
        states = {each["name"]: each for each in client.post("/v2/repository/index").json()}
        assert states["a"]["state"] == "READY"
        assert states["bad"]["state"] == "UNAVAILABLE"
        assert "truncated header" in states["bad"]["reason"]
        assert "bad" not in [each["name"] for each in client.post("/v2/repository/index", json={"ready": True}).json()]


class TestAccess:
    def test_who_has_no_token_is_told_how(self, open_client: Open) -> None:
        client = open_client(tokens={ASKER: "ask"})
        for path in ("/v2", "/metrics", "/v2/models/two_way"):
            reply = client.get(path)
            assert reply.status_code == 401
            assert reply.headers["WWW-Authenticate"] == "Bearer"
        assert client.post("/predict", json={"task": "two_way", "texts": [TEXT]}).status_code == 401
        assert client.get("/v2/health/ready").status_code == 200

    def test_a_token_asks_and_another_manages(self, open_client: Open, rows: Path, add_row: WriteRow) -> None:
        add_row("a")
        client = open_client(tasks_dir=rows, tokens={ASKER: "ask", MANAGER: "manage"})
        body = {"task": "a", "texts": [TEXT]}
        assert client.post("/v2/repository/models/a/unload", headers=bearer(ASKER)).status_code == 403
        assert client.post("/predict", json=body, headers=bearer(ASKER)).status_code == 200
        assert client.post("/v2/repository/models/a/unload", headers=bearer(MANAGER)).status_code == 200
        assert client.post("/predict", json=body, headers=bearer(ASKER)).status_code == 404
        assert client.post("/v2/repository/models/a/load", headers=bearer(MANAGER)).status_code == 200
        assert client.post("/predict", json=body, headers=bearer(ASKER)).status_code == 200

    def test_without_tokens_nobody_manages(self, client: TestClient) -> None:
        assert client.post("/v2/repository/models/two_way/unload").status_code == 403


class TestLimits:
    def test_a_body_that_says_it_is_too_large_is_not_read(self, open_client: Open) -> None:
        client = open_client(body=BodyLimits(size=1000))
        reply = client.post("/predict", content=b"x" * 1001)
        assert (reply.status_code, reply.json()["error"]) == (413, "the body has 1001 bytes, expected at most 1000")

    def test_a_body_that_does_not_say_so_is_read_to_the_limit(self, open_client: Open) -> None:
        client = open_client(body=BodyLimits(size=1000))
        sent = []

        def parts() -> Iterator[bytes]:
            for _ in range(1000):
                sent.append(100)
                yield b"x" * 100

        assert client.post("/predict", content=parts()).status_code == 413
        assert 'bitfit_failures_total{status="413"} 1.0' in client.get("/metrics").text

    def test_a_full_queue_says_when_to_come_again(self, open_client: Open) -> None:
        client = open_client(limits=BatchLimits(queue_tokens=1))
        batcher = client.app.state.front.service.batcher
        batcher._waiting_tokens = 5
        reply = client.post("/predict", json={"task": "two_way", "texts": [TEXT]})
        batcher._waiting_tokens = 0
        assert reply.status_code == 429
        assert int(reply.headers["Retry-After"]) >= 1


class TestDisconnection:
    """Clients that close their connection."""

    def call(self, client: TestClient, *messages: dict[str, Any]) -> list[int]:
        """The statuses that the application replies to `POST /predict` with."""
        statuses: list[int] = []
        given = iter([*messages, {"type": "http.disconnect"}])

        async def receive() -> dict[str, Any]:
            return next(given)

        async def send(message: MutableMapping[str, Any]) -> None:
            if message["type"] == "http.response.start":
                statuses.append(message["status"])

        headers = [(b"content-type", b"application/json")]
        scope = {"type": "http", "method": "POST", "path": "/predict", "query_string": b"", "headers": headers}
        asyncio.run(client.app(scope, receive, send))
        return statuses

    def test_what_still_waits_is_not_run(self, open_client: Open) -> None:
        client = open_client(limits=BatchLimits(wait=60.0))
        body = json.dumps({"task": "two_way", "texts": [TEXT]}).encode()
        assert self.call(client, {"type": "http.request", "body": body}) == [499]
        batcher = client.app.state.front.service.batcher
        batcher.close()
        assert batcher.waiting_tokens == 0
        assert "bitfit_tokens_total 0.0" in client.get("/metrics").text

    def test_half_a_body_is_not_answered(self, client: TestClient) -> None:
        assert self.call(client, {"type": "http.request", "body": b"{", "more_body": True}) == []


class TestOperations:
    def test_metrics_count_texts_by_task(self, client: TestClient) -> None:
        client.post("/predict", json={"task": "two_way", "texts": [TEXT, "b"]})
        client.post("/predict", json={"task": "none", "texts": [TEXT]})
        text = client.get("/metrics").text
        assert 'bitfit_texts_total{task="two_way"} 2.0' in text
        assert 'bitfit_failures_total{status="404"} 1.0' in text
        assert '"none"' not in text
        assert "bitfit_rows_in_memory 3.0" in text

    def test_the_log_has_requests_and_no_text(self, client: TestClient, caplog: pytest.LogCaptureFixture) -> None:
        with caplog.at_level(logging.INFO, logger="bitfit.serve"):
            client.post("/predict", json={"task": "two_way", "texts": ["a secret"]}, headers={"X-Request-Id": "r7"})
        (record,) = [each for each in caplog.records if each.getMessage() == "request"]
        assert record.fields["request"] == "r7"
        assert record.fields["status"] == 200
        assert "secret" not in str(record.__dict__)

    def test_the_page_of_the_api_has_an_example_that_runs(self, client: TestClient) -> None:
        described = client.get("/openapi.json").json()["paths"]
        content = described["/predict"]["post"]["requestBody"]["content"]["application/json"]
        (example,) = content["examples"].values()
        assert client.post("/predict", json=example["value"]).status_code == 200
        example = described["/v2/models/{task}/infer"]["post"]["requestBody"]["content"]["application/json"]["example"]
        assert client.post("/v2/models/two_way/infer", json=example).status_code == 200
        assert client.get("/docs").status_code == 200

    def test_an_unexpected_fault_is_500_and_in_the_log(
        self, client: TestClient, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
    ) -> None:
        def fail(*values: Any, **named: Any) -> None:
            raise ZeroDivisionError("a secret")

        monkeypatch.setattr("bitfit_export.serving.service.Service.ask", fail)
        reply = client.post("/predict", json={"task": "two_way", "texts": [TEXT]})
        assert (reply.status_code, reply.json()["error"]) == (500, "the service failed; its log says why")
        assert "ZeroDivisionError" in caplog.text
