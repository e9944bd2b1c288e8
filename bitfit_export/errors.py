"""Every error that a user can meet, as one tree.

    BitfitError
    ├── UsageError              an option or an argument that cannot be used
    ├── MissingExtraError       a part of the package that is not installed
    ├── InputError              text, ids or arrays that a task can't take
    ├── DataError               training or evaluation data
    ├── BaseModelError          a base model that cannot be loaded or used
    │   └── BaseMismatchError   a file that was made for another base model
    ├── DeltaError              a task delta
    ├── HubError                what the Hugging Face Hub refuses, lacks, or cannot be reached for
    ├── CompileError            a graph that cannot be lifted
    ├── BundleError             a bundle or its manifest
    │   ├── RowError            a bias row; `fault` says which way it is wrong
    │   └── SignatureError      a file that no trusted key has signed; `fault` says why
    ├── OutputError             an output that cannot be written, or is there already
    │   └── BusyError           a folder in which another process is at work
    └── VerificationError       a bundle whose answers differ from PyTorch's

A message is one sentence that says what was found and what was expected. The hint, where there is one, is
what to do about it. The command line prints both and exits with `exit_code`.

Names, paths and other text in a message come from files and callers. An error escapes control characters in all of its
text and bounds its length, whatever it is given. `shown` and `quoted` also shorten each name, so that a long one leaves
room for the rest of the sentence.
"""

from __future__ import annotations

import reprlib
from enum import Enum
from typing import Any

__all__ = [
    "BaseMismatchError",
    "BaseModelError",
    "BitfitError",
    "BundleError",
    "BusyError",
    "CompileError",
    "DataError",
    "DeltaError",
    "HubError",
    "InputError",
    "MissingExtraError",
    "OutputError",
    "RowError",
    "RowFault",
    "SignatureError",
    "SignatureFault",
    "UsageError",
    "VerificationError",
    "first_line",
    "one_line",
    "quoted",
    "shown",
]

#: Characters of a name in a message.
_LONGEST_NAME = 100
#: Characters of a message, and of a hint.
_LONGEST_MESSAGE = 2000
#: Of another library's error message: some put a whole graph into it.
_LONGEST_LINE = 200


class BitfitError(Exception):
    """Base of the tree. `str()` gives the message and, on a second line, the hint."""

    exit_code = 2

    def __init__(self, message: str, *, hint: str | None = None) -> None:
        self.message = shown(message, _LONGEST_MESSAGE)
        self.hint = None if hint is None else shown(hint, _LONGEST_MESSAGE)
        super().__init__(self.message)

    def __str__(self) -> str:
        return self.message if self.hint is None else f"{self.message}\nhint: {self.hint}"

    def __reduce__(self) -> tuple[Any, ...]:
        # Exceptions are unpickled by calling their class with `args`, but some here take other arguments. A pool of
        # processes waits forever for an error that cannot be unpickled.
        return _unpickled, (type(self), self.args, self.__dict__)


class UsageError(BitfitError):
    """An option or an argument that cannot be used."""


class MissingExtraError(BitfitError):
    """A command needs packages that this installation lacks."""

    def __init__(self, package: str, extra: str) -> None:
        super().__init__(
            f"this command needs the package {package}, which is not installed",
            hint=f"pip install 'bitfit-export[{extra}]'",
        )


class InputError(BitfitError):
    """Text, ids or arrays that a task can't take.

    Attributes:
        item: the item of the batch that is wrong, from 0, where it is one; the message then begins with it.
        problem: the message without the item, for a caller that knows the item by another name.
    """

    def __init__(self, problem: str, *, item: int | None = None, hint: str | None = None) -> None:
        super().__init__(problem if item is None else f"item {item} {problem}", hint=hint)
        self.problem = problem
        self.item = item


class DataError(BitfitError):
    """Training or evaluation data that cannot be used."""


class BaseModelError(BitfitError):
    """A base model that cannot be loaded or used."""


class BaseMismatchError(BaseModelError):
    """A file that was made for another base model."""


class DeltaError(BitfitError):
    """A task delta that cannot be read or used."""


class HubError(BitfitError):
    """The Hugging Face Hub refuses a request, lacks what was asked for, or cannot be reached."""


class CompileError(BitfitError):
    """A graph whose biases cannot be lifted."""


class BundleError(BitfitError):
    """A bundle or a manifest that cannot be read or used."""


class RowFault(Enum):
    """The ways in which a row file can be wrong, in the order in which a reader looks for them."""

    # begin: faults, by spec/generate.py
    TRUNCATED_HEADER = "truncated header"
    BAD_MAGIC = "wrong magic"
    BAD_VERSION = "unknown format version"
    BAD_HEADER_SIZE = "wrong header size"
    BAD_HEADER_CHECKSUM = "header checksum differs"
    UNKNOWN_FLAG = "unknown flag"
    BAD_DTYPE = "unknown dtype"
    BAD_PROBLEM_TYPE = "unknown problem type"
    BAD_TASK_NAME = "malformed task name"
    BAD_HEAD = "malformed head tensor table"
    BAD_LABEL_COUNT = "label count disagrees with problem type or head"
    TRUNCATED = "truncated payload"
    TRAILING_BYTES = "trailing bytes"
    BAD_PAYLOAD_CHECKSUM = "payload checksum differs"
    NOT_FINITE = "NaN or infinity in the payload"
    WRONG_LAYOUT = "made for another base model or layout"
    # end: faults, by spec/generate.py


class RowError(BundleError):
    """A bias row that cannot be used; nothing of it has been."""

    def __init__(self, fault: RowFault, detail: str, *, hint: str | None = None) -> None:
        super().__init__(f"{fault.value}: {detail}", hint=hint)
        self.fault = fault


class SignatureFault(Enum):
    """The ways in which a signature can fail."""

    MISSING = "no signature"
    MALFORMED = "malformed signature"
    UNTRUSTED = "signed by another key"
    WRONG = "wrong signature"


class SignatureError(BundleError):
    """A file that no trusted key has signed; nothing of it has been used."""

    def __init__(self, fault: SignatureFault, detail: str, *, hint: str | None = None) -> None:
        super().__init__(f"{fault.value}: {detail}", hint=hint)
        self.fault = fault


class OutputError(BitfitError):
    """An output that cannot be written, or is there already."""


class BusyError(OutputError):
    """A folder in which another process is at work."""


class VerificationError(BitfitError):
    """A bundle whose answers differ from PyTorch's."""

    exit_code = 1


def _unpickled(kind: type[BitfitError], args: tuple[Any, ...], attributes: dict[str, Any]) -> BitfitError:
    error = kind.__new__(kind, *args)
    error.__dict__.update(attributes)
    return error


def first_line(error: BaseException) -> str:
    """Returns what an error of another library says, in one line."""
    return shown((str(error).strip() or type(error).__name__).split("\n")[0], _LONGEST_LINE)


def one_line(text: str) -> str:
    """Returns outside text as a terminal may have it: control characters and line breaks are escaped.

    A name with an escape sequence could otherwise move the cursor, and one with a line break forge a line.
    """
    return text if text.isprintable() else "".join(map(_escaped, text))


def shown(text: str, longest: int = _LONGEST_NAME) -> str:
    """Returns outside text for a message: as `one_line`, and of more than `longest` characters both ends alone."""
    # Escaping makes it longer, so the ends are cut twice; first, for a text may have a million characters.
    kept = text if len(text) <= longest else f"{text[:longest]}{text[-longest:]}"
    kept = one_line(kept)
    if len(kept) <= longest:
        return kept
    end = (longest - 3) // 2
    return f"{kept[: longest - 3 - end]}...{kept[-end:]}"


def quoted(value: object) -> str:
    """Returns `repr(value)` for a message, with the middle left out where it is long."""
    return _REPR.repr(value)


def _escaped(character: str) -> str:
    return character if character.isprintable() else character.encode("unicode_escape").decode("ascii")


_REPR = reprlib.Repr()
_REPR.maxstring = _REPR.maxother = _REPR.maxlong = _LONGEST_NAME
