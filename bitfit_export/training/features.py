"""Examples to what the model is fed, and logits back to what an example is judged by.

Each problem type has a class of one interface, `EncodedExamples`; training and evaluation know no other difference.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, Protocol

import numpy as np
import torch

from bitfit_export.errors import DataError
from bitfit_export.reference.task_model import pad_features
from bitfit_export.training import metrics
from bitfit_export.training.examples import Examples
from bitfit_export.training.frozen_body import POOLED
from bitfit_export.training.spans import EncodedSpans
from bitfit_export.training.tasks import TaskSpec
from bitfit_export.training.tokens import EncodedWords
from bitfit_export.training.trainable import IGNORED

__all__ = ["EncodedExamples", "EncodedSentences", "collate", "decide", "encode_examples"]


class EncodedExamples(Protocol):
    """Tokenised examples.

    Attributes:
        features: what the model is fed, not padded, and `labels`; one for each example, or of a span task several.
        sizes: by which features are batched together when nothing is learnt from them.
    """

    features: list[dict[str, Any]]
    sizes: list[int]

    def score(self, logits: Sequence[np.ndarray]) -> dict[str, float]:
        """The task's metrics over all examples, from the logits of each feature; those of padding may follow."""


def encode_examples(
    spec: TaskSpec, examples: Examples, tokenizer: Any, *, max_length: int, stride: int | None = None
) -> EncodedExamples:
    """Tokenise examples as their problem type needs it.

    Args:
        stride: tokens that two neighbouring windows of a span task's context share; by default a third of `max_length`.

    Raises:
        UsageError: a stride or a `max_length` that leaves no room for a question.
        DataError: a text without any token, of a tokenizer that adds none.
    """
    if spec.problem_type == "token":
        return EncodedWords(spec, examples, tokenizer, max_length)
    if spec.problem_type == "span":
        return EncodedSpans(spec, examples, tokenizer, max_length, max_length // 3 if stride is None else stride)
    return EncodedSentences(spec, examples, tokenizer, max_length)


class EncodedSentences:
    """Texts or pairs, cut at `max_length` tokens, with one label or number, or of a multi-label task several."""

    def __init__(self, spec: TaskSpec, examples: Examples, tokenizer: Any, max_length: int) -> None:
        self._spec = spec
        self._labels = examples.labels
        columns = [list(column) for column in zip(*examples.texts, strict=True)]
        encoded = tokenizer(*columns, truncation=True, max_length=max_length)
        if [] in encoded["input_ids"]:
            number = encoded["input_ids"].index([]) + 1
            raise DataError(
                f"example {number} has no token: its text is empty, and this model's tokenizer adds no token of its "
                "own",
                hint="leave examples without a text out",
            )
        self.features: list[dict[str, Any]] = [
            {name: encoded[name][index] for name in encoded} | {"labels": label}
            for index, label in enumerate(examples.labels)
        ]
        self.sizes = [sum(map(len, texts)) for texts in examples.texts]

    def score(self, logits: Sequence[np.ndarray]) -> dict[str, float]:
        """See `EncodedExamples`."""
        predictions = decide(np.stack(logits), self._spec.problem_type)
        return metrics.compute(self._spec.metrics, self._spec.problem_type, predictions, self._labels)


def decide(logits: np.ndarray, problem_type: str) -> np.ndarray:
    """From logits [examples, labels] label ids or a regression's values [examples]; for several labels 0s and 1s."""
    if problem_type == "multi_label":
        return (logits > 0).astype(np.int64)
    return logits[:, 0] if problem_type == "regression" else logits.argmax(-1)


def collate(problem_type: str, tokenizer: Any, features: Sequence[dict[str, Any]]) -> dict[str, torch.Tensor]:
    """A batch: the model's inputs, padded on the right, and the labels; of a token task these are padded too.

    Of texts that a frozen body has read the vectors that the head reads are the inputs, `pooled` [batch, hidden].
    """
    labels = [feature["labels"] for feature in features]
    if POOLED in features[0]:
        return {POOLED: torch.stack([feature[POOLED] for feature in features]), "labels": torch.tensor(labels)}
    batch = pad_features(tokenizer, features)
    if problem_type == "token":
        width = batch["input_ids"].shape[1]
        labels = [each + [IGNORED] * (width - len(each)) for each in labels]
    return batch | {"labels": torch.tensor(labels)}
