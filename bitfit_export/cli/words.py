"""Options that take several words or numbers, separated by commas, and options that have an older name."""

from __future__ import annotations

import argparse
from collections.abc import Callable
from typing import Any, overload

from bitfit_export.errors import UsageError

__all__ = ["add_renamed_option", "names", "numbers", "words"]


@overload
def words(text: str) -> tuple[str, ...]: ...
@overload
def words(text: None) -> None: ...
@overload
def words(text: str | None) -> tuple[str, ...] | None: ...
def words(text: str | None) -> tuple[str, ...] | None:
    """Returns the words of an option, without spaces around them and without empty ones; None for no option."""
    return None if text is None else tuple(filter(None, (word.strip() for word in text.split(","))))


def names(option: str, text: str) -> tuple[str, ...]:
    """Returns the words of an option.

    Raises:
        UsageError: there is none.
    """
    found = words(text)
    if not found:
        raise UsageError(f"{option} names nothing")
    return found


def numbers(option: str, text: str, kind: Callable[[str], Any]) -> tuple[Any, ...]:
    """Returns the numbers of an option, each made by `kind`.

    Raises:
        UsageError: there is none, or a word that `kind` refuses by a ValueError.
    """
    try:
        found = tuple(kind(word) for word in words(text))
    except ValueError as error:
        raise UsageError(f"{option} is {text!r}, expected numbers separated by commas") from error
    if not found:
        raise UsageError(f"{option} is empty, expected numbers separated by commas")
    return found


def add_renamed_option(group: argparse._ActionsContainer, option: str, *, once: str, **details: Any) -> None:
    """Add an option that was once called otherwise; the old name does the same, and the help does not show it."""
    action = group.add_argument(option, **details)
    group.add_argument(once, **details | {"dest": action.dest, "help": argparse.SUPPRESS})
