"""The state that a forked process inherits: free locks, and complete data behind them.

A fork copies the memory and one thread. A lock that another thread holds at that moment stays locked in the child for
ever, so a fork waits until the locks that are kept here are free, and holds them while it happens.
"""

from __future__ import annotations

import os
import threading
import weakref
from collections.abc import Callable
from typing import Any, NamedTuple

__all__ = ["hold_during_forks"]


class _Kept(NamedTuple):
    locks: tuple[threading.Lock, ...]
    in_child: Callable[[Any], object] | None


# Guards the owners, and is itself the first lock that a fork takes.
_changing = threading.Lock()
_owners: weakref.WeakKeyDictionary[object, _Kept] = weakref.WeakKeyDictionary()
_held: list[threading.Lock] = []


def hold_during_forks(owner: object, *locks: threading.Lock, in_child: Callable[[Any], object] | None = None) -> None:
    """Let every fork of this process hold the locks of `owner` as long as it lives.

    Args:
        locks: all of the owner's, in the order in which a thread takes them that needs several. None of them is held
            for long, or by code that forks.
        in_child: called with the owner in each new process, before the locks are free.
    """
    with _changing:
        _owners[owner] = _Kept(locks, in_child)


def _take() -> None:
    _changing.acquire()
    _held.append(_changing)
    for kept in list(_owners.values()):
        for lock in kept.locks:
            lock.acquire()
            _held.append(lock)


def _give_back() -> None:
    held = _held[::-1]
    _held.clear()  # before the last is free: another thread may then fork
    for lock in held:
        lock.release()


def _begin_child() -> None:
    for owner, kept in list(_owners.items()):
        if kept.in_child is not None:
            kept.in_child(owner)
    _give_back()


if hasattr(os, "register_at_fork"):  # not on Windows, which cannot fork
    os.register_at_fork(before=_take, after_in_parent=_give_back, after_in_child=_begin_child)
