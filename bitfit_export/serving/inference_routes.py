"""The Open Inference Protocol, version 2, over HTTP: every task is a model. With Triton's extensions to list, load and
unload models, and to send tensors as bytes."""

from __future__ import annotations

import json
from typing import Any

import numpy as np
from fastapi import APIRouter, Depends, Request
from numpy.typing import NDArray
from pydantic import BaseModel, ValidationError
from starlette.concurrency import run_in_threadpool
from starlette.responses import JSONResponse, Response

from bitfit_export import __version__
from bitfit_export.bundle.row_format import MAX_LABELS
from bitfit_export.errors import InputError, shown
from bitfit_export.runtime.tasks.task_store import LoadedTask
from bitfit_export.runtime.text.tokenizer import Text
from bitfit_export.serving.access import ASK, MANAGE
from bitfit_export.serving.failures import UnknownTaskError
from bitfit_export.serving.front import Front
from bitfit_export.serving.tensors import InferRequest, read_texts, write_outputs

__all__ = ["inference_routes"]

_HEADER_LENGTH = "Inference-Header-Content-Length"
_EXTENSIONS = ["model_repository", "binary_tensor_data"]
#: Problem type -> the outputs of a task, with their datatypes.
_OUTPUTS = {
    "single_label": {"label": "BYTES", "score": "FP32", "scores": "FP32"},
    "multi_label": {"label": "BYTES", "score": "FP32", "scores": "FP32"},
    "regression": {"score": "FP32"},
    "token": {"tokens": "BYTES"},
    "span": {"answer": "BYTES", "score": "FP32", "start": "INT64", "end": "INT64"},
}


class IndexRequest(BaseModel):
    """What the index is asked for."""

    ready: bool = False


def inference_routes(front: Front) -> APIRouter:
    """The routes of the protocol."""
    router = APIRouter(prefix="/v2", tags=["Open Inference Protocol"])
    _add_health(router, front)
    _add_models(router, front)
    _add_repository(router, front)
    return router


def _add_health(router: APIRouter, front: Front) -> None:
    @router.get("", summary="The server", dependencies=[Depends(front.allow(ASK))])
    def server() -> dict[str, Any]:
        return {"name": "bitfit", "version": __version__, "extensions": _EXTENSIONS}

    @router.get("/health/live", summary="Whether the process runs")
    def live() -> dict[str, bool]:
        return {"live": True}

    @router.get("/health/ready", summary="Whether requests are answered")
    def ready() -> JSONResponse:
        is_ready = front.service.ready
        return JSONResponse({"ready": is_ready}, 200 if is_ready else 503)


def _add_models(router: APIRouter, front: Front) -> None:
    asking = [Depends(front.allow(ASK))]

    @router.get("/models/{task}/ready", summary="Whether a task is answered", dependencies=asking)
    @router.get("/models/{task}/versions/{version}/ready", include_in_schema=False, dependencies=asking)
    def ready(task: str, version: str | None = None) -> JSONResponse:
        is_ready = front.service.rows.state(task).ready
        if version is not None and is_ready:
            _check_version(front.service.describe(task), version)
        return JSONResponse({"name": task, "ready": is_ready}, 200 if is_ready else 503)

    @router.get("/models/{task}", summary="What a task takes and gives", dependencies=asking)
    @router.get("/models/{task}/versions/{version}", include_in_schema=False, dependencies=asking)
    def metadata(task: str, version: str | None = None) -> dict[str, Any]:
        described = front.service.describe(task)
        _check_version(described, version)
        return _metadata(described)

    @router.post(
        "/models/{task}/infer",
        summary="Answer texts",
        dependencies=asking,
        openapi_extra={"requestBody": {"content": {"application/json": {"example": _example()}}, "required": True}},
    )
    @router.post("/models/{task}/versions/{version}/infer", include_in_schema=False, dependencies=asking)
    async def infer(task: str, request: Request, version: str | None = None) -> Response:
        asked, binary = _read(await request.body(), request.headers.get(_HEADER_LENGTH))
        described = await front.describe(task)
        _check_version(described, version)
        texts = _texts(described, read_texts(asked, binary))
        truncate = bool(asked.parameters.get("truncate", False))
        top_k = MAX_LABELS if described.problem_type in ("single_label", "multi_label") else None
        (described, *_), answers = await front.ask(request, texts, [task] * len(texts), truncate=truncate, top_k=top_k)
        outputs, data = write_outputs(asked, _arrays(described, answers))
        reply = {"model_name": task, "model_version": str(described.task_version), "outputs": outputs}
        if asked.id is not None:
            reply["id"] = asked.id
        if not data:
            return JSONResponse(reply)
        header = json.dumps(reply).encode()
        return Response(
            header + data, headers={_HEADER_LENGTH: str(len(header))}, media_type="application/octet-stream"
        )


def _add_repository(router: APIRouter, front: Front) -> None:
    asking = [Depends(front.allow(ASK))]
    managing = [Depends(front.allow(MANAGE)), Depends(front.change_here)]

    @router.post("/repository/index", summary="All tasks", dependencies=asking)
    def index(request: IndexRequest | None = None) -> list[dict[str, str]]:
        only_ready = request is not None and request.ready
        return [
            {
                "name": state.name,
                "state": "READY" if state.ready else "UNAVAILABLE",
                "reason": state.reason,
            }
            for state in front.service.rows.states()
            if state.ready or not only_ready
        ]

    @router.post("/repository/models/{task}/load", summary="Take a task in, or its row anew", dependencies=managing)
    async def load(task: str) -> dict[str, str]:
        await run_in_threadpool(front.service.rows.load, task)
        return {"name": task}

    @router.post("/repository/models/{task}/unload", summary="Answer a task no more", dependencies=managing)
    async def unload(task: str) -> dict[str, str]:
        await run_in_threadpool(front.service.rows.unload, task)
        return {"name": task}


def _read(body: bytes, header_length: str | None) -> tuple[InferRequest, bytes]:
    """The JSON of a request, and the bytes after it."""
    size = len(body)
    if header_length is not None:
        if not header_length.isdigit() or int(header_length) > size:
            raise InputError(f"{_HEADER_LENGTH} is {shown(header_length)}, expected a length within the body's {size}")
        size = int(header_length)
    try:
        return InferRequest.model_validate_json(body[:size]), body[size:]
    except ValidationError as error:
        first = error.errors(include_input=False, include_url=False)[0]
        place = ".".join(map(str, first["loc"])) or "the body"
        raise InputError(shown(f"{place}: {first['msg']}", 300)) from None


def _check_version(task: LoadedTask, version: str | None) -> None:
    if version not in (None, "", str(task.task_version)):
        raise UnknownTaskError(f"the task {task.name} has version {task.task_version}, not {shown(str(version))}")


def _metadata(task: LoadedTask) -> dict[str, Any]:
    return {
        "name": task.name,
        "versions": [str(task.task_version)],
        "platform": "bitfit_bundle",
        "inputs": [{"name": name, "datatype": "BYTES", "shape": [-1]} for name in _inputs(task)],
        "outputs": [
            {"name": name, "datatype": datatype, "shape": [-1, task.label_count] if name == "scores" else [-1]}
            for name, datatype in _OUTPUTS[task.problem_type].items()
        ],
        "parameters": {"problem_type": task.problem_type, "labels": list(task.labels)},
    }


def _inputs(task: LoadedTask) -> tuple[str, ...]:
    """The inputs that a task takes; a sentence task does without the second."""
    if task.problem_type == "token":
        return ("text",)
    return ("question", "context") if task.problem_type == "span" else ("text", "text_pair")


def _texts(task: LoadedTask, inputs: dict[str, list[str]]) -> list[Text]:
    names = _inputs(task)
    unknown = [name for name in inputs if name not in names]
    needed = names if task.problem_type == "span" else names[:1]
    if unknown or any(name not in inputs for name in needed):
        raise InputError(f"the inputs are {shown(', '.join(inputs))}, expected {' and '.join(needed)}")
    columns = [inputs[name] for name in names if name in inputs]
    if len({len(column) for column in columns}) != 1:
        raise InputError("the inputs have different numbers of texts")
    return list(columns[0]) if len(columns) == 1 else list(zip(*columns, strict=True))


def _arrays(task: LoadedTask, answers: list[Any]) -> dict[str, NDArray[Any]]:
    """The outputs of a task's answers."""
    if task.problem_type == "token":
        return {"tokens": np.array([json.dumps(words, ensure_ascii=False) for words in answers], object)}
    if task.problem_type == "regression":
        return {"score": np.array([answer["score"] for answer in answers], np.float32)}
    if task.problem_type == "span":
        columns: dict[str, NDArray[Any]] = {"answer": np.array([answer["answer"] for answer in answers], object)}
        columns["score"] = np.array([answer["score"] for answer in answers], np.float32)
        for name in ("start", "end"):
            columns[name] = np.array([answer[name] for answer in answers], np.int64)
        return columns
    place = {label: index for index, label in enumerate(task.labels)}
    scores = np.zeros((len(answers), task.label_count), np.float32)
    for item, ranked in enumerate(answers):
        for each in ranked:
            scores[item, place[each["label"]]] = each["score"]
    return {
        "label": np.array([ranked[0]["label"] for ranked in answers], object),
        "score": np.array([ranked[0]["score"] for ranked in answers], np.float32),
        "scores": scores,
    }


def _example() -> dict[str, Any]:
    return {"inputs": [{"name": "text", "shape": [1], "datatype": "BYTES", "data": ["What a lovely day"]}]}
