"""Make the cases of logits and what a task answers with them: `answers/index.json`.

    python conformance/make_answers.py

What is expected follows from the formulas of the pipelines of transformers, written out here with decimal numbers;
nothing of bitfit_export is imported. A case has the task's `problem_type` and `labels`, its `logits` and, best first,
what is `expected`. How many of these a caller gets (`top_k`) is the caller's choice: a runtime that returns one returns
the first.

- single_label, multi_label, regression: logits [labels]. Softmax; sigmoid; the value itself. Equal scores keep the
  order of the labels.
- token: logits [tokens, labels] for the `tokens` of a `text` or of `words`. A word has the label of its first token, by
  softmax; of equal ones the first.
- span: the `windows` of a `context`, each with its tokens and logits [tokens, 2]. Start and end are two softmaxes over
  the context's tokens and the first token, which stands for "no answer" and is never one; a score is the product of two
  of these. An answer has at most `max_answer_tokens` tokens and begins and ends with words. The same characters count
  once, with their best score. Equal scores are in the order of start, then of end.

Tokens are `[side, word, start, end]`, as in `tokenizer/`.
"""

from __future__ import annotations

import json
from decimal import Decimal, getcontext
from pathlib import Path
from typing import Any

HERE = Path(__file__).parent
getcontext().prec = 60

Token = list[int | None]

SENTENCE: list[tuple[str, str, list[str], list[float]]] = [
    ("two", "single_label", ["negative", "positive"], [-1.5, 2.25]),
    ("three", "single_label", ["contradiction", "entailment", "neutral"], [0.5, -0.25, 0.75]),
    ("equal", "single_label", ["a", "b", "c"], [0.5, 0.5, 0.5]),
    ("equal_pair", "single_label", ["a", "b", "c", "d"], [-1.0, 3.0, 2.0, 3.0]),
    ("one_label", "single_label", ["only"], [-7.0]),
    ("large", "single_label", ["a", "b"], [1000.0, 999.0]),
    ("very_large", "single_label", ["a", "b"], [3e38, -3e38]),
    ("small", "single_label", ["a", "b"], [-1000.0, -1001.0]),
    ("zeros", "single_label", ["a", "b"], [0.0, -0.0]),
    ("topics", "multi_label", ["w", "x", "y", "z"], [2.0, -3.0, 0.0, 0.25]),
    ("topics_equal", "multi_label", ["w", "x"], [1.5, 1.5]),
    ("topics_large", "multi_label", ["w", "x", "y"], [-1000.0, 20.0, 3e38]),
    ("topics_one", "multi_label", ["w"], [-0.5]),
    ("score", "regression", [], [3.625]),
    ("score_negative", "regression", [], [-0.0078125]),
    ("score_zero", "regression", [], [0.0]),
]

SPECIAL: Token = [None, None, 0, 0]


def decimals(values: list[float]) -> list[Decimal]:
    return [Decimal(value) for value in values]


def softmax(values: list[float]) -> list[Decimal]:
    largest = max(decimals(values))
    powers = [(value - largest).exp() for value in decimals(values)]
    return [power / sum(powers) for power in powers]


def sigmoid(value: float) -> Decimal:
    return 1 / (1 + (-Decimal(value)).exp()) if value > -1000 else Decimal(value).exp() / (1 + Decimal(value).exp())


def ranked(problem_type: str, labels: list[str], logits: list[float]) -> list[dict[str, Any]]:
    if problem_type == "regression":
        return [{"score": logits[0]}]
    scores = softmax(logits) if problem_type == "single_label" else [sigmoid(value) for value in logits]
    pairs = sorted(zip(labels, scores, strict=True), key=lambda pair: -pair[1])  # sorting keeps the order of equal ones
    return [{"label": label, "score": float(score)} for label, score in pairs]


def labelled(
    labels: list[str], logits: list[list[float]], tokens: list[Token], words: list[str]
) -> list[dict[str, Any]]:
    found, seen = [], set()
    for values, (_, word, start, end) in zip(logits, tokens, strict=True):
        if word is None or word in seen or start == end:
            continue
        seen.add(word)
        scores = softmax(values)
        best = scores.index(max(scores))
        answer = {"word": words[word], "label": labels[best], "score": float(scores[best])}
        found.append(answer | {"start": start, "end": end})
    return found


def spans(context: str, windows: list[dict[str, Any]], most: int) -> list[dict[str, Any]]:
    found: dict[tuple[int, int], tuple[Decimal, int, int]] = {}
    for window in windows:
        tokens, logits = window["tokens"], window["logits"]
        counted = [at for at, token in enumerate(tokens) if at == 0 or token[0] == 1]
        starts = dict(zip(counted, softmax([logits[at][0] for at in counted]), strict=True))
        ends = dict(zip(counted, softmax([logits[at][1] for at in counted]), strict=True))
        words = [at for at in counted if tokens[at][0] == 1 and tokens[at][2] < tokens[at][3]]
        for first in words:
            for last in words:
                if first <= last < first + most:
                    key = (tokens[first][2], tokens[last][3])
                    score = starts[first] * ends[last]
                    if key not in found or score > found[key][0]:
                        found[key] = (score, first, last)
    order = sorted(found, key=lambda key: (-found[key][0], key))
    return [{"answer": context[a:b], "score": float(found[a, b][0]), "start": a, "end": b} for a, b in order]


def words_of(text: str) -> list[tuple[int, int]]:
    """Where each word of a text of words and single spaces is."""
    places, start = [], 0
    for word in text.split(" "):
        places.append((start, start + len(word)))
        start += len(word) + 1
    return places


def side_of(side: int, text: str, lengths: list[int]) -> list[Token]:
    """Tokens of a side of which each word has so many."""
    return [
        [side, word, *place]
        for word, (place, count) in enumerate(zip(words_of(text), lengths, strict=True))
        for _ in range(count)
    ]


def token_cases() -> list[dict[str, Any]]:
    labels = ["O", "person", "place"]
    text = "Ada lives in Grimsby"
    tokens = [SPECIAL, *side_of(0, text, [1, 1, 1, 3]), SPECIAL]
    logits = [
        *[[9.0, 0.0, 0.0], [-1.0, 2.5, 0.25], [3.0, 0.5, 0.0], [2.0, 2.0, -1.0]],
        *[[0.5, 1.0, 4.0], [0.0, 8.0, 0.0], [8.0, 0.0, 0.0], [0.0, 0.0, 9.0]],
    ]
    words = text.split(" ")
    cases = [
        {"name": "words_of_a_text", "text": text, "tokens": tokens, "logits": logits},
        {"name": "list_of_words", "words": words, "tokens": tokens, "logits": logits},
        # The word "lives" was dropped by the tokenizer, and the text was cut before "Grimsby".
        {
            "name": "words_without_a_token",
            "words": words,
            "tokens": [SPECIAL, tokens[1], tokens[3], SPECIAL],
            "logits": [logits[0], logits[1], logits[3], logits[-1]],
        },
        {"name": "a_space_is_not_a_word", "text": "a ", "tokens": [[0, 0, 0, 1], [0, 1, 0, 0]], "logits": logits[:2]},
        {"name": "no_word", "text": "", "tokens": [SPECIAL, SPECIAL], "logits": logits[:2]},
    ]
    for case in cases:
        parts = case.get("words") or [case["text"][start:end] for start, end in words_of(case["text"])]
        case["expected"] = labelled(labels, case["logits"], case["tokens"], parts)
    return [{"problem_type": "token", "labels": labels, **case} for case in cases]


def span_cases() -> list[dict[str, Any]]:
    context = "Ada Lovelace lives here"
    question = side_of(0, "who", [1])
    tokens = [SPECIAL, *question, SPECIAL, *side_of(1, context, [1, 2, 1, 1]), SPECIAL]
    logits = [
        *[[1.0, 0.5], [9.0, 9.0], [0.0, 0.0], [4.0, 1.0], [2.0, -1.0], [0.5, 4.5]],
        *[[-2.0, 0.25], [0.0, 1.5], [7.0, 7.0]],
    ]
    one = [{"tokens": tokens, "logits": logits}]
    flat = [{"tokens": tokens, "logits": [[0.5, -0.5]] * len(tokens)}]
    # Two windows that share the word "Lovelace".
    cut = [
        {"tokens": [*tokens[:6], SPECIAL], "logits": [*logits[:6], logits[-1]]},
        {"tokens": [*tokens[:3], *tokens[4:]], "logits": [[-3.0, -3.0], *logits[1:3], *logits[4:]]},
    ]
    # A tokenizer of bytes makes a token of a space that stands alone.
    spaced = [
        {
            "tokens": [SPECIAL, *question, SPECIAL, [1, 0, 0, 1], [1, 1, 0, 0], [1, 2, 3, 4], SPECIAL],
            "logits": [[0.0, 0.0], [0.0, 0.0], [0.0, 0.0], [1.0, 0.5], [6.0, 6.0], [0.25, 2.0], [0.0, 0.0]],
        }
    ]
    cases = [
        {"name": "one_window", "context": context, "max_answer_tokens": 30, "windows": one},
        {"name": "short_answers", "context": context, "max_answer_tokens": 2, "windows": one},
        {"name": "one_token", "context": context, "max_answer_tokens": 1, "windows": one},
        {"name": "equal_scores", "context": context, "max_answer_tokens": 30, "windows": flat},
        {"name": "two_windows", "context": context, "max_answer_tokens": 30, "windows": cut},
        {"name": "spaces_are_no_answers", "context": "a  b", "max_answer_tokens": 30, "windows": spaced},
    ]
    for case in cases:
        case["expected"] = spans(case["context"], case["windows"], case["max_answer_tokens"])
    return [{"problem_type": "span", "labels": ["start", "end"], **case} for case in cases]


def build() -> dict[str, bytes]:
    """Every file of the folder, by name."""
    cases: list[dict[str, Any]] = [
        {
            "name": name,
            "problem_type": kind,
            "labels": names,
            "logits": logits,
            "expected": ranked(kind, names, logits),
        }
        for name, kind, names, logits in SENTENCE
    ]
    cases += [*token_cases(), *span_cases()]
    text = "[\n " + ",\n ".join(json.dumps(case) for case in cases) + "\n]\n"
    return {"index.json": text.encode()}


if __name__ == "__main__":
    (HERE / "answers").mkdir(exist_ok=True)
    for name, data in build().items():
        (HERE / "answers" / name).write_bytes(data)
