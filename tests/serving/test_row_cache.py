"""Rows of a folder: read on first use, dropped when there is no room, replaced and refused while others are in use."""

from __future__ import annotations

import threading
from collections.abc import Callable
from contextlib import ExitStack
from dataclasses import replace
from pathlib import Path
from typing import TypeAlias

import pytest

from bitfit_export.bundle import BiasRow, write_row
from bitfit_export.errors import UsageError
from bitfit_export.runtime import BiasSession
from bitfit_export.serving import row_cache
from bitfit_export.serving.failures import BusyServiceError, RefusedRowError, ServiceError, UnknownTaskError
from bitfit_export.serving.row_cache import RowCache
from bitfit_export.serving.row_folder import RowFolder
from tests.serving.conftest import WriteRow

OWN = ("three_way", "two_way", "score")
OpenCache: TypeAlias = Callable[..., RowCache]
SPARE = 2


@pytest.fixture(autouse=True)
def few_spare_slots(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(row_cache, "_SPARE", SPARE)


@pytest.fixture
def events() -> list[tuple[str, str]]:
    return []


@pytest.fixture
def open_cache(session: BiasSession, rows: Path, events: list[tuple[str, str]]) -> OpenCache:
    """A cache with room for the bundle's three rows and so many more."""

    def open_one(more: int = 2) -> RowCache:
        size = 4 * session.manifest.layout.value_count(8)
        slots = len(OWN) + more + SPARE
        return RowCache(
            session,
            RowFolder(rows),
            memory=slots * size,
            on_event=lambda event, task, reason: events.append((event, task)),
        )

    return open_one


def answer(session: BiasSession, task: str) -> float:
    """The score of the task's second label, which its row's lead decides."""
    found = {each["label"]: each["score"] for each in session.predict(["A text."], task, top_k=2)[0]}
    return found["LABEL_1"]


def test_a_row_is_read_when_it_is_first_held(open_cache: OpenCache, add_row: WriteRow, session: BiasSession) -> None:
    add_row("a", lead=3.0)
    cache = open_cache()
    assert set(session.tasks) == set(OWN)
    with cache.hold(["a"]):
        assert answer(session, "a") == pytest.approx(0.952574, abs=1e-6)
    with cache.hold(["a", "score"]):
        pass
    assert "a" in session.tasks


def test_the_least_recently_used_row_goes_first(open_cache: OpenCache, add_row: WriteRow, session: BiasSession) -> None:
    for task in "abc":
        add_row(task)
    cache = open_cache(more=2)
    for task in ("a", "b", "a", "c"):
        with cache.hold([task]):
            pass
    assert set(session.tasks) == {*OWN, "a", "c"}
    with cache.hold(["b"]):
        assert set(session.tasks) == {*OWN, "b", "c"}


def test_a_row_that_is_held_is_not_dropped(open_cache: OpenCache, add_row: WriteRow, session: BiasSession) -> None:
    for task in "abcd":
        add_row(task)
    cache = open_cache(more=2)
    with ExitStack() as held:
        held.enter_context(cache.hold(["a"]))
        for task in "bcd":
            with cache.hold([task]):
                assert "a" in session.tasks
        held.enter_context(cache.hold(["b"]))
        with pytest.raises(BusyServiceError, match="all 5 rows that are in memory are in use"), cache.hold(["c"]):
            pass
    with cache.hold(["c"]):
        pass


def test_the_table_never_grows(open_cache: OpenCache, add_row: WriteRow, session: BiasSession) -> None:
    cache = open_cache(more=2)
    before = session._store.capacity
    for number in range(30):
        add_row(f"t{number}", version=1)
        cache.look()
        with cache.hold([f"t{number}"]):
            add_row(f"t{number}", version=2)
            cache.look()
    assert session._store.capacity == before == len(OWN) + 2 + SPARE
    assert cache.size == cache.limit == len(OWN) + 2


def test_a_changed_row_that_found_no_room_is_loaded_later(
    open_cache: OpenCache, add_row: WriteRow, session: BiasSession
) -> None:
    add_row("a")
    cache = open_cache(more=1)
    with cache.hold(["a"]):
        add_row("a", lead=2.0)
        with pytest.MonkeyPatch.context() as patch:
            # As when runs that have not ended hold all the rows that were replaced.
            patch.setattr(type(session._store), "free", property(lambda store: 0))
            cache.look()
        assert answer(session, "a") == 0.5
        cache.look()
        assert answer(session, "a") == pytest.approx(0.880797, abs=1e-6)


def test_rows_that_appear_do_not_drive_out_those_in_use(
    open_cache: OpenCache, add_row: WriteRow, rows: Path, events: list[tuple[str, str]]
) -> None:
    for task in ("a", "b"):
        add_row(task)
    cache = open_cache(more=2)
    with cache.hold(["a", "b"]):
        pass
    for number in range(20):
        add_row(f"new{number}", lead=float(number))
        (rows / f"bad{number}.bias").write_bytes(b"no row")
    events.clear()
    cache.look()
    assert {each.name for each in cache.states() if each.in_memory} == {*OWN, "a", "b"}
    assert {each.name for each in cache.states() if not each.ready} == {f"bad{number}" for number in range(20)}
    assert {event for event, _ in events} == {"refused"}  # as they appear, not when they are asked
    with cache.hold(["new7"]):
        assert cache.state("new7").in_memory


def test_memory_that_does_not_hold_the_bundle_is_refused(session: BiasSession, rows: Path) -> None:
    with pytest.raises(UsageError, match="the memory for rows is 1000 bytes, expected at least"):
        RowCache(session, RowFolder(rows), memory=1000)


def test_a_row_that_appears_is_loaded_and_a_newer_one_replaces_it(
    open_cache: OpenCache, add_row: WriteRow, session: BiasSession
) -> None:
    cache = open_cache()
    with pytest.raises(UnknownTaskError, match="does not have the task 'a'"), cache.hold(["a"]):
        pass
    add_row("a", lead=1.0)
    cache.look()
    assert "a" in session.tasks
    add_row("a", lead=-1.0, version=2)
    cache.look()
    assert answer(session, "a") == pytest.approx(0.268941, abs=1e-6)


@pytest.mark.parametrize("damage", ["cut", "other task", "older", "other layout"])
def test_a_bad_row_is_reported_and_changes_nothing(
    open_cache: OpenCache,
    add_row: WriteRow,
    session: BiasSession,
    rows: Path,
    events: list[tuple[str, str]],
    damage: str,
    model_row: BiasRow,
) -> None:
    add_row("a", lead=1.0, version=2)
    cache = open_cache()
    with cache.hold(["a"]):
        pass
    before = answer(session, "a")
    if damage == "cut":
        (rows / "a.bias").write_bytes((rows / "a.bias").read_bytes()[:-1])
    elif damage == "other task":
        add_row("b", name="a")
    elif damage == "older":
        add_row("a", version=1)
    else:
        write_row(rows / "a.bias", replace(model_row, task="a", task_version=3, layout_digest="0" * 64))
    cache.look()
    assert events[-1] == ("refused", "a")
    assert cache.state("a").ready
    assert cache.state("a").reason
    assert answer(session, "a") == before
    add_row("a", lead=-1.0, version=3)
    cache.look()
    assert not cache.state("a").reason
    assert answer(session, "a") != before


def test_a_bad_row_that_never_was_good_is_not_ready(open_cache: OpenCache, add_row: WriteRow, rows: Path) -> None:
    (rows / "a.bias").write_bytes(b"nothing")
    cache = open_cache()
    with (
        pytest.raises(RefusedRowError, match="the row of the task a cannot be used: truncated header"),
        cache.hold(["a"]),
    ):
        pass
    assert not cache.state("a").ready


def test_an_older_row_is_refused_also_after_the_newer_one_was_dropped(open_cache: OpenCache, add_row: WriteRow) -> None:
    add_row("a", version=5)
    cache = open_cache(more=1)
    with cache.hold(["a"]):
        pass
    add_row("b")
    cache.look()
    with cache.hold(["b"]):
        assert not cache.state("a").in_memory
    add_row("a", version=4)
    with pytest.raises(RefusedRowError, match="it has version 4, expected 5 or more"), cache.hold(["a"]):
        pass


def test_a_row_whose_file_goes_is_answered_no_more(
    open_cache: OpenCache, add_row: WriteRow, session: BiasSession, rows: Path
) -> None:
    add_row("a")
    cache = open_cache()
    with cache.hold(["a"]):
        (rows / "a.bias").unlink()
        cache.look()
    assert "a" not in session.tasks
    with pytest.raises(UnknownTaskError), cache.hold(["a"]):
        pass


def test_a_folder_that_goes_leaves_what_is_in_memory(
    open_cache: OpenCache, add_row: WriteRow, session: BiasSession, rows: Path
) -> None:
    for task in "ab":
        add_row(task)
    cache = open_cache()
    with cache.hold(["a"]):
        pass
    rows.rename(rows.with_name("elsewhere"))
    with pytest.raises(ServiceError, match="cannot be read: No such file"):
        cache.look()
    with cache.hold(["a", "two_way"]):
        pass
    with pytest.raises(RefusedRowError), cache.hold(["b"]):
        pass
    rows.with_name("elsewhere").rename(rows)
    cache.look()
    with cache.hold(["b"]):
        pass


def test_a_task_that_was_unloaded_comes_back_when_it_is_loaded(
    open_cache: OpenCache, add_row: WriteRow, session: BiasSession
) -> None:
    add_row("a")
    cache = open_cache()
    cache.unload("a")
    with pytest.raises(UnknownTaskError), cache.hold(["a"]):
        pass
    add_row("a", version=2)
    cache.look()
    assert not cache.state("a").ready
    cache.load("a")
    assert cache.state("a") == ("a", True, True, "")


@pytest.mark.parametrize("gone", [True, False], ids=["its file is gone", "it was unloaded"])
def test_a_row_that_is_held_goes_when_it_is_held_no_more(
    open_cache: OpenCache, add_row: WriteRow, session: BiasSession, gone: bool
) -> None:
    path = add_row("a", lead=2.0)
    cache = open_cache()
    with cache.hold(["a"]):
        if gone:
            path.unlink()
            cache.look()
        else:
            cache.unload("a")
        assert answer(session, "a") == pytest.approx(0.880797, abs=1e-6)
        with pytest.raises(UnknownTaskError), cache.hold(["a"]):
            pass
        assert "a" in session.tasks
    assert "a" not in session.tasks


def test_the_bundles_own_tasks_stay(open_cache: OpenCache, session: BiasSession) -> None:
    cache = open_cache()
    with pytest.raises(ServiceError, match="one of the bundle's own"):
        cache.unload("score")
    cache.load("score")
    assert set(session.tasks) == set(OWN)


def test_a_row_of_the_folder_replaces_the_bundles_own(
    open_cache: OpenCache, add_row: WriteRow, session: BiasSession
) -> None:
    cache = open_cache()
    add_row("two_way", lead=2.0, version=2)
    cache.look()
    assert session.predict("A text.", "two_way")[0]["label"] == "positive"


def test_names_that_no_task_can_have_are_not_looked_at(open_cache: OpenCache, add_row: WriteRow, rows: Path) -> None:
    add_row("a", name=".a")
    add_row("a", name="a b")
    (rows / "notes.txt").write_text("nothing")
    (rows / "folder.bias").mkdir()
    assert [state.name for state in open_cache().states()] == sorted(OWN)


def test_many_threads_that_need_one_row_read_it_once(
    open_cache: OpenCache, add_row: WriteRow, events: list[tuple[str, str]]
) -> None:
    add_row("a")
    cache = open_cache()
    ready = threading.Barrier(8)

    def need() -> None:
        ready.wait()
        with cache.hold(["a"]):
            pass

    threads = [threading.Thread(target=need) for _ in range(8)]
    for each in threads:
        each.start()
    for each in threads:
        each.join()
    assert events.count(("loaded", "a")) == 1
