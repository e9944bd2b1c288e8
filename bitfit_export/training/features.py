"""Rows to what the model is fed, and logits back to what a row is judged by.

Each problem type has a class of one interface, `EncodedRows`; training and evaluation know no other difference.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, Protocol

import numpy as np
import torch

from bitfit_export.errors import DataError
from bitfit_export.reference.task_model import pad_features
from bitfit_export.training import metrics
from bitfit_export.training.examples import Rows
from bitfit_export.training.spans import EncodedSpans
from bitfit_export.training.tasks import TaskSpec
from bitfit_export.training.tokens import EncodedWords
from bitfit_export.training.trainable import IGNORED

__all__ = ["EncodedRows", "EncodedSentences", "collate", "decide", "encode_rows"]


class EncodedRows(Protocol):
    """Tokenised rows.

    Attributes:
        features: what the model is fed, not padded, and `labels`; one for each row, or of a span task several.
        sizes: by which features are batched together when nothing is learnt from them.
    """

    features: list[dict[str, Any]]
    sizes: list[int]

    def score(self, logits: Sequence[np.ndarray]) -> dict[str, float]:
        """The task's metrics over all rows, from the logits of each feature; of tokens, padding may follow theirs."""


def encode_rows(
    spec: TaskSpec, rows: Rows, tokenizer: Any, *, max_length: int, stride: int | None = None
) -> EncodedRows:
    """Tokenise rows as their problem type needs it.

    Args:
        stride: tokens that two neighbouring windows of a span task's context share; by default a third of `max_length`.

    Raises:
        UsageError: a stride or a `max_length` that leaves no room for a question.
        DataError: a text without any token, of a tokenizer that adds none.
    """
    if spec.problem_type == "token":
        return EncodedWords(spec, rows, tokenizer, max_length)
    if spec.problem_type == "span":
        return EncodedSpans(spec, rows, tokenizer, max_length, max_length // 3 if stride is None else stride)
    return EncodedSentences(spec, rows, tokenizer, max_length)


class EncodedSentences:
    """Texts or pairs, cut at `max_length` tokens, with one label or number, or of a multi-label task several."""

    def __init__(self, spec: TaskSpec, rows: Rows, tokenizer: Any, max_length: int) -> None:
        self._spec = spec
        self._labels = rows.labels
        columns = [list(column) for column in zip(*rows.texts, strict=True)]
        encoded = tokenizer(*columns, truncation=True, max_length=max_length)
        if [] in encoded["input_ids"]:
            number = encoded["input_ids"].index([]) + 1
            raise DataError(
                f"row {number} has no token: its text is empty, and this model's tokenizer adds no token of its own",
                hint="leave rows without a text out",
            )
        self.features: list[dict[str, Any]] = [
            {name: encoded[name][index] for name in encoded} | {"labels": label}
            for index, label in enumerate(rows.labels)
        ]
        self.sizes = [sum(map(len, texts)) for texts in rows.texts]

    def score(self, logits: Sequence[np.ndarray]) -> dict[str, float]:
        """See `EncodedRows`."""
        predictions = decide(np.stack(logits), self._spec.problem_type)
        return metrics.compute(self._spec.metrics, self._spec.problem_type, predictions, self._labels)


def decide(logits: np.ndarray, problem_type: str) -> np.ndarray:
    """From logits [rows, labels] label ids or a regression's values [rows], or 0 and 1 for each of several labels."""
    if problem_type == "multi_label":
        return (logits > 0).astype(np.int64)
    return logits[:, 0] if problem_type == "regression" else logits.argmax(-1)


def collate(problem_type: str, tokenizer: Any, features: Sequence[dict[str, Any]]) -> dict[str, torch.Tensor]:
    """A batch: the model's inputs, padded on the right, and the labels; of a token task these are padded too."""
    batch = pad_features(tokenizer, features)
    labels = [feature["labels"] for feature in features]
    if problem_type == "token":
        width = batch["input_ids"].shape[1]
        labels = [row + [IGNORED] * (width - len(row)) for row in labels]
    return batch | {"labels": torch.tensor(labels)}
