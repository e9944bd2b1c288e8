"""The rows of a graph that runs one task at a time: what is fed, and that a lease never changes."""

from __future__ import annotations

import contextlib
import itertools
import sys
import threading
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace

import numpy as np
import pytest

from bitfit_export.bundle import BiasRow, Layout
from bitfit_export.errors import InputError
from bitfit_export.runtime.tasks.one_at_a_time import RowFeeds
from tests.runtime.work_of import work_of

LAYOUT = Layout.pack(
    "ab" * 32,
    {"a.bias": (3,), "b.bias": (2, 2)},
    [("head.pooling", (2,)), ("head.dense.weight", (5, 4)), ("head.weight", ("labels", 5)), ("head.bias", ("labels",))],
    ("cls", "mean"),
)
N = LAYOUT.bias_count


def make_row(task: str, value: float, *, labels: int = 2, version: int = 1) -> BiasRow:
    """A row whose every value is `value`."""
    return BiasRow(
        task=task,
        problem_type="single_label",
        labels=labels,
        task_version=version,
        layout_digest=LAYOUT.digest,
        biases=np.full(N, value, np.float32),
        head=tuple(np.full(shape, value, np.float32) for shape in LAYOUT.head_shapes(labels)),
    )


def read(store: RowFeeds, name: str) -> dict[str, np.ndarray]:
    with store.lease([name]) as lease:
        return dict(lease.feeds().bound)


def value_of(store: RowFeeds, name: str) -> float:
    return float(read(store, name)["bias"][0])


# --- what is fed


def test_packed_feeds_all_biases_as_one() -> None:
    store = RowFeeds(LAYOUT, "packed", dict)
    store.add(replace(make_row("a", 0), biases=np.arange(N, dtype=np.float32)))
    feeds = read(store, "a")
    assert list(feeds) == ["bias", "head.pooling", "head.dense.weight", "head.weight", "head.bias"]
    assert feeds["bias"].tolist() == [0, 1, 2, 3, 4, 5, 6]


def test_named_feeds_each_bias_in_its_shape() -> None:
    store = RowFeeds(LAYOUT, "named", dict)
    store.add(replace(make_row("a", 0), biases=np.arange(N, dtype=np.float32)))
    feeds = read(store, "a")
    assert list(feeds) == ["a.bias", "b.bias", "head.pooling", "head.dense.weight", "head.weight", "head.bias"]
    assert feeds["a.bias"].tolist() == [0, 1, 2]
    assert feeds["b.bias"].tolist() == [[3, 4], [5, 6]]


@pytest.mark.parametrize("kind", ["packed", "named"])
def test_a_float16_row_is_widened(kind: str) -> None:
    row = make_row("a", 0.1)
    half = replace(row, biases=row.biases.astype(np.float16), head=tuple(each.astype(np.float16) for each in row.head))
    store = RowFeeds(LAYOUT, kind, dict)
    store.add(half)
    for values in read(store, "a").values():
        assert values.dtype == np.float32
        assert (values == np.float32(np.float16(0.1))).all()


def test_a_tensor_that_a_task_lacks_is_zero() -> None:
    row = make_row("a", 1)
    store = RowFeeds(LAYOUT, "packed", dict)
    store.add(replace(row, head=(row.head[0], np.zeros((0, 4), np.float32), *row.head[2:])))
    feeds = read(store, "a")
    assert feeds["head.dense.weight"].shape == (5, 4)
    assert not feeds["head.dense.weight"].any()
    assert feeds["head.weight"].all()


def test_a_head_has_the_tasks_own_labels_or_those_of_the_graph() -> None:
    free, fixed = RowFeeds(LAYOUT, "packed", dict), RowFeeds(LAYOUT, "packed", dict, labels=4)
    for store in (free, fixed):
        store.add(make_row("a", 7, labels=3))
    assert read(free, "a")["head.weight"].shape == (3, 5)
    padded = read(fixed, "a")
    assert padded["head.weight"].shape == (4, 5)
    assert padded["head.bias"].tolist() == [7, 7, 7, 0]
    assert not padded["head.weight"][3].any()


def test_a_switch_makes_nothing_anew() -> None:
    store = RowFeeds(LAYOUT, "named", dict)
    store.add(make_row("a", 1))
    with store.lease(["a"]) as first, store.lease(["a", "a", "a"]) as second:
        assert first.feeds() is second.feeds() is second.feeds([2, 0])


# --- one task at a time


def test_a_batch_of_one_task_may_name_it_row_by_row() -> None:
    store = RowFeeds(LAYOUT, "packed", dict)
    info = store.add(make_row("a", 1), labels=("no", "yes"))
    with store.lease(["a"] * 3) as lease:
        assert lease.tasks == [info] * 3
        assert lease.feeds().bound["bias"][0] == 1


def test_a_batch_of_two_tasks_is_refused() -> None:
    store = RowFeeds(LAYOUT, "packed", dict)
    store.add(make_row("a", 1))
    store.add(make_row("b", 2))
    with store.lease(["a", "b", "a"]) as lease:
        with pytest.raises(InputError, match=r"tasks a and b, expected one task.*\nhint: .*--layout table"):
            lease.feeds()
        assert lease.feeds([0, 2]).bound["bias"][0] == 1
        assert lease.feeds([1]).bound["bias"][0] == 2


# --- replace, remove


def test_a_lease_keeps_a_row_that_is_replaced_or_removed() -> None:
    store = RowFeeds(LAYOUT, "packed", dict)
    store.add(make_row("a", 1))
    with store.lease(["a"]) as old:
        store.add(make_row("a", 2, version=2))
        assert value_of(store, "a") == 2
        store.remove("a")
        assert (old.feeds().bound["bias"] == 1).all()
        assert old.tasks[0].task_version == 1
    assert store.tasks == ()


def test_an_older_row_is_refused_and_nothing_changes() -> None:
    store = RowFeeds(LAYOUT, "packed", dict)
    store.add(make_row("a", 1, version=5))
    with pytest.raises(InputError, match="version 4, expected 5 or more"):
        store.add(make_row("a", 2, version=4))
    assert value_of(store, "a") == 1
    store.remove("a")
    store.add(make_row("a", 4))
    assert value_of(store, "a") == 4


def test_a_row_that_can_not_be_fed_leaves_the_store_as_it_was() -> None:
    store = RowFeeds(LAYOUT, "packed", dict, labels=2)
    store.add(make_row("a", 1))
    with pytest.raises(ValueError, match="broadcast"):
        store.add(make_row("a", 2, labels=3))
    assert value_of(store, "a") == 1


def test_unknown_tasks() -> None:
    store = RowFeeds(LAYOUT, "packed", dict)
    with pytest.raises(InputError, match="'a' is not loaded, and no other is"), store.lease(["a"]):
        pass
    store.add(make_row("b", 1), name="mine")
    for use in (lambda: store.get("b"), lambda: store.remove("b"), lambda: store.lease(["mine", "b"]).__enter__()):
        with pytest.raises(InputError, match="'b' is not loaded, expected one of mine"):
            use()
    assert store.find("b") is None


# --- threads


@pytest.fixture
def eager_switching() -> Iterator[None]:
    """Threads take turns a thousand times as often as usual, so that a step that is not atomic shows."""
    before = sys.getswitchinterval()
    sys.setswitchinterval(5e-6)
    yield
    sys.setswitchinterval(before)


@pytest.mark.usefixtures("eager_switching")
def test_readers_see_whole_rows_while_writers_work() -> None:
    store = RowFeeds(LAYOUT, "named", dict)
    store.add(make_row("hot", 1))
    stop = threading.Event()
    failures: list[str] = []

    def replace_hot() -> None:
        for version in itertools.count(1):
            if stop.is_set():
                return
            store.add(make_row("hot", version, labels=1 + version % 5, version=version))

    def come_and_go() -> None:
        for index in itertools.count():
            if stop.is_set():
                return
            store.add(make_row(f"t{index % 40}", index))
            if index % 3 == 0:
                store.remove(f"t{index % 40}")

    def watch() -> int:
        seen = 0
        while not stop.is_set():
            with store.lease(["hot", "hot"]) as lease:
                feeds = lease.feeds().bound
                time.sleep(0)  # another thread's turn, in the middle of a run
                for name, value in feeds.items():
                    if not (value == lease.tasks[0].task_version).all():
                        failures.append(f"{lease.tasks[0]}: {name}")
                if feeds["head.bias"].size != lease.tasks[1].label_count:
                    failures.append(f"{lease.tasks[0]}: labels")
            seen += 1
        return seen

    with ThreadPoolExecutor(5) as pool:
        writers = [pool.submit(replace_hot), pool.submit(come_and_go)]
        readers = [pool.submit(watch) for _ in range(3)]
        time.sleep(1.0)
        stop.set()
        seen = [reader.result() for reader in readers]
        for writer in writers:
            writer.result()
    assert not failures, failures[:3]
    assert all(seen)


def test_of_two_versions_the_higher_one_stays() -> None:
    """Whichever of four threads comes first, a lower version never replaces a higher one."""
    for _ in range(30):
        store = RowFeeds(LAYOUT, "packed", dict)
        start = threading.Barrier(4)

        def load(version: int, store: RowFeeds = store, start: threading.Barrier = start) -> None:
            start.wait()
            with contextlib.suppress(InputError):
                store.add(make_row("a", version, version=version))

        threads = [threading.Thread(target=load, args=(version,)) for version in (1, 2, 3, 4)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
        assert value_of(store, "a") == 4


def test_a_switch_does_no_more_with_a_thousand_tasks() -> None:
    def switch(store: RowFeeds, name: str) -> None:
        with store.lease([name]) as lease:
            lease.feeds()

    small, large = RowFeeds(LAYOUT, "named", dict), RowFeeds(LAYOUT, "named", dict)
    small.add(make_row("t0", 0))
    for index in range(1000):
        large.add(make_row(f"t{index}", index))
    calls, size = work_of(lambda: switch(small, "t0"))
    assert 0 < calls < 100
    assert work_of(lambda: switch(large, "t999")) == (calls, pytest.approx(size, abs=500))
