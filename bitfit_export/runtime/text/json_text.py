"""The text that a JSON object holds, as `docs/files.md` specifies it for JSON lines."""

from __future__ import annotations

from typing import Any

from bitfit_export.errors import InputError, quoted, shown
from bitfit_export.runtime.text.tokenizer import Text

__all__ = ["text_of"]

#: Column names for the first and the second text, in the order in which they are looked for.
_FIRST = ("text", "sentence", "sentence1")
_SECOND = ("text_pair", "sentence2")
_EXPECTED = "expected text (and text_pair), tokens, or question and context"


def text_of(value: dict[str, Any], where: str) -> Text:
    """The text, the pair of texts or the words of an object.

    Raises:
        InputError: it has none.
    """
    if "tokens" in value:
        words = value["tokens"]
        if not isinstance(words, list) or not words or not all(isinstance(word, str) for word in words):
            raise InputError(f"{where} has tokens {quoted(words)}, expected a list of words")
        return words
    if "question" in value and "context" in value:
        first, second = value["question"], value["context"]
        if not isinstance(second, str):
            raise _no_text(value, where)
    else:
        first = next((value[name] for name in _FIRST if name in value), None)
        second = next((value[name] for name in _SECOND if name in value), None)
    if not isinstance(first, str) or not isinstance(second, str | None):
        raise _no_text(value, where)
    return first if second is None else (first, second)


def _no_text(value: dict[str, Any], where: str) -> InputError:
    return InputError(
        f"{where} has {shown(', '.join(sorted(value)) or 'nothing')}, {_EXPECTED}, as strings",
        hint="sentence, or sentence1 and sentence2, will do as well",
    )
