"""Tasks come and go while others run; a row that is refused changes nothing."""

from __future__ import annotations

import itertools
import threading
import time
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import pytest

from bitfit_export.bundle import BiasRow, Layout, read_row, write_row
from bitfit_export.errors import BundleError, InputError, RowError, RowFault
from bitfit_export.runtime import BiasSession
from tests import traces
from tests.runtime.conftest import BATCH, TASKS, TEXTS, TOLERANCE, OpenBundle, Reference

if TYPE_CHECKING:
    from bitfit_export.base_model.loading import BaseModel
    from bitfit_export.delta import TaskDelta


def test_tasks_and_labels(shared: BiasSession) -> None:
    assert sorted(shared.tasks) == sorted(TASKS)
    assert shared.labels("three_way") == ("contradiction", "entailment", "neutral")
    assert shared.labels("score") == ()
    with pytest.raises(InputError, match="'rte' is not loaded, expected one of score, three_way, two_way"):
        shared.labels("rte")


def test_only_the_chosen_tasks_are_loaded(bundle: Path, open_bundle: OpenBundle) -> None:
    session = open_bundle(str(bundle), tasks=["score", "two_way", "score"])
    assert session.tasks == ("score", "two_way")
    assert session.run("two_way", **BATCH).shape == (4, 2)
    with pytest.raises(InputError, match="'three_way' is not loaded"):
        session.run("three_way", **BATCH)
    session.load_task(bundle / "tasks" / "three_way.bias")
    assert session.labels("three_way") == ("contradiction", "entailment", "neutral")
    assert open_bundle(bundle, tasks=[]).tasks == ()
    with pytest.raises(InputError, match="no task 'rte', expected one of score, three_way, two_way"):
        open_bundle(bundle, tasks=["score", "rte"])


# --- load, replace, unload


def test_load_a_new_task(
    session: BiasSession, tiny_base: BaseModel, tiny_deltas: dict[str, TaskDelta], make_delta: Any, tmp_path: Path
) -> None:
    """One with more labels than any task of the bundle. The others' logits may change in their last bit, for the
    classifier's product has more rows now."""
    delta = make_delta(tiny_base, "many", labels=[f"l{index}" for index in range(11)], pooling="cls", seed=9)
    packer = traces.compile_model(tiny_base, tiny_deltas).packer
    write_row(tmp_path / "many.bias", packer.pack(delta, task="many"))
    before = session.run("three_way", **BATCH)
    assert session.load_task(tmp_path / "many.bias") == "many"
    assert session.labels("many") == tuple(f"LABEL_{index}" for index in range(11))
    expected = Reference(tiny_base, {"many": delta})("many", BATCH)
    np.testing.assert_allclose(session.run("many", **BATCH), expected, rtol=0, atol=TOLERANCE)
    np.testing.assert_allclose(session.run("three_way", **BATCH), before, rtol=0, atol=1e-6)
    mixed = session.run(["many", "score", "many", "two_way"], **BATCH)
    np.testing.assert_allclose(mixed[[0, 2]], expected[[0, 2]], rtol=0, atol=TOLERANCE)
    assert np.isneginf(mixed[1, 1:]).all()


def test_a_float16_row(session: BiasSession, save_row: Any, bundle: Path, layout: Layout) -> None:
    row = read_row(bundle / "tasks" / "two_way.bias", layout=layout)
    half = save_row(
        task="half", biases=row.biases.astype(np.float16), head=tuple(each.astype(np.float16) for each in row.head)
    )
    session.load_task(half)
    np.testing.assert_allclose(session.run("half", **BATCH), session.run("two_way", **BATCH), rtol=0, atol=0.02)


def test_labels_of_a_loaded_row(session: BiasSession, save_row: Any) -> None:
    path = save_row(task="new")
    session.load_task(path, name="copy", labels=["bad", "good"])
    assert session.labels("copy") == ("bad", "good")
    assert session.predict("a", "copy")[0]["label"] in ("bad", "good")
    session.load_task(path, name="copy")
    assert session.labels("copy") == ("bad", "good"), "a new version keeps its names"
    session.unload_task("copy")
    session.load_task(path, name="copy")
    assert session.labels("copy") == ("LABEL_0", "LABEL_1")
    session.load_task(save_row("three_way", task="copy"))
    assert session.labels("copy") == ("LABEL_0", "LABEL_1", "LABEL_2"), "names of another number don't fit"
    session.load_task(save_row("score", task="value"), labels=[])
    assert session.labels("value") == ()


@pytest.mark.parametrize("labels", [[], ["a"], ["a", "b", "c"], ["a", "a"], ["a", 5], ["a", ""], "ab"])
def test_wrong_labels_are_refused(session: BiasSession, save_row: Any, labels: Any) -> None:
    with pytest.raises(InputError, match="expected 2 different names"):
        session.load_task(save_row(task="new"), labels=labels)
    with pytest.raises(InputError, match="expected 0 different names"):
        session.load_task(save_row("score", task="new"), labels=["value"])
    assert set(session.tasks) == set(TASKS)


@pytest.mark.parametrize("name", ["", "a/b", "../a", " a", "a" * 64, "é", 5])
def test_wrong_names_are_refused(session: BiasSession, save_row: Any, name: Any) -> None:
    for use in (lambda: session.load_task(save_row(), name=name), lambda: session.unload_task(name)):
        with pytest.raises(InputError, match="the task name is"):
            use()
    assert set(session.tasks) == set(TASKS)


def test_versions_only_grow(session: BiasSession, save_row: Any) -> None:
    session.load_task(save_row(task_version=3))
    before = session.run("two_way", **BATCH)
    with pytest.raises(InputError, match="two_way has version 2, expected 3 or more") as caught:
        session.load_task(save_row(task_version=2, biases=np.zeros(session.manifest.layout.bias_count, np.float32)))
    assert caught.value.hint
    np.testing.assert_array_equal(session.run("two_way", **BATCH), before)
    session.load_task(save_row(task_version=3))
    session.load_task(save_row(task_version=4))


def test_unload(session: BiasSession) -> None:
    session.unload_task("two_way")
    assert set(session.tasks) == {"three_way", "score"}
    for use in (lambda: session.run("two_way", **BATCH), lambda: session.unload_task("two_way")):
        with pytest.raises(InputError, match="'two_way' is not loaded, expected one of score, three_way"):
            use()
    assert session.run("three_way", **BATCH).shape == (4, 3)


def refused_rows(row: BiasRow, data: bytes) -> dict[str, tuple[RowFault, bytes]]:
    from bitfit_export.bundle import encode_row

    flipped = bytearray(data)
    flipped[-1] ^= 1
    return {
        "a bit": (RowFault.BAD_PAYLOAD_CHECKSUM, bytes(flipped)),
        "half": (RowFault.TRUNCATED, data[: len(data) // 2]),
        "too long": (RowFault.TRAILING_BYTES, data + b"\0\0\0\0"),
        "empty": (RowFault.TRUNCATED_HEADER, b""),
        "another model": (RowFault.WRONG_LAYOUT, encode_row(replace(row, layout_digest="ab" * 32))),
        "one value": (RowFault.WRONG_LAYOUT, encode_row(replace(row, biases=row.biases[:-1]))),
        "no head": (RowFault.BAD_HEAD, encode_row(replace(row, head=()))),
        "three labels": (RowFault.BAD_LABEL_COUNT, encode_row(replace(row, labels=3))),
        "labels without values": (
            RowFault.BAD_LABEL_COUNT,
            encode_row(replace(row, labels=65_536, head=tuple(tensor[:0] for tensor in row.head))),
        ),
    }


def test_a_refused_row_leaves_everything_as_it_was(
    session: BiasSession, bundle: Path, layout: Layout, tmp_path: Path
) -> None:
    source = bundle / "tasks" / "two_way.bias"
    before = {task: session.run(task, **BATCH) for task in TASKS}
    path = tmp_path / "two_way.bias"
    for fault, data in refused_rows(read_row(source, layout=layout), source.read_bytes()).values():
        path.write_bytes(data)
        with pytest.raises(RowError, match=r"two_way\.bias") as caught:
            session.load_task(path)
        assert caught.value.fault is fault
    with pytest.raises(BundleError, match="cannot be read"):
        session.load_task(tmp_path / "absent.bias")
    assert set(session.tasks) == set(TASKS)
    assert session.labels("two_way") == ("negative", "positive")
    for task in TASKS:
        np.testing.assert_array_equal(session.run(task, **BATCH), before[task])


def test_swaps_while_threads_run(session: BiasSession, save_row: Any) -> None:
    """Every output is exactly that of one of the two rows, for a single task, in a mixed batch and in predict."""
    zeros = np.zeros(session.manifest.layout.bias_count, np.float32)
    versions = [save_row(), save_row(biases=zeros)]
    tasks = ["two_way", "three_way", "two_way", "score"]
    single, mixed, predicted = [], [], []
    for path in versions:
        session.load_task(path)
        single.append(session.run("two_way", **BATCH).tobytes())
        mixed.append(session.run(tasks, **BATCH).tobytes())
        predicted.append(session.predict(TEXTS, "two_way", batch_size=2))
    assert single[0] != single[1]
    stop = threading.Event()
    wrong: list[str] = []

    counts = [0] * 4

    def run(thread: int) -> None:
        while not stop.is_set():
            if session.run("two_way", **BATCH).tobytes() not in single:
                wrong.append("single")
            if session.run(tasks, **BATCH).tobytes() not in mixed:
                wrong.append("mixed")
            if session.predict(TEXTS, "two_way", batch_size=2) not in predicted:
                wrong.append("predict")
            counts[thread] += 1

    with ThreadPoolExecutor(4) as pool:
        runs = [pool.submit(run, thread) for thread in range(4)]
        patience = time.monotonic() + 60
        for step in itertools.count():
            if (step > 200 and min(counts) > 10) or time.monotonic() > patience:
                break
            session.load_task(versions[step % 2])
            session.load_task(versions[step % 2], name=f"other{step % 30}")
            if step % 4 == 0:
                session.unload_task(f"other{step % 30}")
        stop.set()
        assert [each.result() for each in runs] == [None] * 4
    assert not wrong
    assert step > 200
    assert min(counts) > 10
