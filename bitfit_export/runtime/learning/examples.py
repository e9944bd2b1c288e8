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

__all__ = ["LEARNABLE", "LabelledTexts", "batches_of", "class_weights", "targets_of"]

#: The problem types that a device learns.
LEARNABLE = ("single_label", "multi_label", "regression")
#: Batches whose examples are sorted by length together, so that little is padded.
_GROUP = 50


@dataclass(frozen=True)
class LabelledTexts:
    """Texts and their labels.

    Attributes:
        texts: each one or two texts.
        labels: for each a label id (`single_label`), a 0 or a 1 for each label (`multi_label`), or a number
            (`regression`).
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
        for number, label in enumerate(self.labels, 1):
            if not _fits(label, problem_type, len(labels)):
                expected = {
                    "single_label": f"0 to {len(labels) - 1}, one of {', '.join(labels[:10])}",
                    "multi_label": f"a 0 or a 1 for each of {len(labels)} labels",
                    "regression": "a finite number",
                }[problem_type]
                raise DataError(f"{what}: example {number} has the label {quoted(str(label))}, expected {expected}")

    def check_varied(self, what: str, labels: Sequence[str]) -> None:
        """Refuse examples that all have one class: a head would learn to answer that, whatever the text.

        Raises:
            DataError: there is one class only.
        """
        found = {int(label) for label in self.labels}
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


def _fits(label: Any, problem_type: str, count: int) -> bool:
    try:
        if problem_type == "single_label":
            return bool(int(label) == label and 0 <= label < count)
        if problem_type == "multi_label":
            return len(label) == count and all(each in (0, 1) for each in label)
        return math.isfinite(label)
    except (TypeError, ValueError):
        return False


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


def targets_of(problem_type: str, labels: Sequence[Any], count: int) -> NDArray[np.float32]:
    """Returns what `train_step` takes as `targets`, float32 [examples, count]."""
    targets = np.zeros((len(labels), count), np.float32)
    if problem_type == "single_label":
        targets[np.arange(len(labels)), np.asarray(labels, np.int64)] = 1
    elif problem_type == "multi_label":
        targets[:] = np.asarray(labels, np.float32)
    else:
        targets[:, 0] = labels
    return targets


def class_weights(labels: Sequence[int], count: int) -> NDArray[np.float32]:
    """Returns examples / (classes x examples of the class), float32 [count]; 1 for a class without examples."""
    found = np.bincount(np.asarray(labels, np.int64), minlength=count)
    present = np.count_nonzero(found)
    weights = len(labels) / (present * np.maximum(found, 1))
    return np.where(found > 0, weights, 1).astype(np.float32)
