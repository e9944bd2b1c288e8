"""The end of a command: its exit status, and the line on stderr that says why it is not 0."""

from __future__ import annotations

import traceback
from collections.abc import Callable

from bitfit_export.cli.streams import ReaderGoneError, say, standard_streams
from bitfit_export.errors import BitfitError, first_line, shown

__all__ = ["TRIAL_FAILED", "exit_status"]

#: A trial failed; the others are done.
TRIAL_FAILED = 3
_SOFTWARE = 70
_INTERRUPTED = 130
#: As a shell says it of a program that SIGPIPE ended.
_READER_GONE = 141
#: How libraries say that they were refused memory, where they have no class for it.
_NO_MEMORY = ("not enough memory", "allocate memory", "out of memory")


def exit_status(command: Callable[[], int]) -> int:
    """Run a command and say on stderr what it raises; the package's `cli` lists the statuses.

    Raises:
        SystemExit: what argparse ends with.
    """
    with standard_streams() as stdout:
        try:
            stdout.check_open()
            try:
                status = command()
            except SystemExit:
                stdout.flush()
                raise
            stdout.flush()
            return status
        except BitfitError as error:
            for line in f"error: {error}".splitlines():
                say(line)
            return error.exit_code
        except KeyboardInterrupt as error:
            # Whoever was writing an output has noted whether it was done.
            say("; ".join(["interrupted", *getattr(error, "__notes__", ())]))
            return _INTERRUPTED
        except ReaderGoneError:
            return _READER_GONE
        except OSError as error:
            where = f"{error.filename}: " if error.filename else ""
            say(f"error: {shown(f'{where}{error.strerror or error}', 1000)}")
            return BitfitError.exit_code
        except Exception as error:
            return _unexpected(error)


def _unexpected(error: Exception) -> int:
    if isinstance(error, MemoryError) or any(words in str(error) for words in _NO_MEMORY):
        say(f"error: there is too little memory: {first_line(error)}")
        say("hint: use a smaller model, batch or length, or fewer tasks at a time")
        return BitfitError.exit_code
    for line in traceback.format_exc().splitlines():
        say(line)
    say("error: bitfit-export has a fault: it did not expect this error")
    say("hint: report it with the command and the lines above")
    return _SOFTWARE
