"""How much a call does, in counts that are the same on every machine."""

from __future__ import annotations

import gc
import sys
import tracemalloc
from collections.abc import Callable
from typing import Any


def work_of(action: Callable[[], object]) -> tuple[int, int]:
    """The functions that `action` calls, of Python and of C, and the bytes that it needs beyond what is there.

    A first call comes before, so that what is made once does not count; nor does what a garbage collection would call.
    """
    action()
    gc.disable()
    try:
        return _calls(action), _bytes(action)
    finally:
        gc.enable()


def _calls(action: Callable[[], object]) -> int:
    calls = 0

    def count(frame: Any, event: str, argument: Any) -> None:
        nonlocal calls
        calls += event in ("call", "c_call")

    sys.setprofile(count)
    try:
        action()
    finally:
        sys.setprofile(None)
    return calls


def _bytes(action: Callable[[], object]) -> int:
    tracemalloc.start()
    try:
        before, _ = tracemalloc.get_traced_memory()
        tracemalloc.reset_peak()
        action()
        _, peak = tracemalloc.get_traced_memory()
    finally:
        tracemalloc.stop()
    return peak - before
