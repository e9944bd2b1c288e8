"""Every layout gives PyTorch's values, for every kind of task, and takes batches of any size."""

from __future__ import annotations

import itertools
import shutil
import threading
import time
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypeAlias

import numpy as np
import pytest

from bitfit_export.bundle import read_manifest, read_row, write_row
from bitfit_export.errors import BundleError, InputError
from bitfit_export.runtime import BiasSession
from bitfit_export.runtime.engines import choose_engine
from bitfit_export.runtime.engines.base import ProgramFiles
from bitfit_export.runtime.graph_check import check_program
from tests.runtime.conftest import (
    BATCH,
    LAYOUTS,
    TAGS,
    TEXTS,
    TOLERANCE,
    MakeBundle,
    OpenBundle,
    Reference,
    change_manifest,
    random_batch,
)

if TYPE_CHECKING:
    from bitfit_export.delta import TaskDelta

OpenLayout: TypeAlias = Callable[[str], BiasSession]

SENTENCE_TASKS = {"three_way": 3, "two_way": 2, "score": 1, "dense": 2}
TOKEN_TASKS = {"tags": 4, "answers": 2}
MOST_LABELS = 4
ONE_TASK_LAYOUTS = [name for name in LAYOUTS if name != "table"]
MIXED = ["tags", "three_way", "answers", "dense"]


@pytest.mark.parametrize("layout", LAYOUTS)
@pytest.mark.parametrize("task", SENTENCE_TASKS)
def test_a_sentence_task_equals_pytorch(
    open_layout: OpenLayout, kind_reference: Reference, layout: str, task: str
) -> None:
    batch = random_batch(4, 17)
    logits = open_layout(layout).run(task, **batch)
    assert (logits.dtype, logits.shape) == (np.float32, (4, SENTENCE_TASKS[task]))
    np.testing.assert_allclose(logits, kind_reference(task, batch), rtol=0, atol=TOLERANCE)


@pytest.mark.parametrize("layout", LAYOUTS)
@pytest.mark.parametrize("task", TOKEN_TASKS)
def test_a_token_or_span_task_equals_pytorch(
    open_layout: OpenLayout, kind_reference: Reference, layout: str, task: str
) -> None:
    batch = random_batch(4, 17)
    logits = open_layout(layout).run(task, **batch)
    assert (logits.dtype, logits.shape) == (np.float32, (4, 17, TOKEN_TASKS[task]))
    for found, expected in zip(logits, kind_reference.rows(task, batch), strict=True):
        np.testing.assert_allclose(found[: len(expected)], expected, rtol=0, atol=TOLERANCE)


def test_tasks_differ(open_layout: OpenLayout) -> None:
    """So that equality above means something."""
    found = {task: open_layout("packed").run(task, **BATCH)[..., :1] for task in (*SENTENCE_TASKS, *TOKEN_TASKS)}
    for (one, values), (other, others) in itertools.combinations(found.items(), 2):
        assert values.shape != others.shape or np.abs(values - others).max() > 0.05, (one, other)


# --- mixed batches


def test_a_batch_of_token_and_span_tasks(open_layout: OpenLayout, kind_reference: Reference) -> None:
    tasks = ["tags", "answers", "answers", "tags"]
    logits = open_layout("table").run(tasks, **BATCH)
    assert logits.shape == (4, 9, 4)
    for row, task in enumerate(tasks):
        (expected,) = kind_reference.rows(task, {name: values[row : row + 1] for name, values in BATCH.items()})
        labels = TOKEN_TASKS[task]
        np.testing.assert_allclose(logits[row, : len(expected), :labels], expected, rtol=0, atol=TOLERANCE)
        assert np.isneginf(logits[row, :, labels:]).all()
        assert np.isfinite(logits[row, :, :labels]).all()


def test_run_refuses_sentence_and_token_tasks_together(open_layout: OpenLayout) -> None:
    with pytest.raises(InputError, match=r"token task tags and the single_label task three_way.*\nhint: run_outputs"):
        open_layout("table").run(["tags", "three_way", "tags", "tags"], **BATCH)


def test_run_outputs_takes_any_mix(open_layout: OpenLayout) -> None:
    session = open_layout("table")
    found = session.run_outputs(MIXED, **BATCH)
    assert {name: values.shape for name, values in found.items()} == {"logits": (4, 4), "token_logits": (4, 9, 4)}
    assert not any(np.isnan(values).any() for values in found.values())
    for row, task in enumerate(MIXED):
        alone = session.run(task, **{name: values[row : row + 1] for name, values in BATCH.items()})[0]
        values = found["logits" if task in SENTENCE_TASKS else "token_logits"][row]
        labels = alone.shape[-1]
        np.testing.assert_allclose(values[..., :labels], alone, rtol=0, atol=TOLERANCE)
        for each in found.values():
            assert np.isneginf(each[row, ..., labels:]).all()


@pytest.mark.parametrize("layout", LAYOUTS)
def test_run_outputs_of_one_task(open_layout: OpenLayout, layout: str) -> None:
    session = open_layout(layout)
    for task in ("three_way", "tags"):
        found = session.run_outputs(task, **BATCH)
        output = "token_logits" if task == "tags" else "logits"
        np.testing.assert_array_equal(found[output], session.run(task, **BATCH))
        assert all(np.isfinite(values).all() for values in found.values())


def test_run_outputs_of_a_bundle_of_sentence_tasks(shared: BiasSession) -> None:
    assert list(shared.run_outputs("two_way", **BATCH)) == ["logits"]


@pytest.mark.parametrize("layout", ONE_TASK_LAYOUTS)
def test_a_batch_of_different_tasks_needs_a_table(open_layout: OpenLayout, layout: str) -> None:
    session = open_layout(layout)
    for run in (session.run, session.run_outputs):
        with pytest.raises(InputError, match=r"tasks two_way and score, expected one task.*\nhint: .*--layout table"):
            run(["two_way", "score", "two_way", "two_way"], **BATCH)
    np.testing.assert_array_equal(session.run(["two_way"] * 4, **BATCH), session.run("two_way", **BATCH))


@pytest.mark.parametrize("layout", ONE_TASK_LAYOUTS)
@pytest.mark.parametrize("batch_size", [2, 32])
def test_predict_mixes_tasks_in_every_layout(open_layout: OpenLayout, layout: str, batch_size: int) -> None:
    texts = [*TEXTS, "Some words.", ["given", "words"], ("Who rests?", "The dog rests here.")]
    tasks = ["three_way", "two_way", "score", "dense", "three_way", "tags", "tags", "answers"]
    found = open_layout(layout).predict(texts, tasks, batch_size=batch_size)
    for ours, theirs in zip(found, open_layout("table").predict(texts, tasks), strict=True):
        for one, other in zip(*(each if isinstance(each, list) else [each] for each in (ours, theirs)), strict=True):
            assert {**one, "score": 0} == {**other, "score": 0}
            assert one["score"] == pytest.approx(other["score"], abs=TOLERANCE)


# --- fixed shapes


@pytest.mark.parametrize("rows", [1, 2, 3, 4, 7])
@pytest.mark.parametrize("task", ["two_way", "tags"])
def test_a_static_model_takes_batches_of_any_size(
    open_layout: OpenLayout, kind_reference: Reference, rows: int, task: str
) -> None:
    batch = random_batch(rows, 1 + 5 * rows, seed=rows)
    found = open_layout("static").run(task, **batch)
    assert len(found) == rows
    for ours, expected in zip(found, kind_reference.rows(task, batch), strict=True):
        ours = ours[: len(expected)] if task == "tags" else ours
        np.testing.assert_allclose(ours, expected, rtol=0, atol=TOLERANCE)


def test_a_static_model_takes_its_own_sequence_and_no_longer_one(open_layout: OpenLayout) -> None:
    session = open_layout("static")
    assert session.run("tags", **random_batch(2, 48)).shape == (2, 48, 4)
    with pytest.raises(InputError, match="the sequence has 49 tokens, expected at most 48"):
        session.run("tags", **random_batch(2, 49))
    with pytest.raises(InputError, match="item 0 has 52 tokens, expected at most 48"):
        session.encode("word " * 50)
    assert session.encode("word " * 50, truncate=True)["input_ids"].shape == (1, 48)


def test_a_static_model_refuses_more_labels_than_it_has_room_for(
    make_bundle: MakeBundle, open_bundle: OpenBundle, tmp_path: Path
) -> None:
    session = open_bundle(make_bundle("static"))
    row = read_row(make_bundle("static") / "tasks" / "tags.bias", layout=session.manifest.layout)
    head = tuple(
        np.concatenate([tensor, tensor[:1]]) if "labels" in entry.shape else tensor
        for entry, tensor in zip(session.manifest.layout.head, row.head, strict=True)
    )
    write_row(tmp_path / "wide.bias", replace(row, task="wide", labels=5, head=head))
    with pytest.raises(InputError, match="wide has 5 labels, expected at most 4: the model's shapes are fixed"):
        session.load_task(tmp_path / "wide.bias")
    assert "wide" not in session.tasks
    table = open_bundle(make_bundle("packed"))
    table.load_task(tmp_path / "wide.bias")
    np.testing.assert_allclose(table.run("wide", **BATCH)[..., :4], table.run("tags", **BATCH), rtol=0, atol=TOLERANCE)


# --- the manifest and the model


@pytest.mark.parametrize(
    ("layout", "changes", "message"),
    [
        ("named", {"overridable": True}, "has the inputs .*, expected input_ids, attention_mask, token_type_ids"),
        ("overridable", {"overridable": False}, "has the inputs input_ids, attention_mask, token_type_ids, expected"),
        ("static", {"static_shape": (3, 47)}, r"input_ids int64 \[3, 48\], expected .* \[3, 47\]"),
        ("static", {"static_shape": None}, r"input_ids int64 \[3, 48\], expected .* \[any, any\]"),
        ("packed", {"static_shape": (3, 48)}, r"input_ids int64 \[any, any\], expected .* \[3, 48\]"),
        ("packed", {"layout_kind": "named"}, "has the inputs input_ids, .*, bias, .*, expected"),
    ],
)
def test_a_manifest_that_the_model_does_not_fit_is_refused(
    engine: str,
    make_bundle: MakeBundle,
    open_bundle: OpenBundle,
    tmp_path: Path,
    layout: str,
    changes: dict[str, Any],
    message: str,
) -> None:
    folder = Path(shutil.copytree(make_bundle(layout), tmp_path / "bundle"))
    change_manifest(folder, **changes)
    if engine == "openvino" and changes.get("overridable"):
        message = "which the engine openvino makes constants"
    with pytest.raises(BundleError, match=message):
        open_bundle(folder)


def test_a_default_of_another_shape_is_refused(make_bundle: MakeBundle) -> None:
    """An input with a default is checked as any other."""
    folder = make_bundle("overridable")
    manifest = read_manifest(folder)
    model = (folder / "model.onnx").read_bytes()
    program = choose_engine("ort").open(ProgramFiles(folder / "model.onnx", model, folder, "none"))
    assert check_program(folder, program, manifest) is None
    name, tensor = next(iter(program.defaults.items()))
    program.defaults = {**program.defaults, name: tensor._replace(shape=(5,))}
    with pytest.raises(BundleError, match=rf"the input {name} float32 \[5\], expected"):
        check_program(folder, program, manifest)


@pytest.mark.parametrize("layout", LAYOUTS)
def test_the_layouts_options_are_in_the_manifest(open_layout: OpenLayout, layout: str) -> None:
    options, manifest = LAYOUTS[layout], open_layout(layout).manifest
    assert manifest.layout_kind == options.get("layout", "table")
    assert manifest.static_shape == options.get("static_shape")
    assert manifest.overridable == options.get("overridable", False)


# --- tasks come and go


@pytest.mark.parametrize("layout", ["packed", "named"])
def test_swaps_while_threads_run(make_bundle: MakeBundle, open_bundle: OpenBundle, tmp_path: Path, layout: str) -> None:
    """Every output is exactly that of one of the two rows."""
    session = open_bundle(make_bundle(layout))
    row = read_row(make_bundle(layout) / "tasks" / "two_way.bias", layout=session.manifest.layout)
    versions = [tmp_path / "old.bias", tmp_path / "new.bias"]
    write_row(versions[0], row)
    write_row(versions[1], replace(row, biases=np.zeros_like(row.biases)))
    expected = []
    for path in versions:
        session.load_task(path)
        expected.append(session.run("two_way", **BATCH).tobytes())
    assert expected[0] != expected[1]
    stop = threading.Event()
    wrong: list[str] = []

    counts = [0] * 3

    def run(thread: int) -> None:
        while not stop.is_set():
            if session.run("two_way", **BATCH).tobytes() not in expected:
                wrong.append("a run saw half a row")
            counts[thread] += 1

    with ThreadPoolExecutor(3) as pool:
        runs = [pool.submit(run, thread) for thread in range(3)]
        patience = time.monotonic() + 60
        for step in itertools.count():
            if (step > 200 and min(counts) > 20) or time.monotonic() > patience:
                break
            session.load_task(versions[step % 2])
            session.load_task(versions[step % 2], name="other")
            session.unload_task("other")
        stop.set()
        assert [each.result() for each in runs] == [None] * 3
    assert not wrong
    assert step > 200
    assert min(counts) > 20


def test_a_new_task_of_another_kind(
    make_bundle: MakeBundle, open_bundle: OpenBundle, kind_deltas: dict[str, TaskDelta]
) -> None:
    """A token task's row replaces a sentence task's under its name; labels go with it."""
    session = open_bundle(make_bundle("packed"), tasks=["two_way"])
    session.load_task(make_bundle("packed") / "tasks" / "tags.bias", name="two_way", labels=TAGS)
    assert session.labels("two_way") == kind_deltas["tags"].config.labels
    assert session.run("two_way", **BATCH).shape == (4, 9, 4)
