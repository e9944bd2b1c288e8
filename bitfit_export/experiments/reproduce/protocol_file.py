"""A protocol of one's own, read from a file.

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

Settings are the fields of `TrainingSettings`, and `train_examples`, `validation_examples`, `scored_train_examples` of
`Trial`. A list of learning rates is a search: each is trained, and the best one is reported. Where there is none, the
rate is that of `default_learning_rate`: the paper's own where it has one. Where there is no schedule, the rate is
constant.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import fields
from pathlib import Path
from typing import Any

from bitfit_export.errors import DataError, UsageError
from bitfit_export.experiments.reproduce.protocol import OF_TRIALS, PAPER, Experiment, Protocol, Round
from bitfit_export.training.settings import TrainingSettings
from bitfit_export.training.stored_names import from_stored

__all__ = ["read_protocol"]

#: Name of a setting -> its type.
_SETTINGS: Mapping[str, type] = {
    **{
        each.name: int if each.default is None else type(each.default)
        for each in fields(TrainingSettings)
        if each.name not in ("method", "bias_terms", "seed")
    },
    "learning_rate": float,
    **dict.fromkeys(OF_TRIALS, int),
}
#: Settings that may be null.
_OPTIONAL = ("learning_rate", "stride", "patience", "train_examples", "validation_examples")


def read_protocol(path: Path) -> Protocol:
    """The protocol that a file says; an experiment that it leaves out is as in `PAPER`.

    Raises:
        UsageError: the file is not there, is not JSON, or has a name that no protocol has.
    """
    try:
        root = json.loads(path.read_bytes())
    except OSError as error:
        raise UsageError(f"{path} cannot be read: {error.strerror}") from error
    except (ValueError, RecursionError) as error:
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
    own = {name: _experiment(value, PAPER.experiments[name]) for name, value in root.get("experiments", {}).items()}
    return Protocol(
        settings=_settings(root.get("settings", {})),
        tasks={name: _settings(part) for name, part in root.get("tasks", {}).items()},
        methods={name: _settings(part) for name, part in root.get("methods", {}).items()},
        experiments={**PAPER.experiments, **own},
    )


def _experiment(value: Mapping[str, Any], usual: Experiment) -> Experiment:
    _check_names("an experiment", value, [each.name for each in fields(Experiment)])
    for name in ("sizes", "shares"):
        if name in value and not getattr(usual, name):
            raise DataError(f"{name} of an experiment that has none")
    rounds = [Round(_list("tasks", each, str), _list("seeds", each, int)) for each in value.get("rounds", ())]
    sizes, shares = _list("sizes", value, int, usual.sizes), _list("shares", value, float, usual.shares)
    if any(size < 1 for size in sizes) or not all(0 < share <= 1 for share in shares):
        raise DataError(f"sizes {sizes} and shares {shares}, expected numbers of examples, and shares above 0 up to 1")
    return Experiment(
        methods=_list("methods", value, str, usual.methods),
        rounds=tuple(rounds) or usual.rounds,
        sizes=sizes,
        shares=shares,
        settings=_settings(value.get("settings", {})),
    )


def _list(name: str, part: Mapping[str, Any], kind: type, usual: tuple[Any, ...] | None = None) -> tuple[Any, ...]:
    """A list of the protocol, with something in it."""
    if usual is not None and name not in part:
        return usual
    found = part[name]
    if not isinstance(found, list) or not found or not all(_is(kind, each) for each in found):
        raise DataError(f"{name} {json.dumps(found)}, expected a list of {_KINDS[kind]}")
    return tuple(found)


def _settings(part: Mapping[str, Any]) -> dict[str, Any]:
    """Returns the settings in a part of the protocol, checked."""
    found = from_stored(part)
    if len(found) < len(part):
        raise DataError(f"settings with {', '.join(part)}: one of them twice, by its old name and by its new one")
    _check_names("settings", found, _SETTINGS)
    for name, value in found.items():
        kind, unset = _SETTINGS[name], value is None and name in _OPTIONAL
        several = name == "learning_rate" and isinstance(value, list) and value
        if not unset and not all(_is(kind, each) for each in (value if several else [value])):
            raise DataError(f"settings with {name} {json.dumps(value)}, expected {_KINDS[kind]}")
    return found


_KINDS = {int: "whole numbers", float: "numbers", bool: "true or false", str: "text"}


def _is(kind: type, value: Any) -> bool:
    """Returns whether a value from JSON is of a type; a whole number is a number, too, and true is neither."""
    if isinstance(value, bool):
        return kind is bool
    return isinstance(value, int | float if kind is float else kind)


def _check_names(what: str, found: Mapping[str, Any], known: Any) -> None:
    unknown = [name for name in found if name not in known]
    if unknown:
        raise DataError(f"{what} with {', '.join(unknown)}", hint=f"known: {', '.join(sorted(known))}")
