"""The answers to every case of logits in `conformance/answers`, which were calculated by the formulas alone."""

from __future__ import annotations

import json
import runpy
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from bitfit_export.runtime.predict.postprocess import best_answers, find_answers, label_words, rank_labels
from bitfit_export.runtime.tasks.task_store import LoadedTask
from bitfit_export.runtime.text.alignment import AlignedTokens

CONFORMANCE = Path(__file__).parents[2] / "conformance"
CASES: list[dict[str, Any]] = json.loads((CONFORMANCE / "answers" / "index.json").read_text(encoding="utf-8"))
#: Of a score, for exp is not the same everywhere.
TOLERANCE = 1e-12


def task_of(case: dict[str, Any]) -> LoadedTask:
    labels = tuple(case["labels"])
    return LoadedTask(case["name"], case["problem_type"], labels, len(labels) or 1, task_version=1)


def tokens_of(tokens: list[list[Any]]) -> AlignedTokens:
    return AlignedTokens(
        ids=[0] * len(tokens),
        type_ids=[0] * len(tokens),
        sides=[side for side, *_ in tokens],
        words=[word for _, word, *_ in tokens],
        spans=[(start, end) for *_, start, end in tokens],
    )


def answers_to(case: dict[str, Any], count: int) -> list[Any]:
    """At most `count` answers, best first; those to a token task are all of its words."""
    if case["problem_type"] == "token":
        logits = np.array(case["logits"], np.float32)
        text = case["words"] if "words" in case else case["text"]
        return list(label_words(task_of(case), logits, tokens_of(case["tokens"]), text))
    if case["problem_type"] == "span":
        found = [
            answer
            for window in case["windows"]
            for answer in find_answers(
                np.array(window["logits"], np.float32),
                tokens_of(window["tokens"]),
                case["context"],
                max_tokens=case["max_answer_tokens"],
                count=count,
            )
        ]
        return list(best_answers(found))[:count]
    return list(rank_labels(task_of(case), np.array(case["logits"], np.float32)))[:count]


def without_score(answers: list[dict[str, Any]]) -> list[dict[str, Any]]:
    return [{key: value for key, value in answer.items() if key != "score"} for answer in answers]


def test_the_generator_still_makes_the_committed_files() -> None:
    make = runpy.run_path(str(CONFORMANCE / "make_answers.py"))
    assert make["build"]() == {path.name: path.read_bytes() for path in (CONFORMANCE / "answers").iterdir()}


def test_there_is_a_case_of_every_problem_type() -> None:
    assert {case["problem_type"] for case in CASES} == {"single_label", "multi_label", "regression", "token", "span"}


@pytest.mark.parametrize("case", CASES, ids=[f"{case['problem_type']}-{case['name']}" for case in CASES])
def test_answers(case: dict[str, Any]) -> None:
    expected = case["expected"]
    for count in {1, 2, 3, len(expected) + 1} if case["problem_type"] != "token" else {len(expected)}:
        found = answers_to(case, count)
        assert without_score(found) == without_score(expected[:count])
        np.testing.assert_allclose(
            [answer["score"] for answer in found],
            [answer["score"] for answer in expected[:count]],
            rtol=TOLERANCE,
            atol=TOLERANCE,
        )
