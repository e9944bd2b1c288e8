"""`bitfit::Session` gives the logits that PyTorch gives, and refuses what the Python session refuses."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np
import pytest

from tests.cpp.conftest import LAYOUTS, ONE_AT_A_TIME, SENTENCE_TASKS, TOKEN_TASKS, OpenBundle, logits_of

if TYPE_CHECKING:
    from bitfit_export.base_model.loading import BaseModel
    from bitfit_export.delta import TaskDelta

torch = pytest.importorskip("torch", reason="needs bitfit-export[export]")

#: Logits differ from PyTorch's by rounding alone; a row of float16 is rounded itself.
TOLERANCE = {"fp16 rows": 5e-2}


def pytorch_logits(base: BaseModel, delta: TaskDelta, batch: dict[str, Any]) -> np.ndarray:
    from bitfit_export.reference.task_model import merged_model

    with torch.inference_mode():
        logits: np.ndarray = merged_model(base, delta)(**{k: torch.tensor(v) for k, v in batch.items()})[
            "logits"
        ].numpy()
    return logits


def assert_kept(found: np.ndarray, expected: np.ndarray, batch: dict[str, Any], tolerance: float) -> None:
    """Logits of padding mean nothing."""
    kept = np.array(batch["attention_mask"], bool)
    assert found.shape == expected.shape
    if found.ndim == 3:
        found, expected = found[kept], expected[kept]
    np.testing.assert_allclose(found, expected, rtol=0, atol=tolerance)


class TestRun:
    @pytest.mark.parametrize("kind", LAYOUTS)
    @pytest.mark.parametrize("task", SENTENCE_TASKS + TOKEN_TASKS)
    def test_logits_are_those_of_pytorch(
        self,
        open_session: OpenBundle,
        tiny_base: BaseModel,
        cpp_deltas: dict[str, TaskDelta],
        batch: dict[str, Any],
        kind: str,
        task: str,
    ) -> None:
        found = logits_of(open_session(kind)("run", tasks=[task], **batch))
        expected = pytorch_logits(tiny_base, cpp_deltas[task], batch)
        assert_kept(found, expected, batch, TOLERANCE.get(kind, 1e-5))

    @pytest.mark.parametrize("tasks", [["three_way", "score", "topics"], ["tags", "answers", "tags"]])
    def test_a_task_a_row(
        self,
        open_session: OpenBundle,
        tiny_base: BaseModel,
        cpp_deltas: dict[str, TaskDelta],
        batch: dict[str, Any],
        tasks: list[str],
    ) -> None:
        """What lies beyond a row's own labels is -infinity."""
        found = logits_of(open_session("table")("run", tasks=tasks, **batch))
        expected = np.full_like(found, -np.inf)
        for row, task in enumerate(tasks):
            own = pytorch_logits(tiny_base, cpp_deltas[task], batch)[row]
            expected[row, ..., : own.shape[-1]] = own
        assert found.shape[-1] == max(cpp_deltas[task].config.output_size for task in tasks)
        assert_kept(found, expected, batch, 1e-5)

    def test_token_types_are_zeros_by_default(self, open_session: OpenBundle, batch: dict[str, Any]) -> None:
        session = open_session("table")
        del batch["token_type_ids"]
        zeros = np.zeros((3, 7), int).tolist()
        assert session("run", tasks=["score"], **batch) == session(
            "run", tasks=["score"], token_type_ids=zeros, **batch
        )

    def test_more_rows_than_a_static_shape_has(
        self, open_session: OpenBundle, tiny_base: BaseModel, cpp_deltas: dict[str, TaskDelta]
    ) -> None:
        """Its batches have 2 rows of 16 tokens."""
        ids = np.random.default_rng(1).integers(0, 30522, (5, 16))
        batch = {"input_ids": ids.tolist(), "attention_mask": np.ones_like(ids).tolist()}
        found = logits_of(open_session("static")("run", tasks=["tags"], **batch))
        np.testing.assert_allclose(found, pytorch_logits(tiny_base, cpp_deltas["tags"], batch), rtol=0, atol=1e-5)


class TestRunOutputs:
    """All outputs at once, for any mix of tasks, as the Python session has them."""

    def test_of_any_mix(
        self,
        open_session: OpenBundle,
        tiny_base: BaseModel,
        cpp_deltas: dict[str, TaskDelta],
        batch: dict[str, Any],
    ) -> None:
        tasks = ["three_way", "tags", "score"]
        found = open_session("table")("run_outputs", tasks=tasks, **batch)
        logits, token_logits = logits_of(found["logits"]), logits_of(found["token_logits"])
        assert logits.shape == (3, 5)
        assert token_logits.shape == (3, 7, 5)
        for row, task in enumerate(tasks):
            own = cpp_deltas[task].config.output_size
            kept = sum(batch["attention_mask"][row])
            expected = pytorch_logits(tiny_base, cpp_deltas[task], batch)[row][..., :own]
            values = token_logits[row, :kept] if task == "tags" else logits[row]
            expected = expected[:kept] if task == "tags" else expected
            np.testing.assert_allclose(values[..., :own], expected, rtol=0, atol=1e-5)
            for each in (logits, token_logits):
                assert np.isneginf(each[row, ..., own:]).all()
                assert np.isfinite(each[row, ..., :own]).all()

    @pytest.mark.parametrize("kind", LAYOUTS)
    @pytest.mark.parametrize("task", ["score", "tags"])
    def test_of_one_task(self, open_session: OpenBundle, batch: dict[str, Any], kind: str, task: str) -> None:
        session = open_session(kind)
        found = session("run_outputs", tasks=[task], **batch)
        assert set(found) == {"logits", "token_logits"}
        assert found["token_logits" if task == "tags" else "logits"] == session("run", tasks=[task], **batch)

    def test_of_one_output(self, open_session: OpenBundle, batch: dict[str, Any]) -> None:
        session = open_session("table")
        every = session("run_outputs", tasks=["tags"], **batch)
        for names in (["token_logits"], ["logits"], ["token_logits", "logits"]):
            found = session("run_outputs", tasks=["tags"], outputs=names, **batch)
            assert found == {name: every[name] for name in names}

    @pytest.mark.parametrize(
        ("changes", "message"),
        [
            ({"outputs": []}, "0 outputs are asked for, expected 1 to 2, each once"),
            ({"outputs": ["logits"] * 3}, "3 outputs are asked for, expected 1 to 2, each once"),
            ({"outputs": ["logits"] * 2}, 'the output "logits" is asked for, expected logits and token_logits, each'),
            ({"outputs": ["pooled"]}, 'the output "pooled" is asked for, expected logits and token_logits'),
            ({"capacity": 104}, "the logits have room for 104 values, expected 105 or more"),
            ({"tasks": ["nope"]}, 'the task "nope" is not loaded'),
            ({"tasks": ["score"] * 2}, "there are 2 tasks for 3 items"),
            ({"attention_mask": [[0] * 7] * 3}, "item 0 has an attention_mask of zeros only"),
        ],
    )
    def test_what_cannot_be_run_is_refused(
        self, open_session: OpenBundle, batch: dict[str, Any], changes: dict[str, Any], message: str
    ) -> None:
        answer = open_session("table")("run_outputs", **{"tasks": ["tags"], **batch, **changes})
        assert answer.get("code") == "input_error", answer
        assert answer["message"].startswith(message)

    @pytest.mark.parametrize("kind", ONE_AT_A_TIME)
    def test_different_tasks_where_one_runs_at_a_time_are_refused(
        self, open_session: OpenBundle, batch: dict[str, Any], kind: str
    ) -> None:
        answer = open_session(kind)("run_outputs", tasks=["score", "tags", "score"], **batch)
        assert answer["code"] == "input_error"
        assert "expected one task: the bundle's layout runs one at a time" in answer["message"]

    def test_one_output_for_both_kinds_is_refused_with_a_hint(
        self, open_session: OpenBundle, batch: dict[str, Any]
    ) -> None:
        answer = open_session("table")("run", tasks=["score", "tags", "score"], **batch)
        assert answer["hint"] == "run_outputs gives the logits of both kinds"


class TestRefusals:
    @pytest.mark.parametrize(
        ("tasks", "changes", "message"),
        [
            ([], {}, "there are 0 tasks for 3 items, expected one task, or one for each item"),
            ([""], {}, 'the task "" is not loaded, expected one of answers, score, tags, three_way, topics, two_way'),
            (["nope"], {}, 'the task "nope" is not loaded'),
            (["score"] * 2, {}, "there are 2 tasks for 3 items"),
            (["score", "tags", "score"], {}, "the batch has the regression task score and the token task tags"),
            (["score"], {"capacity": 2}, "the logits have room for 2 values, expected 3 or more"),
            (
                ["score"],
                {"input_ids": [[1, 2], [3, 30522], [1, 1]]},
                "item 1 has 30522 in input_ids, expected 0 to 30521",
            ),
            (["score"], {"input_ids": [[1, 2], [3, 4], [-1, 1]]}, "item 2 has -1 in input_ids"),
            (
                ["score"],
                {"attention_mask": [[1, 1], [1, 2], [1, 1]]},
                "item 1 has 2 in attention_mask, expected 0 or 1",
            ),
            (["score"], {"attention_mask": [[1, 1], [1, 1], [0, 0]]}, "item 2 has an attention_mask of zeros only"),
            (["score"], {"token_type_ids": [[0, 0], [-1, 0], [0, 0]]}, "item 1 has -1 in token_type_ids"),
            (["score"], {"token_type_ids": [[0, 0], [7, 0], [0, 0]]}, "the model can't run this batch"),
            (
                ["score"],
                {"input_ids": [[1] * 65], "attention_mask": [[1] * 65]},
                "the sequence has 65 tokens, expected at",
            ),
            (["score"], {"input_ids": [], "attention_mask": []}, "the batch has 0 items of 0 tokens"),
        ],
    )
    def test_of_a_batch(
        self, open_session: OpenBundle, tasks: list[str], changes: dict[str, Any], message: str
    ) -> None:
        batch = {"input_ids": [[1, 2], [3, 4], [5, 6]], "attention_mask": [[1, 1], [1, 0], [1, 1]]} | changes
        answer = open_session("table")("run", tasks=tasks, **batch)
        assert answer.get("code") == "input_error", answer
        assert answer["message"].startswith(message)

    @pytest.mark.parametrize("kind", ONE_AT_A_TIME)
    def test_of_different_tasks_where_one_runs_at_a_time(
        self, open_session: OpenBundle, batch: dict[str, Any], kind: str
    ) -> None:
        answer = open_session(kind)("run", tasks=["score", "two_way", "score"], **batch)
        assert answer["code"] == "input_error"
        assert "expected one task: the bundle's layout runs one at a time" in answer["message"]
