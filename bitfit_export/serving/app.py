"""The HTTP application of a service: its routes, what they let in, and how they say no."""

from __future__ import annotations

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

from fastapi import FastAPI, Request
from fastapi.exceptions import RequestValidationError
from prometheus_client import generate_latest
from starlette.concurrency import run_in_threadpool
from starlette.exceptions import HTTPException
from starlette.responses import JSONResponse, Response

from bitfit_export import __version__
from bitfit_export.errors import BitfitError, shown
from bitfit_export.runtime import BiasSession
from bitfit_export.serving.access import ASK, Access, read_tokens
from bitfit_export.serving.body_guard import BodyGuard, BodyLimits
from bitfit_export.serving.events import LOGGER, Observer
from bitfit_export.serving.failures import ServiceError
from bitfit_export.serving.front import Front
from bitfit_export.serving.inference_routes import inference_routes
from bitfit_export.serving.metrics import Metrics, watch_service
from bitfit_export.serving.predict_routes import predict_routes
from bitfit_export.serving.request_log import RequestLog
from bitfit_export.serving.service import Service
from bitfit_export.serving.settings import Settings

__all__ = ["make_app", "open_app"]


def open_app(session: BiasSession, settings: Settings, observer: Observer, *, alone: bool = True) -> FastAPI:
    """The application of a new service.

    Args:
        session: of the bundle; no other may load tasks into it.
        observer: is told what happens.
        alone: whether no other process answers for the same tasks.

    Raises:
        UsageError: the file of tokens cannot be read, or the memory does not hold the bundle's own rows.
        ServiceError: the folder of rows cannot be read.
    """
    access = Access(None if settings.tokens is None else read_tokens(settings.tokens))
    service = Service(
        session,
        tasks_dir=settings.tasks_dir,
        memory=settings.memory * 2**20,
        labels=settings.max_labels,
        limits=settings.limits,
        max_texts=settings.max_texts,
        observer=observer,
    )
    return make_app(Front(service, access, observer, alone), body=BodyLimits(size=settings.max_body * 2**10))


def make_app(front: Front, *, body: BodyLimits | None = None) -> FastAPI:
    """The ASGI application. When it ends, it answers what waits and closes the service."""

    @asynccontextmanager
    async def lifespan(app: FastAPI) -> AsyncIterator[None]:
        yield
        await run_in_threadpool(front.service.close)

    app = FastAPI(
        title="bitfit serve",
        version=__version__,
        description="Answers texts for every task of a bundle. Each task is a model of the Open Inference Protocol.",
        lifespan=lifespan,
    )
    app.state.front = front
    app.include_router(predict_routes(front))
    app.include_router(inference_routes(front))
    if isinstance(front.observer, Metrics):
        _add_metrics(app, front, front.observer)
    _add_failures(app, front)
    app.add_middleware(BodyGuard, limits=body or BodyLimits(), on_refusal=front.observer.failed)
    app.add_middleware(RequestLog)  # around the guard: what it refuses is logged, too
    return app


def _add_metrics(app: FastAPI, front: Front, counted: Metrics) -> None:
    watch_service(counted, front.service)

    @app.get("/metrics", tags=["operations"], summary="What Prometheus reads")
    def metrics(request: Request) -> Response:
        front.allow(ASK)(request)
        return Response(generate_latest(counted.registry), media_type="text/plain; version=0.0.4")


def _add_failures(app: FastAPI, front: Front) -> None:
    """Every error is `{"error": ..., "hint": ...}`, with the status that says whose fault it is."""

    def refused(status: int, message: str, hint: str | None = None, **headers: str) -> JSONResponse:
        front.observer.failed(status)
        content = {"error": message} if hint is None else {"error": message, "hint": hint}
        return JSONResponse(content, status, headers)

    @app.exception_handler(BitfitError)
    async def of_ours(request: Request, error: BitfitError) -> JSONResponse:
        headers = {}
        status = 400
        if isinstance(error, ServiceError):
            status = error.status
            if error.retry_after is not None:
                headers["Retry-After"] = str(error.retry_after)
            if status == 401:
                headers["WWW-Authenticate"] = "Bearer"
        return refused(status, error.message, error.hint, **headers)

    @app.exception_handler(RequestValidationError)
    async def of_a_body(request: Request, error: RequestValidationError) -> JSONResponse:
        first = error.errors()[0]
        place = ".".join(str(each) for each in first["loc"] if each != "body")
        return refused(400, shown(f"{place or 'the body'}: {first['msg']}", 300), "GET /docs shows what a request has")

    @app.exception_handler(HTTPException)
    async def of_http(request: Request, error: HTTPException) -> JSONResponse:
        return refused(error.status_code, str(error.detail))

    @app.exception_handler(Exception)
    async def unexpected(request: Request, error: Exception) -> JSONResponse:
        LOGGER.error("unexpected", exc_info=error)
        return refused(500, "the service failed; its log says why")
