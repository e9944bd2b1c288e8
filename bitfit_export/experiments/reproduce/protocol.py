"""How the papers' experiments are trained: their own protocol, or one that a file says for a model of one's own.

A protocol is JSON, and every part of it may be left out:

    {
      "settings": {"epochs": 8},                               of every training
      "tasks": {"cola": {"epochs": 20}},                       of a task; these win over those above
      "methods": {"full": {"learning_rate": 1e-4}},            of a method; these win over both
      "experiments": {
        "table3": {
          "rounds": [{"tasks": ["mrpc"], "seeds": [0, 1, 2]}],  what is trained, in this order
          "methods": ["bitfit", "b_q+b_m2", "full"],
          "settings": {"bf16": false}                          of this experiment; these win over all
        },
        "figure2": {"sizes": [500, 1000]},
        "data-size": {"shares": [0.1, 1.0]}
      }
    }

Settings are the fields of `TrainingSettings`, and `train_rows`, `validation_rows`, `scored_train_rows` of `Trial`. A
list of learning rates is a search: each is trained, and the best one is reported. Where there is none, the rate is that
of `default_learning_rate`: the paper's own where it has one.
"""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, fields, replace
from pathlib import Path
from typing import Any

from bitfit_export.base_models import BaseModel
from bitfit_export.errors import DataError, UsageError
from bitfit_export.experiments.trial import Trial, parse_method
from bitfit_export.training.protocol import with_learning_rate
from bitfit_export.training.settings import MAX_EPOCHS, TrainingSettings

__all__ = ["PAPER", "Protocol", "Round", "Series", "read_protocol"]

_OF_TRIALS = ("train_rows", "validation_rows", "scored_train_rows")
#: Name of a setting -> its type.
_SETTINGS: Mapping[str, type] = {
    **{
        each.name: int if each.default is None else type(each.default)
        for each in fields(TrainingSettings)
        if each.name not in ("method", "bias_terms", "seed")
    },
    "learning_rate": float,
    **dict.fromkeys(_OF_TRIALS, int),
}
#: Settings that may be null.
_OPTIONAL = ("learning_rate", "stride", "patience", "train_rows", "validation_rows")
_GLUE = ("rte", "mrpc", "stsb", "cola", "sst2", "qnli", "qqp", "mnli")
_SEEDS = tuple(range(5))
_ROWS = (
    "full",
    "bitfit",
    "b_q+b_m2",
    "b_m2",
    "b_q",
    "frozen",
    "rand-uniform",
    "rand-row-col",
    "adapters",
    "diff-pruning",
)


@dataclass(frozen=True)
class Round:
    """Tasks that are trained with the same seeds, all of one seed before the next."""

    tasks: tuple[str, ...]
    seeds: tuple[int, ...]


@dataclass(frozen=True)
class Series:
    """What one experiment trains.

    Attributes:
        methods: as `method_label` calls them.
        sizes: numbers of training rows; empty for all rows.
        shares: shares of the training rows instead.
        settings: of this experiment alone.
    """

    methods: tuple[str, ...]
    rounds: tuple[Round, ...]
    sizes: tuple[int, ...] = ()
    shares: tuple[float, ...] = ()
    settings: Mapping[str, Any] = field(default_factory=dict)

    @property
    def tasks(self) -> tuple[str, ...]:
        """Every task, in the order of the rounds."""
        return tuple(dict.fromkeys(task for each in self.rounds for task in each.tasks))

    def seeds_of(self, task: str) -> tuple[int, ...]:
        return tuple(dict.fromkeys(seed for each in self.rounds if task in each.tasks for seed in each.seeds))

    def narrowed(
        self,
        *,
        tasks: Sequence[str] | None = None,
        seeds: Sequence[int] | None = None,
        methods: Sequence[str] | None = None,
        sizes: Sequence[int] | None = None,
    ) -> Series:
        """The same with other tasks, seeds, methods or sizes; tasks that the rounds have keep their order and seeds."""
        rounds = self.rounds
        if tasks is not None:
            kept = (replace(each, tasks=tuple(task for task in each.tasks if task in tasks)) for each in rounds)
            known = tuple(each for each in kept if each.tasks)
            new = tuple(task for task in tasks if task not in self.tasks)
            rounds = (*known, Round(new, rounds[0].seeds)) if new else known
        if seeds is not None:
            rounds = (Round(tuple(dict.fromkeys(task for each in rounds for task in each.tasks)), tuple(seeds)),)
        return replace(
            self,
            rounds=rounds,
            methods=self.methods if methods is None else tuple(methods),
            sizes=self.sizes if sizes is None else tuple(sizes),
        )


@dataclass(frozen=True)
class Protocol:
    """See the module."""

    settings: Mapping[str, Any]
    tasks: Mapping[str, Mapping[str, Any]]
    methods: Mapping[str, Mapping[str, Any]]
    experiments: Mapping[str, Series]

    def trials(self, series: Series, base: BaseModel, overrides: Mapping[str, Any] | None = None) -> list[Trial]:
        """Everything that a series trains, in the order in which it is trained.

        Args:
            base: decides about learning rates that nothing says.
            overrides: settings that win over all others.
        """
        trials = (
            Trial(task, with_learning_rate(settings, task, base), **own)
            for each in series.rounds
            for seed in each.seeds
            for size in series.sizes or series.shares or (None,)
            for task in each.tasks
            for method in series.methods
            for settings, own in self._of_rates(series, overrides or {}, task, method, seed, size)
        )
        return list(dict.fromkeys(trials))

    def _of_rates(
        self, series: Series, overrides: Mapping[str, Any], task: str, method: str, seed: int, size: float | None
    ) -> list[tuple[TrainingSettings, dict[str, Any]]]:
        """The settings, and what else a trial has, for each learning rate that is searched."""
        parts = (self.settings, self.tasks.get(task, {}), self.methods.get(method, {}), series.settings, overrides)
        values: dict[str, Any] = {name: value for part in parts for name, value in part.items()}
        rates = values.pop("learning_rate", None)
        own = {name: values.pop(name) for name in _OF_TRIALS if name in values}
        if series.sizes:
            own["train_rows"] = size
        elif size is not None and size < 1:  # a share of all rows is a training like any other
            own["train_share"] = size
        name, terms = parse_method(method)
        return [
            (TrainingSettings(**values, method=name, bias_terms=terms, learning_rate=rate, seed=seed), own)
            for rate in (rates if isinstance(rates, list | tuple) else (rates,))
        ]


def _paper() -> Protocol:
    """The first paper's protocol, and of the second what its summary says: full data sets, five seeds."""
    glue = (Round(_GLUE, _SEEDS),)
    return Protocol(
        settings={"epochs": MAX_EPOCHS, "scored_train_rows": 2000},
        tasks={"squad": {"max_length": 384, "stride": 128, "epochs": 3, "scored_train_rows": 0}},
        methods={},
        experiments={
            "table2": Series(("full", "bitfit"), glue),
            "table3": Series(_ROWS, glue),
            "pos": Series(("full", "bitfit"), (Round(("ewt",), _SEEDS),)),
            "figure1": Series(("bitfit",), (Round(("rte",), (0,)),)),
            "figure2": Series(
                ("full", "bitfit"), (Round(("squad",), (0,)),), sizes=(1000, 2000, 4000, 8000, 16000, 32000, 64000)
            ),
            "data-size": Series(
                ("full", "bitfit", "adapters"),
                (Round(("mrpc", "cola", "stsb"), _SEEDS),),
                shares=(0.1, 0.3, 0.5, 0.7, 1.0),
            ),
            "gap": Series(("full", "bitfit"), glue),
        },
    )


PAPER = _paper()
"""The protocol where no file says another one."""


def read_protocol(path: Path) -> Protocol:
    """The protocol that a file says; an experiment that it leaves out is as in `PAPER`.

    Raises:
        UsageError: the file is not there, is not JSON, or has a name that no protocol has.
    """
    try:
        root = json.loads(path.read_bytes())
    except OSError as error:
        raise UsageError(f"{path} can't be read: {error.strerror}") from error
    except ValueError as error:
        raise UsageError(f"{path} is not JSON: {error}") from error
    try:
        return _protocol(root)
    except (TypeError, AttributeError, KeyError) as error:
        raise UsageError(f"{path} does not have a protocol's form: {error}", hint="see docs/reproduce.md") from error
    except DataError as error:
        raise UsageError(f"{path}: {error.message}", hint=error.hint) from error


def _protocol(root: Mapping[str, Any]) -> Protocol:
    _check_names("a protocol", root, ("settings", "tasks", "methods", "experiments"))
    _check_names("experiments", root.get("experiments", {}), PAPER.experiments)
    for part in (root.get("settings", {}), *root.get("tasks", {}).values(), *root.get("methods", {}).values()):
        _check_settings(part)
    series = {name: _series(value, PAPER.experiments[name]) for name, value in root.get("experiments", {}).items()}
    return Protocol(
        root.get("settings", {}), root.get("tasks", {}), root.get("methods", {}), {**PAPER.experiments, **series}
    )


def _series(value: Mapping[str, Any], usual: Series) -> Series:
    _check_names("an experiment", value, [each.name for each in fields(Series)])
    _check_settings(value.get("settings", {}))
    for name in ("sizes", "shares"):
        if name in value and not getattr(usual, name):
            raise DataError(f"{name} of an experiment that has none")
    rounds = [Round(_list("tasks", each, str), _list("seeds", each, int)) for each in value.get("rounds", ())]
    sizes, shares = _list("sizes", value, int, usual.sizes), _list("shares", value, float, usual.shares)
    if any(size < 1 for size in sizes) or not all(0 < share <= 1 for share in shares):
        raise DataError(f"sizes {sizes} and shares {shares}, expected numbers of rows, and shares above 0 up to 1")
    return Series(
        methods=_list("methods", value, str, usual.methods),
        rounds=tuple(rounds) or usual.rounds,
        sizes=sizes,
        shares=shares,
        settings=value.get("settings", {}),
    )


def _list(name: str, part: Mapping[str, Any], kind: type, usual: tuple[Any, ...] | None = None) -> tuple[Any, ...]:
    """A list of the protocol, with something in it."""
    if usual is not None and name not in part:
        return usual
    found = part[name]
    if not isinstance(found, list) or not found or not all(_is(kind, each) for each in found):
        raise DataError(f"{name} {json.dumps(found)}, expected a list of {_KINDS[kind]}")
    return tuple(found)


def _check_settings(found: Mapping[str, Any]) -> None:
    _check_names("settings", found, _SETTINGS)
    for name, value in found.items():
        kind, unset = _SETTINGS[name], value is None and name in _OPTIONAL
        several = name == "learning_rate" and isinstance(value, list) and value
        if not unset and not all(_is(kind, each) for each in (value if several else [value])):
            raise DataError(f"settings with {name} {json.dumps(value)}, expected {_KINDS[kind]}")


_KINDS = {int: "whole numbers", float: "numbers", bool: "true or false", str: "text"}


def _is(kind: type, value: Any) -> bool:
    """Whether a value from JSON is of a type; a whole number is a number, too, and true is neither."""
    if isinstance(value, bool):
        return kind is bool
    return isinstance(value, int | float if kind is float else kind)


def _check_names(what: str, found: Mapping[str, Any], known: Any) -> None:
    unknown = [name for name in found if name not in known]
    if unknown:
        raise DataError(f"{what} with {', '.join(unknown)}", hint=f"known: {', '.join(sorted(known))}")
