"""Work that a second thread does while its owner does other work."""

from __future__ import annotations

import threading
from collections.abc import Callable
from types import TracebackType
from typing import Generic, TypeVar

__all__ = ["Beside"]

ResultT = TypeVar("ResultT")


class Beside(Generic[ResultT]):
    """A `with` block beside which a second thread does `work`; the block is over when both are.

    It pays where one of them is in a library that lets other threads run Python meanwhile, as ONNX Runtime does while
    it opens a model. What the work raises is raised where its result is asked for.
    """

    def __init__(self, work: Callable[[], ResultT]) -> None:
        self._work = work
        self._results: list[ResultT] = []
        self._errors: list[BaseException] = []
        self._thread = threading.Thread(target=self._run)

    def __enter__(self) -> Beside[ResultT]:
        self._thread.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._thread.join()

    def result(self) -> ResultT:
        """Wait for the end of the work, and return or raise what it did."""
        self._thread.join()
        if self._errors:
            raise self._errors[0]
        return self._results[0]

    def _run(self) -> None:
        try:
            self._results.append(self._work())
        except BaseException as error:  # for the owner
            self._errors.append(error)
