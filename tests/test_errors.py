"""The exception tree that users catch."""

from __future__ import annotations

import inspect
import pickle

import pytest
from hypothesis import given
from hypothesis import strategies as st

from bitfit_export import errors

ERRORS = [value for value in vars(errors).values() if inspect.isclass(value) and issubclass(value, errors.BitfitError)]
#: What a terminal obeys, or takes for the end of a line: escape, C1's CSI, line feed, Unicode's, a change of direction.
HOSTILE = "a\x1b[2K\x9b31m\nerror: forged\r\u2028\u202e\x7f\0\ud800"


def test_every_error_is_drawn_in_the_tree_and_exported() -> None:
    classes = {
        name for name, value in vars(errors).items() if inspect.isclass(value) and value.__module__ == errors.__name__
    }
    assert set(errors.__all__) == classes | {"first_line", "one_line", "quoted", "shown"}
    for name in classes - {"RowFault", "SignatureFault"}:
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


def make(kind: type[errors.BitfitError], text: str) -> errors.BitfitError:
    """An error of this class, with `text` in whatever it takes."""
    if kind is errors.MissingExtraError:
        return errors.MissingExtraError(text, "export")
    if kind is errors.RowError:
        return errors.RowError(errors.RowFault.BAD_HEAD, text, hint=text)
    if kind is errors.SignatureError:
        return errors.SignatureError(errors.SignatureFault.WRONG, text, hint=text)
    if kind is errors.InputError:
        return errors.InputError(text, item=3, hint=text)
    return kind(text, hint=text)


@pytest.mark.parametrize("kind", ERRORS)
def test_an_error_comes_through_a_pool_of_processes(kind: type[errors.BitfitError]) -> None:
    error = make(kind, "text")
    again = pickle.loads(pickle.dumps(error))
    assert type(again) is kind
    assert (str(again), again.args, again.__dict__) == (str(error), error.args, error.__dict__)


@pytest.mark.parametrize("kind", ERRORS)
def test_no_text_leaves_its_line_or_reaches_the_terminal_raw(kind: type[errors.BitfitError]) -> None:
    lines = str(make(kind, HOSTILE)).split("\n")
    assert len(lines) == 2
    assert all(line.isprintable() for line in lines)
    assert lines[1].startswith("hint: ")


@pytest.mark.parametrize("kind", ERRORS)
def test_no_text_makes_a_long_message(kind: type[errors.BitfitError]) -> None:
    assert len(str(make(kind, "x" * 1_000_000))) < 5000


@given(st.text() | st.text(alphabet="a\x1b\n\u2028\ud800\x9b\u202e日"))
def test_shown_text_is_one_printable_line_of_bounded_length(text: str) -> None:
    for found, longest in ((errors.shown(text), 100), (errors.shown(text * 20), 100), (errors.one_line(text), None)):
        assert found.isprintable()
        assert longest is None or len(found) <= longest
        assert found.encode("utf-8").decode("utf-8") == found
    if text.isprintable() and len(text) <= 100:
        assert errors.shown(text) == text


def test_a_long_name_keeps_both_ends() -> None:
    assert errors.shown("a" * 500 + "b" * 500) == "a" * 49 + "..." + "b" * 48
    assert errors.quoted("a" * 500 + "b" * 500).startswith("'aaa")
    assert len(errors.quoted("\x1b" * 500)) <= 100
    assert len(errors.quoted(["name" * 100] * 1000)) < 1000
    assert errors.quoted("sst\n2") == "'sst\\n2'"
