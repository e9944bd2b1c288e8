"""Answers as JSON has them: on the lines of `bitfit run` and in the replies of a service."""

from __future__ import annotations

from typing import Any

__all__ = ["json_answer"]


def json_answer(task: str, answer: Any, *, ranked: bool = False) -> dict[str, Any]:
    """One result of `BiasSession.predict` with its task.

    Args:
        ranked: whether it was asked for with `top_k`, and is a list of labels or answers.
    """
    if ranked:
        return {"task": task, "answers": [_shown(each) for each in answer]}
    return {"task": task, **_shown(answer)}


def _shown(answer: Any) -> dict[str, Any]:
    """An answer as it is printed. A float32 has some seven digits; the others are noise."""
    if isinstance(answer, list):
        words = [{name: word[name] for name in ("word", "label", "score")} for word in answer]
        return {"tokens": [_shown(word) for word in words]}
    return {**answer, "score": round(answer["score"], 6)}
