"""From texts to labels and scores, as a Hugging Face pipeline gives them."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import pytest

from bitfit_export.bundle import Layout, read_row
from bitfit_export.errors import InputError
from bitfit_export.runtime import BiasSession
from bitfit_export.runtime.inputs import InputLimits
from tests.runtime.conftest import TASKS, TEXTS, TOLERANCE, Reference

if TYPE_CHECKING:
    from bitfit_export.base_model.loading import BaseModel
    from bitfit_export.delta import TaskDelta


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


@pytest.mark.parametrize(
    "limits", [{"batch_size": 1}, {"batch_size": 2}, {"batch_size": 3}, {}, {"batch_tokens": 1}, {"batch_tokens": 40}]
)
def test_predict_keeps_the_order_whatever_the_batches(shared: BiasSession, limits: dict[str, int]) -> None:
    tasks = [TASKS[row % 3] for row in range(len(TEXTS))]
    alone = [shared.predict([text], task)[0] for text, task in zip(TEXTS, tasks, strict=True)]
    found = shared.predict(TEXTS, tasks, **limits)
    for ours, theirs in zip(found, alone, strict=True):
        assert ours.get("label") == theirs.get("label")
        assert ours["score"] == pytest.approx(theirs["score"], abs=TOLERANCE)


def test_no_batch_has_more_tokens_than_told(shared: BiasSession, monkeypatch: pytest.MonkeyPatch) -> None:
    shapes = []
    check = InputLimits.check

    def noted(self: InputLimits, **text: np.ndarray) -> dict[str, np.ndarray]:
        shapes.append(text["input_ids"].shape)
        return check(self, **text)

    monkeypatch.setattr(InputLimits, "check", noted)
    shared.predict(["a b c", "a", "a b", "a b c d e f"], "two_way", batch_tokens=11)  # 5, 3, 4 and 8 tokens
    assert shapes == [(2, 4), (1, 5), (1, 8)]


def test_predict_truncates_when_told(shared: BiasSession) -> None:
    long = "word " * 100
    with pytest.raises(InputError, match="item 1 has 102 tokens, expected at most 64"):
        shared.predict(["fine", long], "two_way")
    cut = shared.predict([long], "two_way", truncate=True)
    assert cut == shared.predict(["word " * 62], "two_way")
    assert shared.predict([long], "two_way", truncate=True, max_length=10) == shared.predict(["word " * 8], "two_way")


def test_logits_that_are_no_numbers_are_no_answer(
    session: BiasSession, save_row: Any, bundle: Path, layout: Layout
) -> None:
    row = read_row(bundle / "tasks" / "two_way.bias", layout=layout)
    session.load_task(save_row(task="huge", biases=np.full_like(row.biases, 3e38)))
    with pytest.raises(InputError, match="item 1 has logits that are not finite numbers from the task huge"):
        session.predict(["fine", "fine"], ["two_way", "huge"])


def test_a_refused_text_is_named_by_its_place_and_not_by_that_in_its_batch(
    session: BiasSession, monkeypatch: pytest.MonkeyPatch
) -> None:
    class Limits:
        def check(self, **arrays: Any) -> Any:
            raise InputError("is odd", item=0)

    monkeypatch.setattr(session._predictor, "_limits", Limits())
    with pytest.raises(InputError, match="item 2 is odd"):
        session.predict(["the longest of all texts", "a longer one", "short"], "two_way")


def test_predict_of_extreme_logits(session: BiasSession, save_row: Any, bundle: Path, layout: Layout) -> None:
    """No overflow, no NaN, no warning."""
    row = read_row(bundle / "tasks" / "two_way.bias", layout=layout)
    head = (*row.head[:2], np.array([3e38, -3e38], np.float32))
    for problem_type in ("single_label", "multi_label"):
        session.load_task(save_row(task="extreme", head=head, problem_type=problem_type), labels=["up", "down"])
        with np.errstate(all="raise", under="ignore"):
            assert session.predict("a", "extreme", top_k=2) == [
                [{"label": "up", "score": 1.0}, {"label": "down", "score": 0.0}]
            ]
