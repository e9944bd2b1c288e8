"""The options of commands that run a bundle on an engine of the caller's choice."""

from __future__ import annotations

import argparse

from bitfit_export.errors import UsageError
from bitfit_export.runtime.engines import ENGINES

__all__ = ["add_engine_arguments", "engine_options"]


def add_engine_arguments(parser: argparse.ArgumentParser, *, on_ray: bool = False) -> None:
    """Add `--engine` and `--engine-option`.

    Args:
        on_ray: whether the command also takes `ray` as its engine.
    """
    words = f"what runs the model: {' or '.join(ENGINES)} (the first that can)"
    if on_ray:
        words += "; ray: the first that can, in many processes"
    parser.add_argument("--engine", help=words)
    parser.add_argument(
        "--engine-option",
        action="append",
        default=[],
        metavar="NAME=VALUE",
        help="an option of the engine, such as precision=bf16; may be repeated (docs/running.md)",
    )


def engine_options(options: argparse.Namespace) -> dict[str, str]:
    """Returns the values of `--engine-option` by name.

    Raises:
        UsageError: a word that is not NAME=VALUE, or a name twice.
    """
    found: dict[str, str] = {}
    for word in options.engine_option:
        name, equals, value = word.partition("=")
        if not name or not equals:
            raise UsageError(f"--engine-option is {word!r}, expected NAME=VALUE")
        if name in found:
            raise UsageError(f"--engine-option has {name} twice, expected one value")
        found[name] = value
    return found
