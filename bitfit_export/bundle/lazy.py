"""Values that are made when they are first needed."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, Generic, TypeVar, overload

__all__ = ["lazy_property"]

T = TypeVar("T")


class lazy_property(Generic[T]):  # noqa: N801 - a decorator, as property is
    """As `functools.cached_property` is from Python 3.12 on: without a lock.

    In 3.11 the lock is held while the value is made, and a process that is forked meanwhile has it for ever. Without it
    two threads may both make the value, which must do no harm.
    """

    def __init__(self, make: Callable[[Any], T]) -> None:
        self._make = make
        self.__doc__ = make.__doc__

    def __set_name__(self, owner: type, name: str) -> None:
        self._name = name

    @overload
    def __get__(self, instance: None, owner: type) -> lazy_property[T]: ...

    @overload
    def __get__(self, instance: object, owner: type) -> T: ...

    def __get__(self, instance: object | None, owner: type) -> lazy_property[T] | T:
        if instance is None:
            return self
        # From now on the attribute is found in the instance before it is looked for here.
        value = instance.__dict__[self._name] = self._make(instance)
        return value
