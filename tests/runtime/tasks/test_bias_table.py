"""The bias table: slots, growth, leases, and that no reader ever sees half a row."""

from __future__ import annotations

import contextlib
import itertools
import threading
import time
from concurrent.futures import ThreadPoolExecutor

import numpy as np
import pytest

from bitfit_export.bundle import BiasRow, Layout
from bitfit_export.errors import InputError
from bitfit_export.runtime.tasks.bias_table import BiasTable, TableLease
from tests.runtime.work_of import work_of

LAYOUT = Layout.pack(
    "ab" * 32,
    {"a.bias": (300,), "b.bias": (200,)},
    [("head.pooling", (2,)), ("head.weight", ("labels", 4)), ("head.bias", ("labels",))],
    ("cls", "mean"),
)
N = LAYOUT.bias_count


def make_row(
    task: str, value: float, *, labels: int = 2, version: int = 1, dtype: type[np.floating] = np.float32
) -> BiasRow:
    """A row whose every value is `value`."""
    return BiasRow(
        task=task,
        problem_type="single_label",
        labels=labels,
        task_version=version,
        layout_digest=LAYOUT.digest,
        biases=np.full(N, value, dtype),
        head=tuple(np.full(shape, value, dtype) for shape in LAYOUT.head_shapes(labels)),
    )


def values_of(lease: TableLease, place: int = 0) -> list[np.ndarray]:
    """What the model would gather for one name: the biases, then each head tensor."""
    return [value[lease.slots[place]] for value in lease.bound.values()]


def read(table: BiasTable, name: str) -> list[np.ndarray]:
    with table.lease([name]) as lease:
        return [value.copy() for value in values_of(lease)]


def biases_of(table: BiasTable, name: str) -> float:
    biases = read(table, name)[0]
    assert (biases == biases[0]).all()
    return float(biases[0])


# --- what is in the table


def test_a_row_is_what_a_lease_reads() -> None:
    table = BiasTable(LAYOUT, dict)
    info = table.add(make_row("a", 1.5), labels=("no", "yes"))
    assert (info.name, info.problem_type, info.labels, info.label_count) == ("a", "single_label", ("no", "yes"), 2)
    with table.lease(["a"]) as lease:
        assert list(lease.bound) == ["bias_table", "head.pooling", "head.weight", "head.bias"]
        assert lease.slots.dtype == np.int64
        assert lease.tasks == [info]
        biases, pooling, weight, bias = values_of(lease)
    assert biases.dtype == np.float32
    assert (biases == 1.5).all()
    assert pooling.tolist() == [1.5, 1.5]
    assert weight.shape == (2, 4)
    assert bias.tolist() == [1.5, 1.5]


def test_a_float16_row_is_widened() -> None:
    table = BiasTable(LAYOUT, dict)
    table.add(make_row("a", 0.1, dtype=np.float16))
    for values in read(table, "a"):
        assert values.dtype == np.float32
        assert (values == np.float32(np.float16(0.1))).all()


def test_a_lease_gives_one_slot_a_name() -> None:
    table = BiasTable(LAYOUT, dict, rows=3)
    for index, name in enumerate("abc"):
        table.add(make_row(name, index))
    with table.lease(["c", "a", "c", "b"]) as lease:
        assert [values_of(lease, place)[0][0] for place in range(4)] == [2, 0, 2, 1]
        assert [task.name for task in lease.tasks] == ["c", "a", "c", "b"]


def test_a_row_may_have_another_name_in_the_table() -> None:
    table = BiasTable(LAYOUT, dict)
    table.add(make_row("a", 1), name="mine")
    assert [task.name for task in table.tasks] == ["mine"]
    assert table.find("a") is None


def test_fewer_labels_are_padded_with_zeros() -> None:
    table = BiasTable(LAYOUT, dict, rows=4)
    for name in ("large", "other"):
        table.add(make_row(name, 1, labels=5))
    table.remove("large")
    table.add(make_row("small", 2, labels=2))  # in the slot of the large one, or beside it
    table.add(make_row("another", 3, labels=3))
    for name, labels, expected in (("small", 2, 2.0), ("another", 3, 3.0)):
        _, _, weight, bias = read(table, name)
        assert weight.shape == (5, 4)
        assert (weight[:labels] == expected).all()
        assert not weight[labels:].any()
        assert bias.tolist() == [expected] * labels + [0.0] * (5 - labels)


def test_more_labels_grow_the_head_and_nothing_else() -> None:
    table = BiasTable(LAYOUT, dict, rows=2, labels=2)
    table.add(make_row("a", 1))
    with table.lease(["a"]) as before:
        table.add(make_row("b", 2, labels=7))
        with table.lease(["a"]) as after:
            assert after.bound["head.weight"].shape == (2, 7, 4)
            assert before.bound["head.weight"].shape == (2, 2, 4)
            assert after.bound["bias_table"] is before.bound["bias_table"]
            assert (values_of(after)[2][:2] == 1).all()
            assert not values_of(after)[2][2:].any()


def test_a_tensor_that_a_task_lacks_is_zero() -> None:
    row = make_row("a", 1)
    row = BiasRow("a", "single_label", 2, 1, LAYOUT.digest, row.biases, (np.zeros(0, np.float32), *row.head[1:]))
    table = BiasTable(LAYOUT, dict)
    table.add(row)
    assert read(table, "a")[1].tolist() == [0, 0]


# --- growth and reserve


def test_capacity_doubles_and_keeps_the_rows() -> None:
    table = BiasTable(LAYOUT, dict)
    sizes = []
    for index in range(20):
        table.add(make_row(f"t{index}", index))
        sizes.append(table.capacity)
    assert sorted(set(sizes)) == [1, 2, 4, 8, 16, 32]
    assert [biases_of(table, f"t{index}") for index in range(20)] == list(range(20))


def test_reserve_makes_room_at_once() -> None:
    table = BiasTable(LAYOUT, dict)
    table.reserve(100, labels=6)
    with table.lease([]) as lease:
        before = lease.bound
    for index in range(100):
        table.add(make_row(f"t{index}", index, labels=1 + index % 6))
    with table.lease(["t99"]) as lease:
        assert lease.bound is before
    table.reserve(3)  # less than there is
    assert table.capacity == 100


class TestTheWidestTaskLeaves:
    """The arrays are as wide as the widest loaded task, so all tasks are slower while it is there."""

    @staticmethod
    def width(table: BiasTable) -> int:
        with table.lease([]) as lease:
            return int(lease.bound["head.weight"].shape[1])

    def test_they_become_narrower(self) -> None:
        table = BiasTable(LAYOUT, dict)
        for name, labels in {"a": 2, "wide": 500, "b": 3}.items():
            table.add(make_row(name, labels, labels=labels))
        assert self.width(table) == 500
        table.remove("b")
        assert self.width(table) == 500
        table.remove("wide")
        assert self.width(table) == 2
        assert biases_of(table, "a") == 2
        table.remove("a")
        assert self.width(table) == 1

    def test_also_when_it_is_replaced(self) -> None:
        table = BiasTable(LAYOUT, dict)
        table.add(make_row("a", 1, labels=500))
        table.add(make_row("a", 2, labels=2))
        assert self.width(table) == 2
        assert biases_of(table, "a") == 2

    def test_two_of_the_same_width(self) -> None:
        table = BiasTable(LAYOUT, dict, rows=3)
        for name in ("a", "b"):
            table.add(make_row(name, 1, labels=9))
        table.remove("a")
        assert self.width(table) == 9

    def test_room_that_was_asked_for_stays(self) -> None:
        table = BiasTable(LAYOUT, dict)
        table.reserve(4, labels=6)
        table.add(make_row("a", 1, labels=9))
        table.remove("a")
        assert self.width(table) == 6

    def test_a_lease_from_before_keeps_its_arrays(self) -> None:
        table = BiasTable(LAYOUT, dict)
        table.add(make_row("wide", 1, labels=50))
        with table.lease(["wide"]) as lease:
            table.remove("wide")
            for index in range(20):
                table.add(make_row(f"t{index}", 5))
            assert (values_of(lease)[0] == 1).all()
            assert lease.bound["head.weight"].shape[1] == 50
        assert self.width(table) == 2

    def test_memory_for_the_smaller_ones_may_lack(self, monkeypatch: pytest.MonkeyPatch) -> None:
        table = BiasTable(LAYOUT, dict)
        table.add(make_row("wide", 1, labels=50))
        table.add(make_row("a", 2))

        def fail(*arguments: object) -> None:
            raise MemoryError

        monkeypatch.setattr("bitfit_export.runtime.tasks.bias_table._Arrays", fail)
        table.remove("wide")
        assert [task.name for task in table.tasks] == ["a"]
        assert biases_of(table, "a") == 2


def test_a_lease_from_before_growth_keeps_its_arrays() -> None:
    table = BiasTable(LAYOUT, dict)
    table.add(make_row("a", 1))
    with table.lease(["a"]) as lease:
        for index in range(40):
            table.add(make_row(f"t{index}", 5))
        table.add(make_row("a", 2))
        assert (values_of(lease)[0] == 1).all()
    assert biases_of(table, "a") == 2


# --- replace, remove, reuse


def test_a_replaced_row_goes_to_another_slot() -> None:
    table = BiasTable(LAYOUT, dict, rows=2)
    table.add(make_row("a", 1))
    with table.lease(["a"]) as old:
        table.add(make_row("a", 2, version=2))
        with table.lease(["a"]) as new:
            assert old.slots[0] != new.slots[0]
            assert (values_of(old)[0] == 1).all()
            assert (values_of(new)[0] == 2).all()
            assert (old.tasks[0].task_version, new.tasks[0].task_version) == (1, 2)
    assert table.capacity == 2


def test_a_slot_is_used_again_only_when_nothing_holds_it() -> None:
    table = BiasTable(LAYOUT, dict, rows=2)
    table.add(make_row("a", 1))
    with table.lease(["a", "a"]) as first:
        with table.lease(["a"]):
            table.remove("a")
        held = int(first.slots[0])
        for index in range(5):
            table.add(make_row("b", 10 + index))
            with table.lease(["b"]) as lease:
                assert lease.slots[0] != held
        assert (values_of(first)[0] == 1).all()
    for index in range(50):
        table.add(make_row("b", index))
    # One slot for b and a spare would do; holding `a` made it 4.
    assert table.capacity == 4


def test_replacing_for_ever_takes_no_more_room() -> None:
    table = BiasTable(LAYOUT, dict, rows=3)
    for index in range(200):
        table.add(make_row("a", index))
        table.add(make_row("b", -index))
        with table.lease(["a", "b"]) as lease:
            assert [values_of(lease, place)[0][0] for place in range(2)] == [index, -index]
    assert table.capacity == 3


def test_a_lease_that_ends_in_an_error_lets_go() -> None:
    table = BiasTable(LAYOUT, dict, rows=2)
    table.add(make_row("a", 0))
    for index in range(10):
        with pytest.raises(RuntimeError, match="broken run"), table.lease(["a"]):
            raise RuntimeError("broken run")
        table.add(make_row("a", index))
    assert table.capacity == 2


def test_an_older_row_is_refused_and_nothing_changes() -> None:
    table = BiasTable(LAYOUT, dict, rows=2)
    table.add(make_row("a", 1, version=5))
    with pytest.raises(InputError, match="version 4, expected 5 or more"):
        table.add(make_row("a", 2, version=4))
    assert biases_of(table, "a") == 1
    table.add(make_row("a", 3, version=5))
    table.remove("a")
    table.add(make_row("a", 4, version=1))
    assert biases_of(table, "a") == 4
    assert table.capacity == 2


def test_a_row_that_can_not_be_written_leaves_the_table_as_it_was() -> None:
    table = BiasTable(LAYOUT, dict, rows=2)
    table.add(make_row("a", 1))
    row = make_row("a", 2)
    wrong = BiasRow("a", "single_label", 2, 1, LAYOUT.digest, np.zeros(N + 1, np.float32), row.head)
    for _ in range(5):
        with pytest.raises(ValueError, match="broadcast"):
            table.add(wrong)
    assert biases_of(table, "a") == 1
    table.add(row)
    assert table.capacity == 2


def test_unknown_tasks() -> None:
    table = BiasTable(LAYOUT, dict)
    with pytest.raises(InputError, match="'a' is not loaded, and no other is"), table.lease(["a"]):
        pass
    for index in range(12):
        table.add(make_row(f"t{index:02}", 0))
    with pytest.raises(InputError, match=r"'x' is not loaded, expected one of t00, t01, .*, t09 and 2 more$"):
        table.get("x")
    with pytest.raises(InputError, match="'x' is not loaded"):
        table.remove("x")
    with pytest.raises(InputError, match="'x' is not loaded"), table.lease(["t00", "x"]):
        pass
    # The refused lease holds nothing: t00's slot comes back at once.
    capacity = table.capacity
    for index in range(50):
        table.add(make_row("t00", index))
    assert table.capacity == capacity


# --- threads


def test_readers_see_whole_rows_while_writers_work() -> None:
    """Two writers replace, remove and add rows and so make the table grow; every value of a lease is of one row."""
    table = BiasTable(LAYOUT, dict)
    table.add(make_row("steady", -1))
    table.add(make_row("hot", 0))
    stop = threading.Event()
    failures: list[str] = []

    def replace() -> None:
        for version in itertools.count(1):
            if stop.is_set():
                return
            table.add(make_row("hot", version, labels=1 + version % 5, version=version))

    def come_and_go() -> None:
        for index in itertools.count():
            if stop.is_set():
                return
            table.add(make_row(f"t{index % 40}", index))
            if index % 3 == 0:
                table.remove(f"t{index % 40}")

    def watch() -> int:
        seen = 0
        while not stop.is_set():
            with table.lease(["hot", "steady", "hot"]) as lease:
                for place, task in enumerate(lease.tasks):
                    expected = -1 if task.name == "steady" else task.task_version if task.task_version > 1 else None
                    biases, _, weight, bias = values_of(lease, place)
                    time.sleep(0)  # another thread's turn, in the middle of a run
                    for values in (biases, weight[: task.label_count], bias[: task.label_count]):
                        if not (values == (biases[0] if expected is None else expected)).all():
                            failures.append(f"{task}: {values}")
                    if weight[task.label_count :].any():
                        failures.append(f"{task}: {weight}")
            seen += 1
        return seen

    with ThreadPoolExecutor(5) as pool:
        writers = [pool.submit(replace), pool.submit(come_and_go)]
        readers = [pool.submit(watch) for _ in range(3)]
        time.sleep(1.5)
        stop.set()
        seen = [reader.result() for reader in readers]
        for writer in writers:
            writer.result()
    assert not failures, failures[:3]
    assert all(seen)
    assert table.capacity <= 128


def test_of_two_versions_the_higher_one_stays() -> None:
    """Whichever of two threads comes first, the lower version never replaces the higher one."""
    for _ in range(30):
        table = BiasTable(LAYOUT, dict)
        start = threading.Barrier(4)

        def load(version: int, table: BiasTable = table, start: threading.Barrier = start) -> None:
            start.wait()
            with contextlib.suppress(InputError):
                table.add(make_row("a", version, version=version))

        threads = [threading.Thread(target=load, args=(version,)) for version in (1, 2, 3, 4)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
        assert biases_of(table, "a") == 4


def test_a_lease_does_no_more_with_a_thousand_tasks() -> None:
    def lease(table: BiasTable, name: str) -> None:
        with table.lease([name]):
            pass

    small, large = BiasTable(LAYOUT, dict), BiasTable(LAYOUT, dict, rows=1000)
    small.add(make_row("t0", 0))
    for index in range(1000):
        large.add(make_row(f"t{index}", index))
    calls, size = work_of(lambda: lease(small, "t0"))
    assert 0 < calls < 100
    assert work_of(lambda: lease(large, "t999")) == (calls, pytest.approx(size, abs=500))
