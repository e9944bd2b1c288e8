"""Plain JSON: `POST /predict`, and the same for clients of text-embeddings-inference under `/tei/{task}`."""

from __future__ import annotations

from typing import Any

from fastapi import APIRouter, Depends, Request
from pydantic import BaseModel, ConfigDict, Field

from bitfit_export.bundle.row_format import MAX_LABELS
from bitfit_export.errors import InputError
from bitfit_export.runtime.predict.json_answers import json_answer
from bitfit_export.runtime.text.json_text import text_of
from bitfit_export.runtime.text.tokenizer import Text
from bitfit_export.serving.access import ASK
from bitfit_export.serving.front import Front

__all__ = ["predict_routes"]


class TextItem(BaseModel):
    """A text, a pair of texts, the words of a text, or a question and its context."""

    model_config = ConfigDict(extra="forbid")

    task: str | None = None
    text: str | None = None
    text_pair: str | None = None
    tokens: list[str] | None = None
    question: str | None = None
    context: str | None = None


class PredictRequest(BaseModel):
    """Texts and their tasks."""

    model_config = ConfigDict(extra="forbid")

    texts: list[str | TextItem] = Field(min_length=1)
    task: str | None = Field(None, description="the task of every text that names none")
    top_k: int | None = Field(None, ge=1, description="labels or answers for each text, best first")
    truncate: bool = Field(False, description="cut texts that are longer than the model takes")


class PredictAnswer(BaseModel):
    """An answer for each text, in their order."""

    answers: list[dict[str, Any]]


class TeiRequest(BaseModel):
    """What text-embeddings-inference takes at `/predict`."""

    inputs: str | list[str] | list[list[str]]
    truncate: bool = False
    raw_scores: bool = False


def predict_routes(front: Front) -> APIRouter:
    """The routes of plain JSON."""
    router = APIRouter(dependencies=[Depends(front.allow(ASK))], tags=["predict"])
    content = {"application/json": {"examples": _examples(front)}}

    @router.post(
        "/predict",
        summary="Answer texts for any mix of tasks",
        openapi_extra={"requestBody": {"content": content}},
    )
    async def predict(request: PredictRequest, caller: Request) -> PredictAnswer:
        texts, tasks = zip(*(_question(request, place) for place in range(len(request.texts))), strict=True)
        options = {"top_k": request.top_k, "truncate": request.truncate}
        _, answers = await front.ask(caller, texts, tasks, **options)
        ranked = request.top_k is not None
        pairs = zip(tasks, answers, strict=True)
        return PredictAnswer(answers=[json_answer(task, answer, ranked=ranked) for task, answer in pairs])

    @router.post("/tei/{task}/predict", summary="The same for clients of text-embeddings-inference")
    async def predict_as_tei(task: str, request: TeiRequest, caller: Request) -> list[Any]:
        if request.raw_scores:
            raise InputError("raw_scores is true, expected false: scores are probabilities")
        single, texts = _tei_texts(request.inputs)
        tasks = [task] * len(texts)
        _, answers = await front.ask(caller, texts, tasks, top_k=MAX_LABELS, truncate=request.truncate)
        return answers[0] if single else answers

    return router


def _question(request: PredictRequest, place: int) -> tuple[Text, str]:
    item = request.texts[place]
    if isinstance(item, str):
        text: Text = item
        task = request.task
    else:
        text = text_of(item.model_dump(exclude_none=True, exclude={"task"}), f"text {place}")
        task = item.task or request.task
    if task is None:
        raise InputError(f"text {place} names no task", hint='give "task" once, or with each text')
    return text, task


def _tei_texts(inputs: str | list[str] | list[list[str]]) -> tuple[bool, list[Text]]:
    """The texts, and whether they stand for one alone: a text, or a pair as a list of two."""
    if isinstance(inputs, str):
        return True, [inputs]
    if all(isinstance(each, str) for each in inputs):
        return True, [_tei_text(inputs)]
    return False, [_tei_text(each) for each in inputs]


def _tei_text(parts: Any) -> Text:
    if len(parts) == 1:
        return str(parts[0])
    if len(parts) == 2:
        return str(parts[0]), str(parts[1])
    raise InputError(f"a text has {len(parts)} parts, expected one, or two for a pair")


def _examples(front: Front) -> dict[str, Any]:
    """Requests that this service answers, for the page of the API."""
    for name in front.service.session.tasks:
        kind = front.service.describe(name).problem_type
        if kind == "span":
            continue
        return {"one task": {"value": {"task": name, "texts": ["What a lovely day"]}}}
    return {}
