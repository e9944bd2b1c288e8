"""A session's logits are PyTorch's; arrays and tasks that it can't take are refused before anything runs."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest

from bitfit_export.errors import InputError, UsageError
from bitfit_export.runtime import BiasSession
from bitfit_export.runtime.threads import most_threads
from tests import traces
from tests.runtime.conftest import BATCH, LABELS, TASKS, TEXTS, TOLERANCE, Reference, random_batch


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


def test_arrays_that_cannot_be_written_to(shared: BiasSession) -> None:
    batch = {name: values.copy() for name, values in BATCH.items()}
    for values in batch.values():
        values.flags.writeable = False
    np.testing.assert_array_equal(shared.run("two_way", **batch), shared.run("two_way", **BATCH))


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
    from bitfit_export.base_model.loading import load_base_model

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
    traces.compile_bundle(base, {"task": delta}, tmp_path / "bundle")
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
        ("token_type_ids", 2, "can't run this batch: .*(out of data bounds|expected 0 to 1)"),
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
def test_tasks_that_the_model_has_no_output_for_are_refused(
    session: BiasSession, save_row: Any, problem_type: str
) -> None:
    with pytest.raises(InputError, match=f"tags is a {problem_type} task, but the model has no output token_logits"):
        session.load_task(save_row(task="tags", problem_type=problem_type))
    assert set(session.tasks) == set(TASKS)


def test_options_out_of_range_are_refused(tiny_bundle: Path, shared: BiasSession) -> None:
    for threads in (0, -1, 1.5, True):
        with pytest.raises(UsageError, match=r"threads is .*, expected 1 or more"):
            BiasSession(tiny_bundle, threads=threads)  # type: ignore[arg-type]
    for threads in (most_threads() + 1, 5000, 2**31, 2**70):
        with pytest.raises(UsageError, match=f"threads is {threads}, expected at most {most_threads()}, 4 per core"):
            BiasSession(tiny_bundle, threads=threads)
    zeros = ({"batch_size": 0}, {"batch_tokens": 0}, {"max_answer_tokens": 0}, {"top_k": 0})
    for options in (*zeros, {"top_k": True}, {"batch_size": "4"}, {"batch_tokens": 1.5}):
        with pytest.raises(UsageError, match="expected 1 or more"):
            shared.predict("a", "two_way", **options)
