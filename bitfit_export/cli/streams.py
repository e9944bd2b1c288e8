"""Stdout and stderr of a command: what is lost on one is an error, on the other it is not."""

from __future__ import annotations

import contextlib
import json
import os
import re
import sys
from collections.abc import Iterator
from typing import Any, TextIO, cast

from bitfit_export.errors import OutputError, UsageError, one_line

__all__ = ["ReaderGoneError", "Stdout", "json_text", "say", "standard_streams"]

#: Control characters that JSON allows as they are.
_CONTROLS = re.compile("[\x7f-\x9f\u2028\u2029]")


class ReaderGoneError(Exception):
    """Whatever read stdout has ended, as `head` does."""


def say(text: str) -> None:
    """Print a line for people, on stderr. Names in it may come from anywhere."""
    print(one_line(text), file=sys.stderr, flush=True)


def json_text(value: Any, *, indent: int | None = None, sort_keys: bool = False) -> str:
    """Returns a value as JSON for stdout, in which every control character is escaped: stdout may be a terminal."""
    text = json.dumps(value, ensure_ascii=False, allow_nan=False, indent=indent, sort_keys=sort_keys)
    return _CONTROLS.sub(lambda found: f"\\u{ord(found[0]):04x}", text)


class _Stream:
    """A text stream that notes its first error."""

    def __init__(self, stream: TextIO) -> None:
        self._stream = stream
        self.error: OSError | None = None

    def __getattr__(self, name: str) -> Any:
        return getattr(self._stream, name)

    def write(self, text: str) -> int:
        with self._noting_errors():
            self._stream.write(text)
        return len(text)

    def flush(self) -> None:
        with self._noting_errors():
            self._stream.flush()

    @contextlib.contextmanager
    def _noting_errors(self) -> Iterator[None]:
        """A progress line that cannot be written must not end a day's training."""
        try:
            yield
        except OSError as error:
            self.error = self.error or error

    def discard(self) -> None:
        """Let go of what could not be written: Python would try again when it ends, and then exit with 120."""
        if self.error is not None:
            with contextlib.suppress(OSError):
                os.dup2(os.open(os.devnull, os.O_WRONLY), self._stream.fileno())


class Stdout(_Stream):
    """Stdout, which has a command's answer."""

    def __init__(self, stream: TextIO | None) -> None:
        super().__init__(stream or _devnull("w"))
        self._closed_before = stream is None

    def check_open(self) -> None:
        """Refuse to work for an answer that nobody gets.

        Raises:
            UsageError: stdout was closed (`>&-`) when this process began.
        """
        if self._closed_before:
            raise UsageError("stdout is closed, expected it open", hint="redirect it to a file or to /dev/null")

    @contextlib.contextmanager
    def _noting_errors(self) -> Iterator[None]:
        with super()._noting_errors():
            yield
        if isinstance(self.error, BrokenPipeError):
            raise ReaderGoneError
        if self.error is not None:
            raise OutputError(
                f"stdout could not be written: {self.error.strerror or self.error}",
                hint="redirect it to a file on a disk that has room",
            )


@contextlib.contextmanager
def standard_streams() -> Iterator[Stdout]:
    """Put streams in place of `sys.stdout` and `sys.stderr` that deal with errors, for the length of the block.

    Stdout is UTF-8, as JSON is, whatever the terminal's own encoding. Python has None for a stream that was closed; the
    next file to be opened would take its number, and what a library prints would go into that file, so its number is
    taken first.
    """
    before = sys.stdin, sys.stdout, sys.stderr
    sys.stdin = sys.stdin or _devnull("r")
    stdout, stderr = Stdout(sys.stdout), _Stream(sys.stderr or _devnull("w"))
    reconfigure = getattr(stdout, "reconfigure", None)
    if reconfigure is not None:
        # A path may have bytes that are not UTF-8; Python has them as surrogates and can write them as they were.
        reconfigure(encoding="utf-8", errors="surrogateescape")
    sys.stdout, sys.stderr = cast("TextIO", stdout), cast("TextIO", stderr)
    try:
        yield stdout
    finally:
        sys.stdin, sys.stdout, sys.stderr = before
        stdout.discard()
        stderr.discard()


def _devnull(mode: str) -> TextIO:
    return cast("TextIO", open(os.open(os.devnull, os.O_RDWR), mode, encoding="utf-8"))
