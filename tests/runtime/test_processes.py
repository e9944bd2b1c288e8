"""A session in several processes: forked ones may use what they inherit, others get it pickled."""

from __future__ import annotations

import copy
import multiprocessing
import os
import pickle
import shutil
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from bitfit_export.bundle import row_file
from bitfit_export.errors import BundleError, InputError, UsageError
from bitfit_export.runtime import BiasSession
from tests.runtime.conftest import BATCH, TEXTS, OpenBundle, change_manifest
from tests.runtime.forking import fork_and_wait, needs_fork

pytestmark = pytest.mark.slow

#: Forks of each test. Before locks were held during a fork, more than half of the children hung in each.
FORKS = 4


@contextmanager
def busy(work: Callable[[], object]) -> Iterator[None]:
    """Two threads that do this all the time."""
    ended = threading.Event()

    def repeat() -> None:
        while not ended.is_set():
            work()

    threads = [threading.Thread(target=repeat) for _ in range(2)]
    for thread in threads:
        thread.start()
    try:
        time.sleep(0.05)
        yield
    finally:
        ended.set()
        for thread in threads:
            thread.join()


def use(session: BiasSession, row: Path) -> None:
    """Everything that takes a lock."""
    expected = session.predict(TEXTS, "two_way")
    assert len(session.tasks) >= 3
    assert session.load_task(row, name="another", labels=session.labels("two_way"))
    session.encode([["two", "words"]])
    assert session.predict(TEXTS, "another") == expected
    session.unload_task("another")


@needs_fork
@pytest.mark.filterwarnings("ignore:.*multi-threaded, use of fork:DeprecationWarning")
@pytest.mark.parametrize("work", ["looking", "swapping", "running", "splitting", "reading"])
def test_a_process_forked_while_threads_use_the_session_uses_it_too(tiny_bundle: Path, work: str) -> None:
    session = BiasSession(tiny_bundle, threads=2)
    row = tiny_bundle / row_file("two_way")
    expected = session.run("two_way", **BATCH)

    def split() -> None:
        session._encoder.__dict__.pop("_word_tokenizer", None)  # it is made once
        session.encode([["two", "words"]])

    def read() -> None:
        session.manifest.layout.__dict__.pop("digest", None)
        session.load_task(row)

    todo: dict[str, Callable[[], object]] = {
        "looking": lambda: session.tasks,
        "swapping": lambda: session.load_task(row),
        "running": lambda: session.run("two_way", **BATCH),
        "splitting": split,
        "reading": read,
    }

    def child() -> None:
        np.testing.assert_allclose(session.run("two_way", **BATCH), expected, rtol=0, atol=1e-5)
        use(session, row)

    with busy(todo[work]):
        assert [fork_and_wait(child) for _ in range(FORKS)] == [0] * FORKS
    use(session, row)


@needs_fork
@pytest.mark.filterwarnings("ignore:.*multi-threaded, use of fork:DeprecationWarning")
def test_a_fork_waits_for_a_lock_and_gives_it_back(session: BiasSession) -> None:
    """The moment that is rare otherwise: another thread has the lock when the process forks."""
    held, go = threading.Event(), threading.Event()

    def hold() -> None:
        with session._store._lock:
            held.set()
            go.wait()

    holder = threading.Thread(target=hold)
    holder.start()
    held.wait()
    threading.Timer(0.2, go.set).start()
    assert fork_and_wait(lambda: session.tasks) == 0
    assert len(session.tasks) == 3
    holder.join()


@needs_fork
@pytest.mark.filterwarnings("ignore:.*multi-threaded, use of fork:DeprecationWarning")
def test_a_forked_process_may_forget_the_session(tiny_bundle: Path) -> None:
    """ONNX Runtime waits for its threads when a session ends; those of the parent are not in the child."""
    sessions = [BiasSession(tiny_bundle, threads=2)]

    def child() -> None:
        sessions[0].predict(TEXTS, "two_way")
        sessions.clear()

    assert fork_and_wait(child) == 0


@needs_fork
@pytest.mark.filterwarnings("ignore:.*multi-threaded, use of fork:DeprecationWarning")
def test_a_forked_process_refuses_a_bundle_that_has_changed(copied: Path, open_bundle: OpenBundle) -> None:
    session = open_bundle(copied)
    data = (copied / "model.onnx.data").read_bytes()
    (copied / "other").write_bytes(bytes([data[0] ^ 1]) + data[1:])
    os.replace(copied / "other", copied / "model.onnx.data")

    def child() -> None:
        with pytest.raises(BundleError, match=r"model\.onnx\.data"):
            session.predict(TEXTS, "two_way")

    assert fork_and_wait(child) == 0
    session.predict(TEXTS, "two_way")


@pytest.mark.parametrize("copier", [lambda each: pickle.loads(pickle.dumps(each)), copy.copy, copy.deepcopy])
def test_a_copy_answers_alike(session: BiasSession, copier: Callable[[BiasSession], BiasSession]) -> None:
    again = copier(session)
    assert (again.tasks, again.manifest) == (session.tasks, session.manifest)
    np.testing.assert_array_equal(again.run("two_way", **BATCH), session.run("two_way", **BATCH))


def test_a_copy_has_the_options_and_the_tasks_that_are_loaded(
    bundle: Path, open_bundle: OpenBundle, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.chdir(bundle.parent)
    session = open_bundle(bundle.name, tasks=["score", "two_way"])
    session.unload_task("score")
    monkeypatch.chdir(tmp_path)
    again = pickle.loads(pickle.dumps(session))
    assert again.tasks == ("two_way",)
    assert again._opened == session._opened
    assert again._opened["threads"] == 1
    session.unload_task("two_way")
    assert pickle.loads(pickle.dumps(session)).tasks == ()


def test_a_task_that_was_loaded_later_is_not_left_behind(session: BiasSession, save_row: Any) -> None:
    for row in (save_row(task="later"), save_row(task_version=2)):
        name = session.load_task(row)
        with pytest.raises(UsageError, match=f"cannot be pickled with the task {name}.*\nhint: .*load_task"):
            pickle.dumps(session)
        session.unload_task(name)
    assert pickle.loads(pickle.dumps(session)).tasks == session.tasks


def test_a_bundle_that_has_changed_is_not_taken_for_the_pickled_one(copied: Path, open_bundle: OpenBundle) -> None:
    data = pickle.dumps(open_bundle(copied))
    change_manifest(copied, product_version="other")
    with pytest.raises(BundleError, match="has changed since the session was pickled"):
        pickle.loads(data)
    shutil.rmtree(copied)
    with pytest.raises(BundleError, match="cannot be read"):
        pickle.loads(data)


def _answer(session: BiasSession) -> list[Any]:
    return session.predict(TEXTS, "two_way")


def _fail(session: BiasSession) -> object:
    return session.predict("a", "no such task")


def test_a_session_and_an_error_travel_to_a_spawned_process_and_back(session: BiasSession) -> None:
    with multiprocessing.get_context("spawn").Pool(1) as pool:
        assert pool.apply(_answer, (session,)) == _answer(session)
        with pytest.raises(InputError, match="'no such task'"):
            pool.apply(_fail, (session,))


def test_every_layout_can_be_pickled(open_layout: Callable[[str], BiasSession]) -> None:
    for name in ("packed", "overridable"):
        again = pickle.loads(pickle.dumps(open_layout(name)))
        assert again.predict("a", "two_way") == open_layout(name).predict("a", "two_way")
