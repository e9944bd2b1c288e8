"""The limits on the number of CPU threads."""

from __future__ import annotations

import os

from bitfit_export.errors import UsageError, quoted

__all__ = ["check_threads", "most_threads"]

#: More threads than this per core only wait for each other. With hundreds, native code leaves the interpreter no time
#: to notice SIGTERM or Ctrl-C: 64 threads on 2 cores took 38 s to end, 8 took less than one.
_PER_CORE = 4


def most_threads() -> int:
    """Returns the largest number of threads that this machine is asked for."""
    return _PER_CORE * (os.cpu_count() or 1)


def check_threads(threads: int, what: str = "threads") -> int:
    """Returns `threads`, for a session, a model or training on this machine.

    Args:
        what: the name of the option or argument, for the message.

    Raises:
        UsageError: it is not an integer from 1 to `most_threads()`.
    """
    if type(threads) is not int or threads < 1:
        raise UsageError(f"{what} is {quoted(threads)}, expected 1 or more")
    if threads > most_threads():
        raise UsageError(
            f"{what} is {quoted(threads)}, expected at most {most_threads()}, {_PER_CORE} per core of this machine",
            hint="pass one thread per core; more are rarely faster",
        )
    return threads
