"""BiasSession against PyTorch, and everything it refuses. The reference never goes through a bundle."""

from __future__ import annotations

import itertools
import json
import shutil
import subprocess
import sys
import textwrap
import threading
import time
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import pytest

from bitfit_export.bundle import BiasRow, Layout, TaskRecord, read_manifest, read_row, write_manifest, write_row
from bitfit_export.errors import BundleError, InputError, RowError, RowFault, UsageError
from bitfit_export.files import sha256_of_file
from bitfit_export.runtime import BiasSession

if TYPE_CHECKING:
    from bitfit_export.base_models import BaseModel
    from bitfit_export.delta import TaskDelta

TOLERANCE = 1e-5
TASKS = ("three_way", "two_way", "score")
LABELS = {"three_way": 3, "two_way": 2, "score": 1}
TEXTS = [
    "A short one.",
    ("The dog sleeps on the sofa.", "An animal is resting."),
    "Something rather longer, with a few more words in it, so that the others of the batch are padded.",
    "",
    ("one", "two"),
]


class Reference:
    """The logits that PyTorch gives for a task, one row at a time and without padding."""

    def __init__(self, base: BaseModel, deltas: dict[str, TaskDelta]) -> None:
        from bitfit_export.task_model import merged_model

        self.models = {name: merged_model(base, delta) for name, delta in deltas.items()}

    def __call__(self, task: str, batch: dict[str, np.ndarray]) -> np.ndarray:
        import torch

        rows = []
        for row in range(len(batch["input_ids"])):
            length = int(batch["attention_mask"][row].sum())
            inputs = {name: torch.from_numpy(values[row : row + 1, :length]) for name, values in batch.items()}
            with torch.inference_mode():
                rows.append(self.models[task](**inputs)["logits"].numpy())
        return np.concatenate(rows)


@pytest.fixture(scope="module")
def reference(tiny_base: BaseModel, tiny_deltas: dict[str, TaskDelta]) -> Reference:
    return Reference(tiny_base, tiny_deltas)


@pytest.fixture(scope="module")
def shared(tiny_bundle: Path) -> BiasSession:
    """For tests that load and unload nothing."""
    return BiasSession(tiny_bundle, threads=1)


@pytest.fixture
def session(tiny_bundle: Path) -> BiasSession:
    return BiasSession(tiny_bundle, threads=1)


@pytest.fixture
def copied(tiny_bundle: Path, tmp_path: Path) -> Path:
    """A bundle to damage."""
    return Path(shutil.copytree(tiny_bundle, tmp_path / "bundle"))


@pytest.fixture(scope="module")
def layout(tiny_bundle: Path) -> Layout:
    return read_manifest(tiny_bundle).layout


@pytest.fixture
def save_row(tiny_bundle: Path, layout: Layout, tmp_path: Path) -> Any:
    """Write a row of the bundle with some fields changed, and give its path."""

    def save(source: str = "two_way", /, **changes: Any) -> Path:
        row = read_row(tiny_bundle / "tasks" / f"{source}.bias", layout=layout)
        path = tmp_path / f"{len(list(tmp_path.iterdir()))}.bias"
        write_row(path, replace(row, **changes))
        return path

    return save


def random_batch(rows: int, length: int, *, seed: int = 0) -> dict[str, np.ndarray]:
    """Random ids; each row is padded from its own length on, the first one not at all."""
    random = np.random.default_rng(seed)
    lengths = np.concatenate([[length], random.integers(1, length + 1, rows - 1)])
    mask = (np.arange(length) < lengths[:, None]).astype(np.int64)
    types = random.integers(0, 2, (rows, length)) * mask
    return {
        "input_ids": random.integers(1, 30522, (rows, length)) * mask,
        "attention_mask": mask,
        "token_type_ids": types,
    }


BATCH = random_batch(4, 9)


def change_manifest(folder: Path, **changes: Any) -> None:
    write_manifest(folder, replace(read_manifest(folder), **changes))


def record_of(folder: Path, task: str, **changes: Any) -> dict[str, TaskRecord]:
    tasks = read_manifest(folder).tasks
    path = folder / tasks[task].file
    return tasks | {task: replace(tasks[task], sha256=sha256_of_file(path), **changes)}


# --- equal to PyTorch


@pytest.mark.parametrize("task", TASKS)
@pytest.mark.parametrize(("rows", "length"), [(1, 1), (1, 64), (2, 7), (5, 33)])
def test_one_task_equals_pytorch(shared: BiasSession, reference: Reference, task: str, rows: int, length: int) -> None:
    batch = random_batch(rows, length, seed=length)
    logits = shared.run(task, **batch)
    assert logits.dtype == np.float32
    assert logits.shape == (rows, LABELS[task])
    np.testing.assert_allclose(logits, reference(task, batch), rtol=0, atol=TOLERANCE)


def test_mixed_batch_equals_pytorch(shared: BiasSession, reference: Reference) -> None:
    batch = random_batch(9, 21)
    tasks = [TASKS[row % 3] for row in range(9)]
    logits = shared.run(tasks, **batch)
    assert logits.shape == (9, 3)
    for row, task in enumerate(tasks):
        expected = reference(task, {name: values[row : row + 1] for name, values in batch.items()})[0]
        np.testing.assert_allclose(logits[row, : LABELS[task]], expected, rtol=0, atol=TOLERANCE)
        assert np.isneginf(logits[row, LABELS[task] :]).all()


def test_tasks_differ(shared: BiasSession) -> None:
    """So that equality above means something: the same head on another task's biases would not pass."""
    logits = {task: shared.run(task, **BATCH) for task in TASKS}
    assert np.abs(logits["three_way"][:, :2] - logits["two_way"]).max() > 0.1
    assert np.abs(logits["two_way"][:, :1] - logits["score"]).max() > 0.1


def test_width_of_a_mixed_batch_is_that_of_its_tasks(shared: BiasSession) -> None:
    assert shared.run(["two_way", "score", "score", "two_way"], **BATCH).shape == (4, 2)
    assert shared.run(["score"] * 4, **BATCH).shape == (4, 1)
    assert np.isfinite(shared.run(["three_way"] * 4, **BATCH)).all()


@pytest.mark.parametrize("task", TASKS)
def test_padding_changes_nothing(shared: BiasSession, task: str) -> None:
    short = random_batch(1, 11)
    padded = {name: np.pad(values, ((0, 0), (0, 30))) for name, values in short.items()}
    np.testing.assert_allclose(shared.run(task, **padded), shared.run(task, **short), rtol=0, atol=TOLERANCE)
    # What stands at a padded position does not matter either.
    padded["input_ids"][0, 11:] = 999
    np.testing.assert_allclose(shared.run(task, **padded), shared.run(task, **short), rtol=0, atol=TOLERANCE)


def test_missing_token_type_ids_are_zeros(shared: BiasSession) -> None:
    batch = BATCH | {"token_type_ids": np.zeros_like(BATCH["input_ids"])}
    expected = shared.run("two_way", **batch)
    del batch["token_type_ids"]
    np.testing.assert_array_equal(shared.run("two_way", **batch), expected)
    assert np.abs(shared.run("two_way", **BATCH) - expected).max() > 1e-3


def test_integers_of_any_kind(shared: BiasSession) -> None:
    import torch

    expected = shared.run("two_way", **BATCH)
    for convert in (
        lambda values: values.astype(np.int32),
        lambda values: values.astype(np.uint16),
        lambda values: values.astype(np.uint64),
        lambda values: np.asfortranarray(values),
        lambda values: values.tolist(),
        torch.from_numpy,
    ):
        batch = {name: convert(values) for name, values in BATCH.items()}
        np.testing.assert_array_equal(shared.run("two_way", **batch), expected)


def test_logits_are_the_callers_own(shared: BiasSession) -> None:
    first = shared.run("two_way", **BATCH)
    kept = first.copy()
    shared.run("two_way", **random_batch(4, 9, seed=5))
    np.testing.assert_array_equal(first, kept)
    first[:] = 0


@pytest.mark.slow
def test_a_model_without_token_types(tmp_path: Path, minilm_folder: Path, make_delta: Any) -> None:
    """RoBERTa's kind: the tokenizer has type ids for a pair, the graph has no input for them."""
    transformers = pytest.importorskip("transformers", reason="needs bitfit-export[export]")
    from bitfit_export.base_models import load_base_model
    from bitfit_export.compiler import compile_bundle

    config = transformers.RobertaConfig(
        vocab_size=30522,
        hidden_size=32,
        num_hidden_layers=1,
        num_attention_heads=4,
        intermediate_size=64,
        max_position_embeddings=66,
        type_vocab_size=1,
        pad_token_id=0,
    )
    transformers.RobertaModel(config).save_pretrained(tmp_path / "base")
    transformers.PreTrainedTokenizerFast(
        tokenizer_file=str(minilm_folder / "tokenizer.json"),
        model_input_names=["input_ids", "attention_mask"],
        model_max_length=64,
        pad_token="[PAD]",
    ).save_pretrained(tmp_path / "base")
    base = load_base_model(str(tmp_path / "base"))
    delta = make_delta(base, "task")
    (tmp_path / "bundle").mkdir()
    compile_bundle(base, {"task": delta}, tmp_path / "bundle")
    session = BiasSession(tmp_path / "bundle", threads=1)
    batch = session.encode(TEXTS)
    assert list(batch) == ["input_ids", "attention_mask"]
    expected = Reference(base, {"task": delta})("task", batch)
    np.testing.assert_allclose(session.run("task", **batch), expected, rtol=0, atol=TOLERANCE)
    assert [each["label"] for each in session.predict(TEXTS, "task")] == [
        ("no", "yes")[row.argmax()] for row in expected
    ]
    zeros = np.zeros_like(batch["input_ids"])
    np.testing.assert_array_equal(session.run("task", **batch, token_type_ids=zeros), session.run("task", **batch))
    with pytest.raises(InputError, match=r"row 0 has 1 in token_type_ids, expected 0$"):
        session.run("task", **batch, token_type_ids=zeros + 1)


# --- texts


def test_encode_gives_the_inputs_of_run(shared: BiasSession, reference: Reference) -> None:
    batch = shared.encode(TEXTS)
    assert list(batch) == ["input_ids", "attention_mask", "token_type_ids"]
    np.testing.assert_allclose(shared.run("three_way", **batch), reference("three_way", batch), rtol=0, atol=TOLERANCE)


def test_predict_equals_the_hugging_face_pipeline(
    shared: BiasSession, tiny_base: BaseModel, tiny_deltas: dict[str, TaskDelta]
) -> None:
    import torch
    import transformers

    labels = shared.labels("three_way")
    config = transformers.BertConfig.from_dict(tiny_base.module.config.to_dict())
    config.num_labels = len(labels)
    config.id2label = dict(enumerate(labels))
    config.problem_type = "single_label_classification"
    model = transformers.BertForSequenceClassification(config).eval()
    delta = tiny_deltas["three_way"]
    state = tiny_base.module.state_dict() | {
        name: torch.from_numpy(value) for name, value in delta.merge(tiny_base.biases).items()
    }
    model.load_state_dict(
        {f"bert.{name}": value for name, value in state.items()}
        | {name: torch.from_numpy(value) for name, value in delta.head.items()}
    )
    pipeline = transformers.pipeline("text-classification", model=model, tokenizer=tiny_base.tokenizer, device="cpu")
    inputs = [{"text": each[0], "text_pair": each[1]} if isinstance(each, tuple) else {"text": each} for each in TEXTS]

    found, expected = shared.predict(TEXTS, "three_way"), [pipeline(each) for each in inputs]
    for ours, theirs in zip(found, expected, strict=True):
        assert list(ours) == ["label", "score"]
        assert ours["label"] == theirs["label"]
        assert ours["score"] == pytest.approx(theirs["score"], abs=TOLERANCE)
    for ours, theirs in zip(shared.predict(TEXTS, "three_way", top_k=2), inputs, strict=True):
        best = pipeline(theirs, top_k=2)
        assert [each["label"] for each in ours] == [each["label"] for each in best]
        assert [each["score"] for each in ours] == pytest.approx([each["score"] for each in best], abs=TOLERANCE)
    # A single string gives a list of one, in both.
    assert len(shared.predict(TEXTS[0], "three_way")) == len(pipeline(TEXTS[0])) == 1
    assert len(shared.predict(TEXTS[1], "three_way")) == 1


def test_predict_of_a_regression_is_the_value(shared: BiasSession, reference: Reference) -> None:
    found = shared.predict(TEXTS, "score")
    expected = reference("score", shared.encode(TEXTS))[:, 0]
    assert [list(each) for each in found] == [["score"]] * len(TEXTS)
    assert [each["score"] for each in found] == pytest.approx(list(expected), abs=TOLERANCE)


def test_predict_of_a_multi_label_task_is_the_highest_sigmoid(session: BiasSession, save_row: Any) -> None:
    session.load_task(save_row("three_way", task="topics", problem_type="multi_label"), labels=["x", "y", "z"])
    scores = 1 / (1 + np.exp(-session.run("topics", **session.encode(TEXTS)).astype(np.float64)))
    for found, each in zip(session.predict(TEXTS, "topics"), scores, strict=True):
        assert found["label"] == "xyz"[each.argmax()]
        assert found["score"] == pytest.approx(each.max())
    for found, each in zip(session.predict(TEXTS, "topics", top_k=9), scores, strict=True):
        assert {one["label"]: one["score"] for one in found} == pytest.approx(dict(zip("xyz", each, strict=True)))
        assert [one["score"] for one in found] == pytest.approx(sorted(each, reverse=True))


@pytest.mark.parametrize("batch_size", [1, 2, 3, 32])
def test_predict_keeps_the_order_whatever_the_batches(shared: BiasSession, batch_size: int) -> None:
    tasks = [TASKS[row % 3] for row in range(len(TEXTS))]
    alone = [shared.predict([text], task)[0] for text, task in zip(TEXTS, tasks, strict=True)]
    found = shared.predict(TEXTS, tasks, batch_size=batch_size)
    for ours, theirs in zip(found, alone, strict=True):
        assert ours.get("label") == theirs.get("label")
        assert ours["score"] == pytest.approx(theirs["score"], abs=TOLERANCE)


def test_predict_truncates_when_told(shared: BiasSession) -> None:
    long = "word " * 100
    with pytest.raises(InputError, match="row 1 has 102 tokens, expected at most 64"):
        shared.predict(["fine", long], "two_way")
    cut = shared.predict([long], "two_way", truncate=True)
    assert cut == shared.predict(["word " * 62], "two_way")
    assert shared.predict([long], "two_way", truncate=True, max_length=10) == shared.predict(["word " * 8], "two_way")


def test_predict_of_extreme_logits(session: BiasSession, save_row: Any, tiny_bundle: Path, layout: Layout) -> None:
    """No overflow, no NaN, no warning."""
    row = read_row(tiny_bundle / "tasks" / "two_way.bias", layout=layout)
    head = (*row.head[:2], np.array([3e38, -3e38], np.float32))
    for problem_type in ("single_label", "multi_label"):
        session.load_task(save_row(task="extreme", head=head, problem_type=problem_type), labels=["up", "down"])
        with np.errstate(all="raise", under="ignore"):
            assert session.predict("a", "extreme", top_k=2) == [
                [{"label": "up", "score": 1.0}, {"label": "down", "score": 0.0}]
            ]


# --- what the session knows


def test_tasks_and_labels(shared: BiasSession) -> None:
    assert sorted(shared.tasks) == sorted(TASKS)
    assert shared.labels("three_way") == ("contradiction", "entailment", "neutral")
    assert shared.labels("score") == ()
    with pytest.raises(InputError, match="'rte' is not loaded, expected one of score, three_way, two_way"):
        shared.labels("rte")


def test_only_the_chosen_tasks_are_loaded(tiny_bundle: Path) -> None:
    session = BiasSession(str(tiny_bundle), threads=1, tasks=["score", "two_way", "score"])
    assert session.tasks == ("score", "two_way")
    assert session.run("two_way", **BATCH).shape == (4, 2)
    with pytest.raises(InputError, match="'three_way' is not loaded"):
        session.run("three_way", **BATCH)
    session.load_task(tiny_bundle / "tasks" / "three_way.bias")
    assert session.labels("three_way") == ("contradiction", "entailment", "neutral")
    assert BiasSession(tiny_bundle, tasks=[]).tasks == ()
    with pytest.raises(InputError, match="no task 'rte', expected one of score, three_way, two_way"):
        BiasSession(tiny_bundle, tasks=["score", "rte"])


# --- load, replace, unload


def test_load_a_new_task(
    session: BiasSession, tiny_base: BaseModel, layout: Layout, make_delta: Any, tmp_path: Path
) -> None:
    """One with more labels than any task of the bundle. The others' logits may change in their last bit, for the
    classifier's product has more rows now."""
    from bitfit_export.compiler.rows import pack_row

    delta = make_delta(tiny_base, "many", labels=[f"l{index}" for index in range(11)], pooling="cls", seed=9)
    write_row(tmp_path / "many.bias", pack_row(tiny_base, delta, layout, task="many"))
    before = session.run("three_way", **BATCH)
    assert session.load_task(tmp_path / "many.bias") == "many"
    assert session.labels("many") == tuple(f"LABEL_{index}" for index in range(11))
    expected = Reference(tiny_base, {"many": delta})("many", BATCH)
    np.testing.assert_allclose(session.run("many", **BATCH), expected, rtol=0, atol=TOLERANCE)
    np.testing.assert_allclose(session.run("three_way", **BATCH), before, rtol=0, atol=1e-6)
    mixed = session.run(["many", "score", "many", "two_way"], **BATCH)
    np.testing.assert_allclose(mixed[[0, 2]], expected[[0, 2]], rtol=0, atol=TOLERANCE)
    assert np.isneginf(mixed[1, 1:]).all()


def test_a_float16_row(session: BiasSession, save_row: Any, tiny_bundle: Path, layout: Layout) -> None:
    row = read_row(tiny_bundle / "tasks" / "two_way.bias", layout=layout)
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
    }


def test_a_refused_row_leaves_everything_as_it_was(
    session: BiasSession, tiny_bundle: Path, layout: Layout, tmp_path: Path
) -> None:
    source = tiny_bundle / "tasks" / "two_way.bias"
    before = {task: session.run(task, **BATCH) for task in TASKS}
    path = tmp_path / "two_way.bias"
    for fault, data in refused_rows(read_row(source, layout=layout), source.read_bytes()).values():
        path.write_bytes(data)
        with pytest.raises(RowError, match=r"two_way\.bias") as caught:
            session.load_task(path)
        assert caught.value.fault is fault
    with pytest.raises(BundleError, match="can't be read"):
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

    def run(_: int) -> int:
        count = 0
        while not stop.is_set():
            if session.run("two_way", **BATCH).tobytes() not in single:
                wrong.append("single")
            if session.run(tasks, **BATCH).tobytes() not in mixed:
                wrong.append("mixed")
            if session.predict(TEXTS, "two_way", batch_size=2) not in predicted:
                wrong.append("predict")
            count += 1
        return count

    with ThreadPoolExecutor(4) as pool:
        counts = [pool.submit(run, index) for index in range(4)]
        until = time.monotonic() + 2
        for step in itertools.count():
            if time.monotonic() > until:
                break
            session.load_task(versions[step % 2])
            session.load_task(versions[step % 2], name=f"other{step % 30}")
            if step % 4 == 0:
                session.unload_task(f"other{step % 30}")
        stop.set()
        assert all(count.result() > 3 for count in counts)
    assert not wrong
    assert step > 10


# --- refused inputs


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"input_ids": np.zeros((0, 9), np.int64)}, r"input_ids has shape \[0, 9\], expected at least one row"),
        ({"input_ids": np.zeros((4, 0), np.int64)}, r"input_ids has shape \[4, 0\], expected at least one row"),
        ({"input_ids": []}, r"input_ids has shape \[0\], expected two dimensions"),
        ({"input_ids": [[]]}, r"input_ids has shape \[1, 0\], expected at least one row"),
        ({"input_ids": np.zeros(9, np.int64)}, r"input_ids has shape \[9\], expected two dimensions"),
        ({"input_ids": np.zeros((4, 9, 1), np.int64)}, r"expected two dimensions, \[batch, sequence\]"),
        ({"input_ids": [[1, 2], [3]]}, "input_ids has rows of different lengths"),
        ({"input_ids": [["a", "b"]]}, "input_ids has dtype <U1, expected integers"),
        ({"input_ids": [[1, None]]}, "input_ids has dtype object, expected integers"),
        ({"input_ids": np.ones((4, 9))}, "input_ids has dtype float64, expected integers"),
        ({"attention_mask": np.ones((4, 9), bool)}, "attention_mask has dtype bool, expected integers"),
        ({"attention_mask": np.ones((4, 8), np.int64)}, r"attention_mask has shape \[4, 8\], expected .* \[4, 9\]"),
        ({"token_type_ids": np.ones((1, 9), np.int64)}, r"token_type_ids has shape \[1, 9\], expected .* \[4, 9\]"),
        ({"input_ids": np.full((4, 9), 2**63, np.uint64)}, "expected integers that int64 can hold"),
    ],
)
def test_wrong_arrays_are_refused(shared: BiasSession, changes: dict[str, Any], message: str) -> None:
    with pytest.raises(InputError, match=message):
        shared.run("two_way", **(BATCH | changes))


@pytest.mark.parametrize(
    ("name", "value", "message"),
    [
        ("input_ids", -1, "row 2 has -1 in input_ids, expected 0 to 30521"),
        ("input_ids", 30522, "row 2 has 30522 in input_ids, expected 0 to 30521"),
        ("attention_mask", 2, "row 2 has 2 in attention_mask, expected 0 to 1"),
        ("attention_mask", -1, "row 2 has -1 in attention_mask, expected 0 to 1"),
        ("token_type_ids", -1, "row 2 has -1 in token_type_ids, expected 0 or more"),
        ("token_type_ids", 2, "can't run this batch: .*out of data bounds"),
    ],
)
def test_values_out_of_range_are_refused(shared: BiasSession, name: str, value: int, message: str) -> None:
    batch = {key: values.copy() for key, values in BATCH.items()}
    batch[name][2, 0] = value
    with pytest.raises(InputError, match=message) as caught:
        shared.run("two_way", **batch)
    assert "\n" not in caught.value.message


def test_the_largest_id_is_taken(shared: BiasSession) -> None:
    batch = BATCH | {"input_ids": np.full((4, 9), 30521)}
    assert shared.run("two_way", **batch).shape == (4, 2)


def test_a_row_without_a_token_is_refused(shared: BiasSession) -> None:
    mask = BATCH["attention_mask"].copy()
    mask[3] = 0
    with pytest.raises(InputError, match="row 3 has an attention_mask of zeros only"):
        shared.run("two_way", **(BATCH | {"attention_mask": mask}))


def test_a_long_sequence_is_refused(shared: BiasSession) -> None:
    assert shared.run("two_way", **random_batch(1, 64)).shape == (1, 2)
    with pytest.raises(InputError, match="the sequence has 65 tokens, expected at most 64"):
        shared.run("two_way", **random_batch(1, 65))


@pytest.mark.parametrize(
    ("task", "message"),
    [
        ("rte", "'rte' is not loaded, expected one of score, three_way, two_way"),
        ("", "'' is not loaded"),
        (["two_way"], "there are 1 tasks for 4 rows"),
        ([], "there are 0 tasks for 4 rows"),
        (["two_way"] * 5, "there are 5 tasks for 4 rows"),
        (["two_way", "rte", "score", "score"], "'rte' is not loaded"),
        (["two_way", None, "score", "score"], "a task is None"),
        (None, "the task is None"),
        (5, "the task is 5"),
    ],
)
def test_wrong_tasks_are_refused(shared: BiasSession, task: Any, message: str) -> None:
    with pytest.raises(InputError, match=message):
        shared.run(task, **BATCH)
    with pytest.raises(InputError, match=message):
        shared.predict(["a"] * 4, task)


@pytest.mark.parametrize("problem_type", ["token", "span"])
def test_tasks_that_are_not_of_sentences_are_refused(session: BiasSession, save_row: Any, problem_type: str) -> None:
    session.load_task(save_row(task="tags", problem_type=problem_type))
    for use in (
        lambda: session.predict("a", "tags"),
        lambda: session.predict(["a", "b"], ["two_way", "tags"]),
        lambda: session.run("tags", **BATCH),
    ):
        with pytest.raises(InputError, match=f"tags is a {problem_type} task, expected one of single_label"):
            use()


def test_options_out_of_range_are_refused(tiny_bundle: Path, shared: BiasSession) -> None:
    for threads in (0, -1, 1.5, True):
        with pytest.raises(UsageError, match=r"threads is .*, expected 1 or more"):
            BiasSession(tiny_bundle, threads=threads)  # type: ignore[arg-type]
    for options in ({"batch_size": 0}, {"top_k": 0}, {"top_k": True}, {"batch_size": "4"}):
        with pytest.raises(UsageError, match="expected 1 or more"):
            shared.predict("a", "two_way", **options)


# --- refused bundles


def test_missing_files_are_named(copied: Path) -> None:
    for name in ("model.onnx.data", "tokenizer.json", "tasks/score.bias", "model.onnx", "manifest.json"):
        (copied / name).rename(copied / "aside")
        with pytest.raises(BundleError, match=f"{name} can't be read"):
            BiasSession(copied)
        (copied / "aside").rename(copied / name)


@pytest.mark.parametrize("name", ["model.onnx", "model.onnx.data", "tokenizer.json"])
def test_a_file_of_another_size_is_refused(copied: Path, name: str) -> None:
    path = copied / name
    path.write_bytes(path.read_bytes()[:-1])
    with pytest.raises(BundleError, match=rf"{name} has \d+ bytes, expected \d+"):
        BiasSession(copied)


def test_a_model_that_is_no_model_is_refused_in_one_line(copied: Path, capfd: pytest.CaptureFixture[str]) -> None:
    path = copied / "model.onnx"
    path.write_bytes(b"\xff" * path.stat().st_size)
    with pytest.raises(BundleError, match=r"the model .*model.onnx can't be loaded: ") as caught:
        BiasSession(copied)
    assert "\n" not in caught.value.message
    assert capfd.readouterr() == ("", "")


def test_hashes_are_checked_when_asked_for(copied: Path) -> None:
    path = copied / "model.onnx.data"
    data = bytearray(path.read_bytes())
    data[len(data) // 2] ^= 1
    path.write_bytes(data)
    BiasSession(copied, threads=1)
    with pytest.raises(BundleError, match=r"model.onnx.data has sha256"):
        BiasSession(copied, threads=1, check_hashes=True)


def test_a_good_bundle_has_the_hashes_of_its_manifest(tiny_bundle: Path) -> None:
    assert set(BiasSession(tiny_bundle, threads=1, check_hashes=True).tasks) == set(TASKS)


def test_a_model_of_another_layout_is_refused(copied: Path) -> None:
    """Same names, same shapes, other order: nothing but the digest tells."""
    path = copied / "model.onnx"
    digest = read_manifest(copied).layout.digest.encode()
    assert path.read_bytes().count(digest) == 1
    path.write_bytes(path.read_bytes().replace(digest, b"0" * 64))
    with pytest.raises(BundleError, match="has layout digest 000000000000, expected"):
        BiasSession(copied)


def test_a_manifest_with_other_inputs_is_refused(copied: Path) -> None:
    inputs = read_manifest(copied).inputs
    change_manifest(copied, inputs=(*inputs[:-1], "another"))
    with pytest.raises(BundleError, match=r"has the inputs input_ids, .*, expected input_ids, .*another"):
        BiasSession(copied)


@pytest.mark.parametrize(
    ("name", "edit", "message"),
    [
        ("bias_table", lambda value: value.type.tensor_type.shape.dim[1].Clear(), r"\[any, any\], expected"),
        ("input_ids", lambda value: setattr(value.type.tensor_type.shape.dim[0], "dim_value", 1), r"\[1, any\]"),
        ("head.pooling", lambda value: setattr(value, "name", "head.other"), "expected input_ids"),
    ],
)
def test_a_model_with_another_interface_is_refused(copied: Path, name: str, edit: Any, message: str) -> None:
    import onnx

    path = copied / "model.onnx"
    model = onnx.load(path, load_external_data=False)
    edit(next(value for value in model.graph.input if value.name == name))
    for node in model.graph.node:  # follow a rename, so that the graph still loads
        names = [value.name for value in model.graph.input]
        for index, used in enumerate(node.input):
            if used == name and name not in names:
                node.input[index] = "head.other"
    path.write_bytes(model.SerializeToString())
    files = read_manifest(copied).files
    change = {"model.onnx": replace(files["model.onnx"], size=path.stat().st_size)}
    change_manifest(copied, files=files | change, inputs=tuple(value.name for value in model.graph.input))
    with pytest.raises(BundleError, match=message):
        BiasSession(copied)


@pytest.mark.parametrize("kind", ["packed", "named"])
def test_another_kind_of_layout_is_refused(copied: Path, kind: str) -> None:
    change_manifest(copied, layout_kind=kind)
    with pytest.raises(BundleError, match=f"has layout {kind}, expected table\nhint: "):
        BiasSession(copied)


def test_a_row_that_is_not_the_recorded_one_is_refused(copied: Path, layout: Layout) -> None:
    path = copied / "tasks" / "two_way.bias"
    row = read_row(path, layout=layout)
    write_row(path, replace(row, biases=row.biases + np.float32(1)))
    with pytest.raises(BundleError, match=r"two_way.bias has sha256 .*, expected"):
        BiasSession(copied)
    assert set(BiasSession(copied, tasks=["score"]).tasks) == {"score"}


@pytest.mark.parametrize("change", [{"task": "other"}, {"problem_type": "multi_label"}, {"task_version": 2}])
def test_a_row_that_the_manifest_describes_otherwise_is_refused(
    copied: Path, layout: Layout, change: dict[str, Any]
) -> None:
    path = copied / "tasks" / "two_way.bias"
    write_row(path, replace(read_row(path, layout=layout), **change))
    change_manifest(copied, tasks=record_of(copied, "two_way"))
    with pytest.raises(BundleError, match=r"is the row .*, expected two_way \(single_label, 2 labels, version 1\)"):
        BiasSession(copied)


def test_a_damaged_row_is_refused(copied: Path) -> None:
    path = copied / "tasks" / "two_way.bias"
    path.write_bytes(path.read_bytes()[:-4])
    with pytest.raises(RowError, match=r"two_way\.bias"):
        BiasSession(copied)


# --- what it needs

CLEAN_RUN = """
    import sys

    class Blocker:
        def find_spec(self, name, path=None, target=None):
            if name.split(".")[0] in {"torch", "onnx", "transformers", "safetensors", "onnx_graphsurgeon", "onnx_ir"}:
                raise ImportError(f"{name} is blocked")

    sys.meta_path.insert(0, Blocker())

    import json
    from bitfit_export.runtime import BiasSession

    session = BiasSession(sys.argv[1], threads=1)
    session.load_task(sys.argv[1] + "/tasks/two_way.bias", name="again", labels=["negative", "positive"])
    found = session.predict(["a text", ("a", "pair")], ["two_way", "again"])
    print(json.dumps([found, session.run("score", **session.encode("a text")).tolist()]))
"""


def test_runs_without_torch_onnx_or_transformers(tiny_bundle: Path, shared: BiasSession) -> None:
    done = subprocess.run(
        [sys.executable, "-W", "error", "-c", textwrap.dedent(CLEAN_RUN), str(tiny_bundle)],
        capture_output=True,
        text=True,
        check=False,
    )
    assert (done.returncode, done.stderr) == (0, "")
    predictions, score = json.loads(done.stdout)
    assert predictions == shared.predict(["a text", ("a", "pair")], "two_way")
    np.testing.assert_allclose(score, shared.run("score", **shared.encode("a text")), rtol=0, atol=TOLERANCE)
