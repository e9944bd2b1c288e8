"""The options of commands that open a bundle of which only signed files may be used."""

from __future__ import annotations

import argparse
from pathlib import Path
from typing import Any

__all__ = ["add_trust_arguments", "trust_options"]


def add_trust_arguments(parser: argparse.ArgumentParser) -> None:
    trust = parser.add_argument_group("trust")
    trust.add_argument(
        "--trusted-key",
        action="append",
        metavar="KEY",
        help="a public key, or its file: refuse a bundle and rows that it did not sign; may be repeated",
    )
    trust.add_argument(
        "--state", type=Path, metavar="FILE", help="keep the highest version of each task there, and refuse older rows"
    )


def trust_options(options: argparse.Namespace) -> dict[str, Any]:
    """Returns the arguments of `BiasSession` that these options are."""
    return {"trusted_keys": options.trusted_key, "state": options.state}
