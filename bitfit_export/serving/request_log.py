"""A line of the log for each request, and the number that it is known by."""

from __future__ import annotations

import time
import uuid

from starlette.datastructures import Headers, MutableHeaders
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from bitfit_export.errors import shown
from bitfit_export.serving.events import LOGGER

__all__ = ["RequestLog"]

_NUMBER = "X-Request-Id"


class RequestLog:
    """Logs method, path, status and seconds of each request, and gives the reply the request's number.

    A class of ASGI's own kind, as starlette's `BaseHTTPMiddleware` starts a task for each request.
    """

    def __init__(self, app: ASGIApp) -> None:
        self._app = app

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] != "http":
            await self._app(scope, receive, send)
            return
        number = shown(Headers(scope=scope).get(_NUMBER) or uuid.uuid4().hex)
        start, status = time.monotonic(), 500

        async def numbered(message: Message) -> None:
            nonlocal status
            if message["type"] == "http.response.start":
                status = message["status"]
                MutableHeaders(scope=message)[_NUMBER] = number
            await send(message)

        try:
            await self._app(scope, receive, numbered)
        finally:
            fields = {
                "request": number,
                "method": scope["method"],
                "path": shown(scope["path"], 200),
                "status": status,
                "seconds": round(time.monotonic() - start, 4),
            }
            LOGGER.info("request", extra={"fields": fields})
