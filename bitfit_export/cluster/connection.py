"""The connection to a Ray cluster, or to one that is started here for the time of a command."""

from __future__ import annotations

import logging
import os
import signal
import socket
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

from bitfit_export.errors import MissingExtraError, UsageError, first_line

__all__ = ["connected"]

#: Seconds for a machine to answer.
_PATIENCE = 10.0


@contextmanager
def connected(address: str | None) -> Iterator[Any]:
    """Connect this process to Ray while the block runs.

    Args:
        address: of a running cluster, `auto` for the one of this machine; None starts one here, which ends with the
            block.

    Yields:
        The module `ray`.

    Raises:
        MissingExtraError: Ray is not installed.
        UsageError: no cluster answers at the address.
    """
    try:
        import ray
    except ImportError as error:
        raise MissingExtraError(error.name or "ray", "ray") from error
    # A cluster that this command starts tells nobody that it was started.
    os.environ.setdefault("RAY_USAGE_STATS_ENABLED", "0")
    if address is not None:
        _knock(address)
    own: dict[str, Any] = {} if address else {"include_dashboard": False}
    terminate = signal.getsignal(signal.SIGTERM)
    try:
        # Without an address Ray would first look for a cluster that is there, in RAY_ADDRESS and on this machine.
        ray.init(address=address or "local", log_to_driver=False, logging_level=logging.ERROR, **own)
    except Exception as error:
        raise _unreachable(address or "this machine", first_line(error)) from error
    if threading.current_thread() is threading.main_thread():
        signal.signal(signal.SIGTERM, terminate)  # Ray has put its own there, which ends the process at once
    try:
        yield ray
    finally:
        ray.shutdown()


def _knock(address: str) -> None:
    """Find out whether anything listens at `host:port`. Ray itself would try for many minutes."""
    host, _, port = address.removeprefix("ray://").rpartition(":")
    if not host or not port.isdigit():
        return  # auto, or what Ray has to make sense of
    try:
        socket.create_connection((host.strip("[]"), int(port)), timeout=_PATIENCE).close()
    except (OSError, OverflowError) as error:
        raise _unreachable(address, getattr(error, "strerror", None) or str(error)) from error


def _unreachable(where: str, reason: str) -> UsageError:
    return UsageError(
        f"Ray cannot be reached at {where}: {reason}",
        hint="ray start --head starts a cluster, and says its address; without --address one is started here",
    )
