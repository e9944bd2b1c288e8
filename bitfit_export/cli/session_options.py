"""The options of commands that answer texts with a bundle, and the session that they ask for."""

from __future__ import annotations

import argparse
from pathlib import Path

from bitfit_export.cli.engine_choice import add_engine_arguments, engine_options
from bitfit_export.cli.ray_options import RAY
from bitfit_export.runtime import BiasSession
from bitfit_export.runtime.threads import check_threads

__all__ = ["add_session_arguments", "open_session"]


def add_session_arguments(parser: argparse.ArgumentParser, *, on_ray: bool = False) -> None:
    """Add what runs the model, and which of the bundle's files are trusted.

    Args:
        on_ray: whether the command also takes `ray` as its engine.
    """
    add_engine_arguments(parser, on_ray=on_ray)
    parser.add_argument("--threads", type=int, help="CPU threads")
    parser.add_argument("--check-hashes", action="store_true", help="also compare the SHA-256 of the bundle's files")
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


def open_session(options: argparse.Namespace) -> BiasSession:
    """Returns the session of these options on `options.bundle`.

    Raises:
        BitfitError: as `BiasSession`; UsageError, also for an option that cannot be used.
    """
    if options.threads is not None:
        check_threads(options.threads, "--threads")
    return BiasSession(
        options.bundle,
        engine=None if options.engine == RAY else options.engine,
        engine_options=engine_options(options),
        threads=options.threads,
        check_hashes=options.check_hashes,
        trusted_keys=options.trusted_key,
        state=options.state,
    )
