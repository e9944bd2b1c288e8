"""One queue for the texts of all requests, and the batches that are made of it.

A batch mixes tasks and requests. It starts with the text whose turn it is, and takes others of similar length until its
tokens or items are as many as they may be. Turns are those of start-time fair queueing (Goyal, Vin and Cheng, 1996),
with tokens as the cost: a text's turn comes after what its own request has before it, so a request of a thousand texts
does not keep a later one with a single text waiting.
"""

from __future__ import annotations

import heapq
import itertools
import math
import threading
import time
from collections.abc import Callable, Sequence
from concurrent.futures import Future
from contextlib import AbstractContextManager
from dataclasses import dataclass, field
from typing import Any, Protocol

import numpy as np
from numpy.typing import NDArray

from bitfit_export.errors import BitfitError, first_line
from bitfit_export.runtime.predict.chunks import Chunk
from bitfit_export.runtime.predict.jobs import Job
from bitfit_export.runtime.tasks.task_store import Feeds
from bitfit_export.serving.failures import BusyServiceError, ClosedServiceError, FailedBatchError, TimedOutError

__all__ = ["BatchLimits", "Batcher", "Runner"]

#: How many batches' worth of texts a batch is chosen from.
_LOOK_AHEAD = 4


class Runner(Protocol):
    """What runs a batch, `Predictor.run`."""

    def __call__(self, chunks: Sequence[Chunk], feeds: Feeds, outputs: Sequence[str]) -> list[NDArray[np.float32]]: ...


@dataclass(frozen=True)
class BatchLimits:
    """The limits of a batch and of the queue.

    Attributes:
        batch_size: the most items of a batch.
        batch_tokens: the most tokens of a batch, with its padding; a longer text runs alone.
        wait: seconds that a text waits for company while nothing runs.
        queue_tokens: the most tokens that wait. A request that finds the queue empty is taken whatever its size.
        timeout: seconds after which a request that was not answered is given up.
    """

    batch_size: int = 32
    batch_tokens: int = 512
    wait: float = 0.002
    queue_tokens: int = 65_536
    timeout: float = 30.0


@dataclass(eq=False)
class _Request:
    """A job in the queue: what it waits for, and who waits for it."""

    job: Job
    closing: AbstractContextManager[Any]
    deadline: float
    left: int
    answer: Future[list[Any]] = field(default_factory=Future)


@dataclass(order=True)
class _Entry:
    """A chunk in the queue, in the order of its turn."""

    turn: float
    number: int
    request: _Request = field(compare=False)
    chunk: Chunk = field(compare=False)
    feeds: Feeds = field(compare=False)
    since: float = field(compare=False)

    @property
    def length(self) -> int:
        return len(self.chunk.tokens.ids)


class Batcher:
    """Runs the texts of all requests in one thread of its own.

    Args:
        run: runs a batch.
        limits: of batches and of the queue.
        observe: is told of each batch: its items, its tokens without padding, seconds.

    `submit` may be called by any number of threads. `close` ends the thread.
    """

    def __init__(
        self,
        run: Runner,
        limits: BatchLimits | None = None,
        *,
        observe: Callable[[int, int, float], None] = lambda items, tokens, seconds: None,
    ) -> None:
        self._run = run
        self._limits = limits or BatchLimits()
        self._observe = observe
        self._changed = threading.Condition()
        # The condition's lock guards these.
        self._queue: list[_Entry] = []
        self._waiting_tokens = 0
        self._now_served = 0.0
        self._numbers = itertools.count()
        self._closed = False
        self._seconds_per_token = 0.0
        self._thread = threading.Thread(target=self._serve, name="batcher", daemon=True)
        self._thread.start()

    @property
    def waiting_tokens(self) -> int:
        """How many tokens wait for their turn."""
        return self._waiting_tokens

    @property
    def alive(self) -> bool:
        """Whether requests are answered."""
        return self._thread.is_alive() and not self._closed

    def check_room(self) -> None:
        """Refuse a request before work is put into it.

        Raises:
            BusyServiceError: the queue is full.
            ClosedServiceError: the batcher is closed.
        """
        with self._changed:
            self._check_room(0)

    def submit(self, job: Job, closing: AbstractContextManager[Any]) -> Future[list[Any]]:
        """Queue a job.

        Args:
            closing: is left, as a `with` block is, when nothing of the job runs any more.

        Returns:
            A future of the job's results. If it is cancelled, what waits of the job is not run.

        Raises:
            BusyServiceError: the queue is full. `closing` is the caller's then.
            ClosedServiceError: the batcher is closed.
        """
        now = time.monotonic()
        request = _Request(job, closing, now + self._limits.timeout, len(job.chunks))
        feeds = [job.feeds([chunk]) for chunk in job.chunks]
        with self._changed:
            self._check_room(sum(len(chunk.tokens.ids) for chunk in job.chunks))
            turn = self._now_served
            for chunk, each in zip(job.chunks, feeds, strict=True):
                entry = _Entry(turn, next(self._numbers), request, chunk, each, now)
                heapq.heappush(self._queue, entry)
                self._waiting_tokens += entry.length
                turn += entry.length
            self._changed.notify()
        return request.answer

    def close(self) -> None:
        """End the thread once the queue is empty; requests that come meanwhile are refused."""
        with self._changed:
            self._closed = True
            self._changed.notify()
        self._thread.join()

    def _check_room(self, tokens: int) -> None:
        """The lock is held."""
        if self._closed or not self._thread.is_alive():
            raise ClosedServiceError("the service is ending")
        if self._waiting_tokens and self._waiting_tokens + tokens > self._limits.queue_tokens:
            seconds = math.ceil(self._waiting_tokens * self._seconds_per_token)
            raise BusyServiceError(
                f"{self._waiting_tokens} tokens wait for their turn, expected at most {self._limits.queue_tokens}",
                retry_after=max(1, seconds),
            )

    def _serve(self) -> None:
        while batch := self._next_batch():
            start = time.monotonic()
            self._answer(batch)
            seconds = time.monotonic() - start
            tokens = sum(entry.length for entry in batch)
            with self._changed:
                self._seconds_per_token += 0.1 * (seconds / tokens - self._seconds_per_token)
            self._observe(len(batch), tokens, seconds)

    def _next_batch(self) -> list[_Entry]:
        """The next batch, when there is one; an empty one at the end."""
        with self._changed:
            while True:
                self._drop_given_up()
                if not self._queue:
                    if self._closed:
                        return []
                    self._changed.wait()
                    continue
                rest = self._queue[0].since + self._limits.wait - time.monotonic()
                if rest <= 0 or self._closed or self._waiting_tokens >= self._limits.batch_tokens:
                    return self._take_batch()
                self._changed.wait(rest)

    def _drop_given_up(self) -> None:
        """Take what nobody waits for from the head of the queue; the lock is held."""
        now = time.monotonic()
        while self._queue:
            request = self._queue[0].request
            if not request.answer.done() and now < request.deadline:
                return
            entry = heapq.heappop(self._queue)
            self._waiting_tokens -= entry.length
            if not request.answer.done():
                timeout = self._limits.timeout
                _fail(request, TimedOutError(f"the request was not answered within {timeout:g} seconds"))
            _finish(request)

    def _take_batch(self) -> list[_Entry]:
        """The head of the queue, and what fits to it best among those whose turn is next; the lock is held."""
        limits = self._limits
        first = heapq.heappop(self._queue)
        near = [heapq.heappop(self._queue) for _ in range(min(len(self._queue), _LOOK_AHEAD * limits.batch_size))]
        batch, longest = [first], first.length
        others = []
        for entry in sorted(near, key=lambda each: (abs(each.length - first.length), each)):
            widest = max(longest, entry.length)
            fits = len(batch) < limits.batch_size and widest * (len(batch) + 1) <= limits.batch_tokens
            if fits and entry.feeds.bound is first.feeds.bound:
                batch.append(entry)
                longest = widest
            else:
                others.append(entry)
        for entry in others:
            heapq.heappush(self._queue, entry)
        self._now_served = max(self._now_served, first.turn)
        self._waiting_tokens -= sum(entry.length for entry in batch)
        return batch

    def _answer(self, batch: Sequence[_Entry]) -> None:
        """Run a batch; where it fails, run the parts of its requests alone, so that one does not fail another."""
        try:
            feeds = Feeds(batch[0].feeds.bound, _joined([entry.feeds for entry in batch]))
            names = [entry.request.job.output(entry.chunk) for entry in batch]
            outputs = self._run([entry.chunk for entry in batch], feeds, names)
        except Exception as error:
            requests = {id(entry.request): entry.request for entry in batch}
            if len(requests) == 1:
                _fail(batch[0].request, error)
                for entry in batch:
                    _finish(entry.request)
                return
            for request in requests.values():
                self._answer([entry for entry in batch if entry.request is request])
            return
        for entry, values in zip(batch, outputs, strict=True):
            _read(entry, values)


def _joined(feeds: Sequence[Feeds]) -> dict[str, NDArray[Any]]:
    """The arrays that are new in a run, of all its items."""
    return {name: np.concatenate([each.arrays[name] for each in feeds]) for name in feeds[0].arrays}


def _read(entry: _Entry, values: NDArray[np.float32]) -> None:
    request = entry.request
    try:
        if not request.answer.done():
            request.job.read(entry.chunk, values)
            if request.left == 1 and request.answer.set_running_or_notify_cancel():
                request.answer.set_result(request.job.results())
    except Exception as error:
        _fail(request, error)
    _finish(request)


def _fail(request: _Request, error: Exception) -> None:
    if not isinstance(error, BitfitError):
        failure = FailedBatchError(f"the batch failed: {first_line(error)}")
        failure.__cause__ = error
        error = failure
    if not request.answer.done() and request.answer.set_running_or_notify_cancel():
        request.answer.set_exception(error)


def _finish(request: _Request) -> None:
    """One chunk of the request has left the queue and runs no more."""
    request.left -= 1
    if not request.left:
        request.closing.__exit__(None, None, None)
