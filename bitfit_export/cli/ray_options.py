"""The options of commands that also run on a Ray cluster, with `--engine ray`."""

from __future__ import annotations

import argparse
from collections.abc import Collection, Mapping
from typing import Any

from bitfit_export.errors import UsageError
from bitfit_export.runtime.arguments import check_positive

__all__ = ["RAY", "add_ray_arguments", "runs_on_ray"]

RAY = "ray"


def add_ray_arguments(parser: argparse.ArgumentParser, *, shared: str, counts: Mapping[str, str]) -> Any:
    """Add `--address`, and an option for each count. All are None where they were not given.

    Args:
        shared: what the cluster's machines must see at the same paths.
        counts: name of an option -> what it counts.

    Returns:
        The group of these options.
    """
    group = parser.add_argument_group("on a Ray cluster")
    group.add_argument("--address", help=f"of a running cluster, whose machines see {shared} at the same paths")
    for name, words in counts.items():
        group.add_argument(f"--{name}", type=int, metavar="N", help=words)
    return group


def runs_on_ray(options: argparse.Namespace, counts: Collection[str], others: Collection[str] = ()) -> bool:
    """Whether a command is to run on Ray.

    Args:
        counts: as for `add_ray_arguments`.
        others: more options that only Ray takes.

    Raises:
        UsageError: an option of Ray's without it, or a count below 1.
    """
    on_ray = bool(options.engine == RAY)
    for name in ("address", *counts, *others):
        value = getattr(options, name.replace("-", "_"))
        if value is None:
            continue
        if not on_ray:
            raise UsageError(f"--{name} goes with --engine ray", hint=f"leave --{name} out, or add --engine ray")
        if name in counts:
            check_positive(f"--{name}", value)
    return on_ray
