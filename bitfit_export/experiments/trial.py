"""A trial: one training of one task, the unit of every sweep and of every experiment."""

from __future__ import annotations

import hashlib
from collections.abc import Mapping
from dataclasses import asdict, dataclass, fields
from typing import Any

from bitfit_export.bundle import TASK_NAME
from bitfit_export.errors import DataError, UsageError
from bitfit_export.files import canonical_json
from bitfit_export.training.settings import METHODS, ORIGINAL, TrainingSettings
from bitfit_export.training.stored_names import from_stored, to_stored

__all__ = ["TRAIN_PREFIX", "Trial", "TrialResult", "method_label", "parse_method"]

#: Before the name of a metric that was computed on training examples.
TRAIN_PREFIX = "train_"
_DIGITS = 8
#: The settings that a trial's name has in plain words.
_SHOWN = ("method", "bias_terms", "learning_rate", "seed")


def method_label(method: str, bias_terms: tuple[str, ...] = ()) -> str:
    """What a method is called in tables: `full`, `bitfit`, or the bias terms where some are trained: `b_q+b_m2`."""
    return "+".join(bias_terms) if bias_terms else method


def parse_method(word: str) -> tuple[str, tuple[str, ...]]:
    """The method and the bias terms that `method_label` calls so; any word that is not a method names bias terms."""
    return (word, ()) if word in METHODS else ("bitfit", tuple(word.split("+")))


@dataclass(frozen=True)
class Trial:
    """One training of one task.

    Attributes:
        train_examples: the number of training examples, always the same ones; None for all.
        train_share: train on this share of the examples instead, more than 0 and at most 1.
        validation_examples: the number of validation examples; None for all.
        scored_train_examples: how many of the examples that it was trained on the result is scored on too, under
            `train_<metric>`: what a generalisation gap is computed from.
    """

    task: str
    settings: TrainingSettings
    train_examples: int | None = None
    train_share: float | None = None
    validation_examples: int | None = None
    scored_train_examples: int = 0

    def __post_init__(self) -> None:
        if self.settings.learning_rate is None:
            raise UsageError(f"a trial of {self.task} without a learning rate, expected one")
        if not TASK_NAME.fullmatch(self.task):
            raise UsageError(f"{self.task!r} cannot be a task's name", hint="use letters, digits, '.', '_' and '-'")
        if self.train_share is not None:
            if self.train_examples is not None:
                raise UsageError("a number of training examples and a share of them, expected one of the two")
            if not 0 < self.train_share <= 1:
                raise UsageError(f"the share {self.train_share} of training examples, expected more than 0, at most 1")

    @property
    def learning_rate(self) -> float:
        """The learning rate of the settings, which a trial always has."""
        return self.settings.learning_rate or 0.0

    @property
    def method(self) -> str:
        """See `method_label`."""
        return method_label(self.settings.method, self.settings.bias_terms)

    @property
    def name(self) -> str:
        """What differs most among trials, then a digest of what else is not as in `ORIGINAL`.

        The name of a training is the same in every process and release: it changes neither with a setting that is
        added later nor with a default.
        """
        # "rows", as the first release wrote it.
        size = [f"{self.train_examples}rows"] if self.train_examples is not None else []
        size += [f"{self.train_share:g}share"] if self.train_share is not None else []
        shown = [self.task, self.method, f"lr{self.learning_rate:g}", *size, f"seed{self.settings.seed}"]
        digest = hashlib.sha256(canonical_json(self._unusual())).hexdigest()[:_DIGITS]
        return "-".join([*shown, digest])

    def _unusual(self) -> dict[str, Any]:
        settings = {name: value for name, value in self.settings.unusual().items() if name not in _SHOWN}
        counts = {"validation_examples": self.validation_examples, "scored_train_examples": self.scored_train_examples}
        return to_stored(settings | {name: value for name, value in counts.items() if value})

    def as_json(self) -> dict[str, Any]:
        value = asdict(self)
        if self.settings.engine == ORIGINAL.engine:
            # So that results of releases without the setting are written as they were.
            del value["settings"]["engine"]
        return to_stored(value)

    @staticmethod
    def from_json(value: Mapping[str, Any]) -> Trial:
        """The trial that `as_json` described, by this release or an earlier one; settings that it lacks are those of
        `ORIGINAL`.

        Raises:
            DataError: it has what this release does not know.
        """
        value = from_stored(value)
        known, settings = {field.name for field in fields(Trial)}, {field.name for field in fields(TrainingSettings)}
        unknown = (set(value) - known) | (set(value.get("settings", ())) - settings)
        if unknown or not {"task", "settings"} <= set(value):
            raise DataError(f"a trial with {', '.join(sorted(unknown)) or 'no settings'}, expected one of this release")
        own = asdict(ORIGINAL) | dict(value["settings"])
        own["bias_terms"] = tuple(own["bias_terms"])
        return Trial(**{**value, "settings": TrainingSettings(**own)})


@dataclass(frozen=True)
class TrialResult:
    """What a trial gave: all that tables and plots are made from.

    Attributes:
        base_model: the name that files record, see `ModelSource`.
        base_parameters: how many the base model has.
        metric: the task's first metric, by which the best epoch was chosen.
        metrics: on the validation set in float32, and under `train_<metric>` on training examples.
        history: validation metrics after each epoch.
        trained_parameters: in the base, and in the head.
        bias_changes: of each bias term that was trained, 1/dim(b) * |b_0 - b_F|_1; empty where no delta was made.
        record: settings as they took effect, data digest, numbers of examples, versions.
    """

    trial: Trial
    base_model: str
    base_digest: str
    base_parameters: int
    metric: str
    metrics: dict[str, float]
    best_epoch: int
    history: list[dict[str, float]]
    trained_parameters: tuple[int, int]
    bias_changes: dict[str, float]
    record: dict[str, Any]

    @property
    def score(self) -> float:
        """The task's first metric."""
        return self.metrics[self.metric]

    def as_json(self) -> dict[str, Any]:
        # Pairs, because the keys of a JSON object get sorted, and the model's order is that of the plots.
        bias_changes = [list(pair) for pair in self.bias_changes.items()]
        return asdict(self) | {"trial": self.trial.as_json(), "bias_changes": bias_changes}

    @staticmethod
    def from_json(value: Mapping[str, Any]) -> TrialResult:
        """The result that `as_json` described.

        Raises:
            DataError: a field is missing or unknown.
        """
        names = {field.name for field in fields(TrialResult)}
        if set(value) != names:
            odd = ", ".join(sorted(names ^ set(value)))
            raise DataError(f"a trial's result that differs in {odd}, expected one of this release")
        in_base, in_head = value["trained_parameters"]
        own = {"trial": Trial.from_json(value["trial"]), "bias_changes": dict(value["bias_changes"])}
        return TrialResult(**{**value, **own, "trained_parameters": (in_base, in_head)})
