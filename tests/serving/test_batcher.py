"""The batcher alone: what it runs together, in which order, and what becomes of requests that go wrong."""

from __future__ import annotations

import threading
from collections.abc import Iterator, Sequence
from contextlib import ExitStack
from typing import Any

import numpy as np
import pytest

from bitfit_export.bundle.interface import TASK_IDS
from bitfit_export.errors import InputError
from bitfit_export.runtime.predict.chunks import Chunk
from bitfit_export.runtime.predict.jobs import Job
from bitfit_export.runtime.tasks.task_store import Feeds, LoadedTask
from bitfit_export.runtime.text.tokenizer import TokenIds
from bitfit_export.serving.batcher import Batcher, BatchLimits
from bitfit_export.serving.failures import BusyServiceError, ClosedServiceError, FailedBatchError, TimedOutError

SCORE = LoadedTask("score", "regression", (), 1, 1)
#: What an engine would hold of the table; which it is decides what may run together.
TABLE, OTHER_TABLE = object(), object()
PATIENCE = 10.0


class FakeLease:
    """Gives each text the slot of its number."""

    def __init__(self, bound: object = TABLE) -> None:
        self.bound = bound

    def feeds(self, places: Sequence[int] | None = None) -> Feeds:
        return Feeds(self.bound, {TASK_IDS: np.array(places, np.int64)})


class Model:
    """A model whose answer for a text is its first token plus its slot / 1000, and which waits until it may run."""

    def __init__(self) -> None:
        self.batches: list[list[int]] = []
        self.may_run = threading.Event()
        self.may_run.set()
        self.started = threading.Event()

    def __call__(self, chunks: Sequence[Chunk], feeds: Feeds, outputs: Sequence[str]) -> list[np.ndarray]:
        self.started.set()
        assert self.may_run.wait(PATIENCE)
        firsts = [chunk.tokens.ids[0] for chunk in chunks]
        self.batches.append(firsts)
        if 666 in firsts:
            raise InputError("has a token that the model lacks")
        slots = feeds.arrays[TASK_IDS]
        return [np.array([first + slot / 1000], np.float32) for first, slot in zip(firsts, slots, strict=True)]


@pytest.fixture
def model() -> Model:
    return Model()


@pytest.fixture
def open_batcher(model: Model) -> Iterator[Any]:
    opened: list[Batcher] = []

    def open_one(**limits: Any) -> Batcher:
        opened.append(Batcher(model, BatchLimits(**{"wait": 0.0, **limits})))
        return opened[-1]

    yield open_one
    model.may_run.set()
    for each in opened:
        each.close()


def ask(batcher: Batcher, *texts: tuple[int, int], bound: object = TABLE, left: list[str] | None = None) -> Any:
    """A request whose texts are given by their first tokens and lengths."""
    chunks = [Chunk(item, TokenIds([first] * length, [])) for item, (first, length) in enumerate(texts)]
    job = Job([""] * len(texts), [SCORE] * len(texts), FakeLease(bound), False, chunks, None, 30)  # type: ignore[arg-type]
    stack = ExitStack()
    if left is not None:
        stack.callback(left.append, "left")
    return batcher.submit(job, stack)


def hold(model: Model, batcher: Batcher) -> Any:
    """Let the model run a first text until `may_run` is set, so that what is asked meanwhile waits."""
    model.may_run.clear()
    first = ask(batcher, (1, 1))
    assert model.started.wait(PATIENCE)
    return first


def test_each_text_has_its_own_answer(open_batcher: Any) -> None:
    answers = ask(open_batcher(), (7, 3), (5, 4)).result(PATIENCE)
    assert [each["score"] for each in answers] == pytest.approx([7.0, 5.001])


def test_texts_of_different_requests_run_together(model: Model, open_batcher: Any) -> None:
    batcher = open_batcher()
    hold(model, batcher)
    waiting = [ask(batcher, (number, 4)) for number in (2, 3, 4)]
    model.may_run.set()
    assert [each.result(PATIENCE)[0]["score"] for each in waiting] == [2.0, 3.0, 4.0]
    assert model.batches == [[1], [2, 3, 4]]


def test_texts_that_read_different_tables_do_not(model: Model, open_batcher: Any) -> None:
    batcher = open_batcher()
    hold(model, batcher)
    waiting = [ask(batcher, (2, 4)), ask(batcher, (3, 4), bound=OTHER_TABLE), ask(batcher, (4, 4))]
    model.may_run.set()
    for each in waiting:
        each.result(PATIENCE)
    assert model.batches == [[1], [2, 4], [3]]


def test_a_batch_has_at_most_its_tokens_with_padding(model: Model, open_batcher: Any) -> None:
    batcher = open_batcher(batch_tokens=12)
    hold(model, batcher)
    waiting = [ask(batcher, (2, 4), (3, 4), (4, 4), (5, 4))]
    model.may_run.set()
    waiting[0].result(PATIENCE)
    assert model.batches == [[1], [2, 3, 4], [5]]


def test_a_batch_has_at_most_its_items(model: Model, open_batcher: Any) -> None:
    batcher = open_batcher(batch_size=2)
    hold(model, batcher)
    waiting = ask(batcher, (2, 4), (3, 4), (4, 4))
    model.may_run.set()
    waiting.result(PATIENCE)
    assert model.batches == [[1], [2, 3], [4]]


def test_a_batch_takes_the_texts_that_are_of_similar_length(model: Model, open_batcher: Any) -> None:
    batcher = open_batcher(batch_tokens=40)
    hold(model, batcher)
    waiting = [ask(batcher, (2, 10)), ask(batcher, (3, 40)), ask(batcher, (4, 9))]
    model.may_run.set()
    for each in waiting:
        each.result(PATIENCE)
    assert model.batches == [[1], [2, 4], [3]]


def test_a_text_longer_than_a_batch_runs_alone(model: Model, open_batcher: Any) -> None:
    batcher = open_batcher(batch_tokens=16)
    assert ask(batcher, (9, 50)).result(PATIENCE)[0]["score"] == 9.0


def test_a_short_request_does_not_wait_for_all_of_a_long_one(model: Model, open_batcher: Any) -> None:
    batcher = open_batcher(batch_size=1)
    hold(model, batcher)
    long = ask(batcher, *((100 + number, 10) for number in range(20)))
    short = ask(batcher, (7, 10))
    model.may_run.set()
    short.result(PATIENCE)
    long.result(PATIENCE)
    assert [7] in model.batches[:4]


def test_a_request_that_the_model_refuses_fails_alone(model: Model, open_batcher: Any) -> None:
    batcher = open_batcher()
    hold(model, batcher)
    good, bad, other = ask(batcher, (2, 4)), ask(batcher, (666, 4)), ask(batcher, (3, 4))
    model.may_run.set()
    assert good.result(PATIENCE)[0]["score"] == 2.0
    assert other.result(PATIENCE)[0]["score"] == 3.0
    with pytest.raises(InputError, match="a token that the model lacks"):
        bad.result(PATIENCE)


def test_an_unexpected_error_is_the_services_own(open_batcher: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    batcher = open_batcher()
    monkeypatch.setattr(Job, "read", lambda *values: {}["gone"])
    with pytest.raises(FailedBatchError, match="the batch failed"):
        ask(batcher, (2, 4)).result(PATIENCE)


def test_a_full_queue_is_refused_with_the_time_to_wait(model: Model, open_batcher: Any) -> None:
    batcher = open_batcher(queue_tokens=10)
    hold(model, batcher)
    ask(batcher, (2, 8))
    with pytest.raises(BusyServiceError, match="8 tokens wait for their turn, expected at most 10") as caught:
        ask(batcher, (3, 8))
    assert caught.value.retry_after == 1


def test_a_request_larger_than_the_queue_is_taken_when_nothing_waits(open_batcher: Any) -> None:
    assert ask(open_batcher(queue_tokens=10), (2, 80)).result(PATIENCE)


def test_a_request_that_waits_too_long_is_given_up(model: Model, open_batcher: Any) -> None:
    batcher = open_batcher(timeout=0.05)
    hold(model, batcher)
    left: list[str] = []
    late = ask(batcher, (2, 4), left=left)
    threading.Event().wait(0.1)
    model.may_run.set()
    with pytest.raises(TimedOutError, match=r"not answered within 0\.05 seconds"):
        late.result(PATIENCE)
    batcher.close()
    assert model.batches == [[1]]
    assert left == ["left"]


def test_what_waits_of_a_cancelled_request_is_not_run(model: Model, open_batcher: Any) -> None:
    batcher = open_batcher()
    hold(model, batcher)
    left: list[str] = []
    assert ask(batcher, (2, 4), left=left).cancel()
    model.may_run.set()
    batcher.close()
    assert model.batches == [[1]]
    assert left == ["left"]


def test_rows_are_given_back_once_nothing_of_a_request_runs(model: Model, open_batcher: Any) -> None:
    batcher = open_batcher(batch_size=1)
    left: list[str] = []
    ask(batcher, (2, 4), (3, 4), (666, 4), left=left)
    batcher.close()
    assert left == ["left"]


def test_a_closed_batcher_has_answered_what_waited_and_takes_no_more(model: Model, open_batcher: Any) -> None:
    batcher = open_batcher()
    hold(model, batcher)
    waiting = ask(batcher, (2, 4))
    model.may_run.set()
    batcher.close()
    assert waiting.result(0)[0]["score"] == 2.0
    assert not batcher.alive
    with pytest.raises(ClosedServiceError):
        ask(batcher, (3, 4))
