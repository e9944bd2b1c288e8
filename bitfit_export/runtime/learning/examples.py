"""Examples to learn from: checked before anything is run, tokenised once, and put into batches."""

from __future__ import annotations

import hashlib
import json
import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from bitfit_export.errors import DataError, quoted

__all__ = ["LEARNABLE", "LabelledTexts", "batches_of", "class_weights"]

#: The problem types that a device learns.
LEARNABLE = ("single_label", "multi_label", "regression", "token", "span")
#: Batches whose examples are sorted by length together, so that little is padded.
_GROUP = 50


@dataclass(frozen=True)
class LabelledTexts:
    """Texts and their labels.

    Attributes:
        texts: each one or two texts; of a `token` task its words; of a `span` task a question and a context.
        labels: for each a label id (`single_label`), a 0 or a 1 for each label (`multi_label`), a number
            (`regression`), a label id for each word (`token`), or the answers as pairs of the first character in the
            context and a text (`span`), of which the first one is learnt.
    """

    texts: Sequence[tuple[str, ...]]
    labels: Sequence[Any]

    def __len__(self) -> int:
        return len(self.texts)

    def check(self, what: str, problem_type: str, labels: Sequence[str]) -> None:
        """Refuse examples that a head with these labels cannot learn.

        Args:
            what: the examples' name, for messages.

        Raises:
            DataError: no example, as many labels as texts are not there, or a label that the head lacks.
        """
        if not self.texts:
            raise DataError(f"{what} has no examples, expected at least one")
        if len(self.labels) != len(self.texts):
            raise DataError(f"{what} has {len(self.labels)} labels for {len(self.texts)} texts, expected one each")
        for number, (texts, label) in enumerate(zip(self.texts, self.labels, strict=True), 1):
            expected = _wrong_texts(texts, problem_type)
            if expected:
                raise DataError(f"{what}: example {number} has {len(texts)} texts, expected {expected}")
            if not _fits(label, texts, problem_type, len(labels)):
                known = f"0 to {len(labels) - 1}, one of {', '.join(labels[:10])}"
                expected = {
                    "single_label": known,
                    "multi_label": f"a 0 or a 1 for each of {len(labels)} labels",
                    "regression": "a finite number",
                    "token": f"for each of {len(texts)} words {known}",
                    "span": "pairs of a character and the text that the context has there",
                }[problem_type]
                raise DataError(f"{what}: example {number} has the label {quoted(str(label))}, expected {expected}")

    def check_varied(self, what: str, labels: Sequence[str]) -> None:
        """Refuse examples of which all, or all words, have one class: a head would learn to answer that, whatever the
        text.

        Raises:
            DataError: there is one class only.
        """
        found = {int(label) for label in np.concatenate([np.atleast_1d(each) for each in self.labels])}
        if len(found) == 1:
            raise DataError(
                f"{what} has examples of the label {labels[found.pop()]} alone, expected at least two labels",
                hint="add examples of another label",
            )

    def digest(self) -> str:
        """Returns SHA-256 over texts and labels, in order."""
        sha = hashlib.sha256()
        for texts, label in zip(self.texts, self.labels, strict=True):
            sha.update(json.dumps([*texts, np.asarray(label).tolist()]).encode() + b"\n")
        return sha.hexdigest()


def _wrong_texts(texts: tuple[str, ...], problem_type: str) -> str | None:
    """What was expected, where the number of texts is not that of the problem type."""
    if problem_type == "span":
        return None if len(texts) == 2 else "a question and a context"
    if problem_type == "token":
        return None if texts else "words"
    return None if len(texts) in (1, 2) else "one or two"


def _fits(label: Any, texts: tuple[str, ...], problem_type: str, count: int) -> bool:
    try:
        if problem_type == "single_label":
            return _is_id(label, count)
        if problem_type == "multi_label":
            return len(label) == count and all(each in (0, 1) for each in label)
        if problem_type == "token":
            return len(label) == len(texts) and all(_is_id(each, count) for each in label)
        if problem_type == "span":
            return bool(label) and all(
                text and start >= 0 and texts[1].startswith(text, start) for start, text in label
            )
        return math.isfinite(label)
    except (TypeError, ValueError):
        return False


def _is_id(label: Any, count: int) -> bool:
    return bool(int(label) == label and 0 <= label < count)


def batches_of(lengths: Sequence[int], batch_size: int, random: np.random.Generator) -> list[list[int]]:
    """Returns one epoch's batches: places of examples, in random order, neighbours in length together.

    Args:
        lengths: of the examples, in tokens.
    """
    order = random.permutation(len(lengths))
    span = _GROUP * batch_size
    batches: list[list[int]] = []
    for start in range(0, len(order), span):
        group = sorted(order[start : start + span].tolist(), key=lambda place: lengths[place])
        batches += [group[first : first + batch_size] for first in range(0, len(group), batch_size)]
    return [batches[index] for index in random.permutation(len(batches))]


def class_weights(labels: Sequence[int], count: int) -> NDArray[np.float32]:
    """Returns examples / (classes x examples of the class), float32 [count]; 1 for a class without examples."""
    found = np.bincount(np.asarray(labels, np.int64), minlength=count)
    present = np.count_nonzero(found)
    weights = len(labels) / (present * np.maximum(found, 1))
    return np.where(found > 0, weights, 1).astype(np.float32)
