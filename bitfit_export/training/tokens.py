"""Token tasks: a label for each word, learnt and read at the word's first token.

A sentence is tokenised as the text of its words with a space between them, which is what a user of the task has, so
training sees the tokens that serving will see.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np

from bitfit_export.training import metrics
from bitfit_export.training.examples import Examples
from bitfit_export.training.tasks import TaskSpec
from bitfit_export.training.trainable import IGNORED

__all__ = ["EncodedWords", "first_tokens"]


class EncodedWords:
    """Sentences, cut at `max_length` tokens. A word without a token left has no prediction, which is an error."""

    def __init__(self, spec: TaskSpec, examples: Examples, tokenizer: Any, max_length: int) -> None:
        self._spec = spec
        self._references = [[spec.labels[label] for label in labels] for labels in examples.labels]
        texts = [" ".join(words) for words in examples.texts]
        encoded = tokenizer(texts, truncation=True, max_length=max_length, return_offsets_mapping=True)
        names = [name for name in tokenizer.model_input_names if name in encoded]
        self._first_tokens = [
            first_tokens(words, offsets)
            for words, offsets in zip(examples.texts, encoded["offset_mapping"], strict=True)
        ]
        self.features: list[dict[str, Any]] = [
            {name: encoded[name][index] for name in names}
            | {"labels": _token_labels(len(encoded["input_ids"][index]), first, labels)}
            for index, (first, labels) in enumerate(zip(self._first_tokens, examples.labels, strict=True))
        ]
        self.sizes = [len(feature["input_ids"]) for feature in self.features]

    def score(self, logits: Sequence[np.ndarray]) -> dict[str, float]:
        """See `EncodedExamples`."""
        predictions = [
            [None if position is None else self._spec.labels[scores[position].argmax()] for position in first]
            for scores, first in zip(logits, self._first_tokens, strict=True)
        ]
        return metrics.compute(self._spec.metrics, "token", predictions, self._references)


def first_tokens(words: Sequence[str], offsets: Sequence[tuple[int, int]]) -> list[int | None]:
    """For each word the position of the first token that has a character of it, or None where there is none.

    Args:
        offsets: of each token, its first character in the joined words and the one after its last. Those of special
            tokens are empty; some tokenizers count the space before a word as part of its first token.
    """
    word_at: list[int | None] = []
    for number, word in enumerate(words):
        word_at += [number] * len(word) + [None]
    found: dict[int | None, int] = {}
    for position, (start, end) in enumerate(offsets):
        for touched in word_at[start:end]:
            found.setdefault(touched, position)
    return [found.get(number) for number in range(len(words))]


def _token_labels(length: int, first: Sequence[int | None], labels: Sequence[int]) -> list[int]:
    token_labels = [IGNORED] * length
    for position, label in zip(first, labels, strict=True):
        if position is not None:
            token_labels[position] = label
    return token_labels
