"""The exception tree that users catch."""

from __future__ import annotations

import inspect

from bitfit_export import errors


def test_every_error_is_drawn_in_the_tree_and_exported() -> None:
    classes = {
        name for name, value in vars(errors).items() if inspect.isclass(value) and value.__module__ == errors.__name__
    }
    assert set(errors.__all__) == classes | {"first_line"}
    for name in classes - {"RowFault"}:
        assert name in (errors.__doc__ or "")


def test_a_hint_is_a_second_line() -> None:
    assert str(errors.UsageError("found a, expected b", hint="do c")) == "found a, expected b\nhint: do c"
    assert str(errors.UsageError("found a, expected b")) == "found a, expected b"


def test_only_a_failed_verification_exits_with_1() -> None:
    assert errors.VerificationError("x").exit_code == 1
    assert errors.BitfitError("x").exit_code == 2


def test_of_another_librarys_error_one_line_is_said() -> None:
    assert errors.first_line(ValueError(" one\ntwo")) == "one"
    assert errors.first_line(ValueError()) == "ValueError"
    assert len(errors.first_line(ValueError("x" * 1000))) == 200
