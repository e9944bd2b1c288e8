"""Work in a second thread: what its owner gets of it, and when."""

from __future__ import annotations

import threading
from typing import NoReturn

import pytest

from bitfit_export.runtime.beside import Beside


def fail() -> NoReturn:
    raise ValueError("of the work")


def test_both_go_on_at_once_and_the_result_is_the_works() -> None:
    block, work = threading.Event(), threading.Event()

    def meet() -> str:
        work.set()
        assert block.wait(10)
        return "met"

    with Beside(meet) as beside:
        assert work.wait(10)
        block.set()
        assert beside.result() == "met"


def test_an_error_is_raised_where_the_result_is_asked_for() -> None:
    with Beside(fail) as beside:
        pass
    with pytest.raises(ValueError, match="of the work"):
        beside.result()


def test_an_error_of_the_block_waits_for_the_work() -> None:
    go_on, done = threading.Event(), []

    def work() -> None:
        assert go_on.wait(10)
        done.append(True)

    def use() -> NoReturn:
        with Beside(work):
            go_on.set()
            raise KeyError("of the block")

    with pytest.raises(KeyError, match="of the block"):
        use()
    assert done
