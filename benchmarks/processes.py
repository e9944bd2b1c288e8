"""Processes that are measured: how long they ran, and how much memory they had."""

from __future__ import annotations

import json
import subprocess
import sys
import tempfile
import time
from dataclasses import dataclass
from pathlib import Path
from typing import Any

__all__ = ["Finished", "Held", "run_json", "run_measured"]

_FOLDER = Path(__file__).parent
#: The process says it itself: what the system counts of a child begins with the memory of its parent.
_SAY_PEAK = """
import atexit, sys
sys.path.insert(0, {folder!r})
import memory
atexit.register(lambda: print(memory.peak()))
"""


@dataclass(frozen=True)
class Finished:
    """A command that ended well.

    Attributes:
        peak: the largest resident memory, in GB.
    """

    seconds: float
    peak: float
    stderr: str


def run_measured(code: str, *words: str) -> Finished:
    """Run Python code to its end in a process of its own. If it fails, this process ends with what it said."""
    with tempfile.TemporaryFile("w+") as log:
        started = time.monotonic()
        command = [sys.executable, "-c", _SAY_PEAK.format(folder=str(_FOLDER)) + code, *words]
        process = subprocess.run(command, stdout=subprocess.PIPE, stderr=log, text=True)
        seconds = time.monotonic() - started
        log.seek(0)
        stderr = log.read()
    if process.returncode:
        sys.exit(stderr)
    return Finished(seconds, int(process.stdout.splitlines()[-1]) / 1e9, stderr)


def run_json(script: str, *words: str) -> Any:
    """Run a script of this folder in a process of its own; it prints one line of JSON."""
    done = subprocess.run([sys.executable, str(_FOLDER / script), *words], capture_output=True, text=True)
    if done.returncode:
        sys.exit(done.stderr)
    return json.loads(done.stdout)


class Held:
    """A script that prints a line of JSON, waits, and prints another one when it is told to go on."""

    def __init__(self, script: str, *words: str) -> None:
        self._process = subprocess.Popen(
            [sys.executable, str(_FOLDER / script), *words], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
        )

    def read(self) -> Any:
        """The next line."""
        assert self._process.stdout is not None
        line = self._process.stdout.readline()
        if not line:
            sys.exit(f"a measured process ended with status {self._process.wait()}")
        return json.loads(line)

    def go_on(self) -> None:
        """Let it print its next line."""
        assert self._process.stdin is not None
        self._process.stdin.write("\n")
        self._process.stdin.flush()

    def end(self) -> None:
        """Wait until it has ended."""
        self._process.communicate()
