"""What all routes of the application share: the service, who may ask it, and how an answer is waited for."""

from __future__ import annotations

import asyncio
import time
from collections import Counter
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from typing import Any

from fastapi import Request
from starlette.concurrency import run_in_threadpool

from bitfit_export.runtime.tasks.task_store import LoadedTask
from bitfit_export.runtime.text.tokenizer import Text
from bitfit_export.serving.access import Access, ForbiddenError
from bitfit_export.serving.events import Observer
from bitfit_export.serving.failures import ClientGoneError, TimedOutError
from bitfit_export.serving.metrics import Metrics
from bitfit_export.serving.service import Service

__all__ = ["Front"]


@dataclass
class Front:
    """What the routes share.

    Attributes:
        service: what answers.
        access: who may ask it.
        observer: is told of requests.
        alone: whether no other process answers for the same tasks. A request can only change the tasks of one.
    """

    service: Service
    access: Access = field(default_factory=Access)
    observer: Observer = field(default_factory=Metrics)
    alone: bool = True

    def allow(self, role: str) -> Callable[[Request], None]:
        """A dependency of a route that lets in whoever has this role."""

        def check(request: Request) -> None:
            self.access.check(request.headers.get("authorization"), role)

        return check

    def change_here(self) -> None:
        """A dependency of a route that changes tasks.

        Raises:
            ForbiddenError: other processes answer for the same tasks, and would not know.
        """
        if not self.alone:
            raise ForbiddenError(
                "one of several processes was asked, which cannot change the tasks of all",
                hint="put rows into the folder of --tasks-dir, or take them out of it",
            )

    async def ask(
        self, request: Request, texts: Sequence[Text], tasks: Sequence[str], **options: Any
    ) -> tuple[Sequence[LoadedTask], list[Any]]:
        """The tasks and the results of `Service.ask`, once they are there.

        What still waits of a request is not run when its caller goes away.
        """
        start = time.monotonic()
        found, future = await run_in_threadpool(self.service.ask, texts, tasks, **options)
        results = await _wait_for(asyncio.wrap_future(future), request, self.service.limits.timeout)
        seconds = time.monotonic() - start
        for task, count in Counter(tasks).items():
            self.observer.answered(task, count, seconds)
        return found, results

    async def describe(self, task: str) -> LoadedTask:
        """As `Service.describe`."""
        return await run_in_threadpool(self.service.describe, task)


async def _wait_for(answer: asyncio.Future[list[Any]], request: Request, timeout: float) -> list[Any]:
    """The answer; cancelled where the time is over or the caller has gone."""
    gone = asyncio.ensure_future(_disconnection(request))
    try:
        waiting: set[asyncio.Future[Any]] = {answer, gone}
        await asyncio.wait(waiting, timeout=timeout, return_when=asyncio.FIRST_COMPLETED)
        if answer.done():
            return answer.result()
        if gone.done():
            raise ClientGoneError("the client has closed its connection")
        raise TimedOutError(f"the request was not answered within {timeout:g} seconds")
    finally:
        gone.cancel()
        answer.cancel()


async def _disconnection(request: Request) -> None:
    """Returns when the caller has gone. The request's body has been read by then."""
    while (await request.receive())["type"] != "http.disconnect":
        pass
