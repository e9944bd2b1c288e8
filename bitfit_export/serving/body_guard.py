"""Bounds on the body of a request: its size, and the time that a slow client takes to send it."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from dataclasses import dataclass

from starlette.responses import JSONResponse
from starlette.types import ASGIApp, Message, Receive, Scope, Send

__all__ = ["BodyGuard", "BodyLimits"]


@dataclass(frozen=True)
class BodyLimits:
    """The most bytes of a body, and the most seconds until it is there."""

    size: int = 1 << 20
    seconds: float = 10.0


class BodyGuard:
    """Reads the whole body before the application sees a request, and refuses one that is too large or too slow.

    A body that is too large is not read to its end: the connection is closed after the refusal.
    """

    def __init__(self, app: ASGIApp, limits: BodyLimits, on_refusal: Callable[[int], None]) -> None:
        self._app = app
        self._limits = limits
        self._on_refusal = on_refusal  # is told the status

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] != "http":
            await self._app(scope, receive, send)
            return
        limits = self._limits
        declared = dict(scope["headers"]).get(b"content-length", b"0")
        if declared.isdigit() and int(declared) > limits.size:
            await self._refuse(
                413, f"the body has {int(declared)} bytes, expected at most {limits.size}", scope, receive, send
            )
            return
        try:
            body = await asyncio.wait_for(self._read(receive), limits.seconds)
        except TimeoutError:
            await self._refuse(408, f"the body was not there within {limits.seconds:g} seconds", scope, receive, send)
            return
        if body is None:
            return  # the client is gone
        if len(body) > limits.size:
            await self._refuse(413, f"the body has more than {limits.size} bytes", scope, receive, send)
            return
        await self._app(scope, _Replay(body, receive), send)

    async def _read(self, receive: Receive) -> bytes | None:
        """The body, or the beginning of one that is too large; None if the client went before its end."""
        parts = bytearray()
        while True:
            message = await receive()
            if message["type"] != "http.request":
                return None
            parts += message.get("body", b"")
            if len(parts) > self._limits.size or not message.get("more_body", False):
                return bytes(parts)

    async def _refuse(self, status: int, message: str, scope: Scope, receive: Receive, send: Send) -> None:
        self._on_refusal(status)
        await JSONResponse({"error": message}, status, {"Connection": "close"})(scope, receive, send)


class _Replay:
    """Gives the body that was read, then whatever the client does."""

    def __init__(self, body: bytes, receive: Receive) -> None:
        self._body: bytes | None = body
        self._receive = receive

    async def __call__(self) -> Message:
        if self._body is not None:
            body, self._body = self._body, None
            return {"type": "http.request", "body": body, "more_body": False}
        return await self._receive()
