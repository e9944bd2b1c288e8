"""Checks of `tokenizer.json` before the tokenizers library reads it.

The library trusts the file: some make it panic, which no `except Exception` catches, some end the process, others grow
without end. So the components are known ones, and what the library takes for granted about them is compared: ids,
regular expressions, templates, character maps, and how much longer a text can become.
"""

from __future__ import annotations

import base64
import binascii
import json
import math
import re
from collections.abc import Callable, Iterable, Mapping
from typing import Any, NoReturn, TypeAlias

import numpy as np

from bitfit_export.bundle.json_dialect import unique_pairs
from bitfit_export.errors import BundleError, quoted, shown

__all__ = ["check_tokenizer"]

_Part: TypeAlias = Mapping[str, Any]
_Check: TypeAlias = Callable[[_Part, str], None]

_INT32_MAX = 2**31 - 1
#: Normalizers and pre-tokenizers; real tokenizers have up to ten.
_MOST_STEPS = 32
#: Characters that one character may become.
_MOST_GROWTH = 64
#: Characters of a text that a component inserts.
_LONGEST_INSERT = 64
#: Characters of a regular expression, and the product of the counts in it, to which its compiled form grows.
_LONGEST_REGEX = 4096
_MOST_REPEATS = 1000
#: Places of a template, and ids at each.
_MOST_PLACES = 32
_COUNT = re.compile(r"\{(\d*)(?:,(\d*))?\}")


class _MalformedError(Exception):
    """Says what is wrong."""


def check_tokenizer(data: bytes, where: str) -> str:
    """Returns the text of a tokenizer.json that is safe to load.

    Args:
        where: names the file in messages.

    Raises:
        BundleError: it is not JSON, has a component that is not known, or one whose parts do not fit each other.
    """
    try:
        text = data.decode("utf-8")
        # Not `parse_json`: half a second for a large vocabulary. The library refuses the rest that it would refuse.
        file = json.loads(text, object_pairs_hook=unique_pairs)
    except (ValueError, RecursionError) as error:
        raise BundleError(
            f"{where} is not valid JSON: {shown(str(error), 200)}", hint="copy the bundle again, or export it again"
        ) from error
    try:
        _check_file(_object(file, "the file"))
    except _MalformedError as error:
        raise BundleError(
            f"the tokenizer {where} cannot be used: {error}",
            hint="export the bundle again with a tokenizer that the transformers library loads",
        ) from error
    return text


def _check_file(file: _Part) -> None:
    _check_model(_object(file.get("model"), "model"))
    for index, token in enumerate(_list(file.get("added_tokens", []), "added_tokens")):
        what = f"added_tokens[{index}]"
        entry = _object(token, what)
        _check_id(entry.get("id"), f"{what}: id")
        if not _text(entry.get("content"), f"{what}: content"):
            _refuse(f"{what}: content", "", "a token")
    steps = [
        *_walk(file.get("normalizer"), "normalizer", "normalizers", _NORMALIZERS),
        *_walk(file.get("pre_tokenizer"), "pre_tokenizer", "pretokenizers", _PRE_TOKENIZERS),
    ]
    _check_growth(steps)
    for step in _walk(file.get("decoder"), "decoder", "decoders", _DECODERS):
        _check_pattern(step, "decoder")
    processors = _walk(file.get("post_processor"), "post_processor", "processors", _POST_PROCESSORS)
    if sum(each["type"] != "ByteLevel" for each in processors) > 1:
        raise _MalformedError("post_processor has several templates, expected one")


def _walk(part: Any, what: str, members: str, known: Mapping[str, _Check]) -> list[_Part]:
    """A component and those inside it, after each was checked; sequences are not among them."""
    pending = [] if part is None else [part]
    found: list[_Part] = []
    for _ in range(_MOST_STEPS):
        if not pending:
            return found
        component = _object(pending.pop(), what)
        kind = component.get("type")
        if kind == "Sequence":
            pending += reversed(_list(component.get(members), f"{what}: {members}")[:_MOST_STEPS])
            continue
        if not isinstance(kind, str) or kind not in known:
            _refuse(what, kind, f"one of {', '.join(sorted([*known, 'Sequence']))}")
        known[kind](component, f"{what} {kind}")
        found.append(component)
    raise _MalformedError(f"{what} has more than {_MOST_STEPS - 1} steps")


def _check_growth(steps: Iterable[_Part]) -> None:
    """Each step may make a text longer; a few dozen of them would fill any memory."""
    growth, byte_levels = 1, 0
    for step in steps:
        if step["type"] == "Replace":
            growth *= max(1, len(step["content"]))
        byte_levels += step["type"] == "ByteLevel"
    if growth > _MOST_GROWTH or byte_levels > 1:
        raise _MalformedError(
            f"its steps make a text {growth} times as long, with ByteLevel {byte_levels} times, expected at most "
            f"{_MOST_GROWTH} times, with ByteLevel once"
        )


def _check_model(model: _Part) -> None:
    kind = model.get("type")
    if kind == "Unigram":
        _check_unigram(model)
        return
    if kind not in ("BPE", "WordPiece", "WordLevel"):
        _refuse("model", kind, "BPE, Unigram, WordLevel or WordPiece")
    vocabulary = _object(model.get("vocab"), "model: vocab")
    ids = vocabulary.values()
    if not ids or set(map(type, ids)) != {int} or not 0 <= min(ids) <= max(ids) <= _INT32_MAX:
        raise _MalformedError(f"model: vocab has no ids, or one that is out of range, expected 0 to {_INT32_MAX}")
    if kind == "BPE":
        _check_merges(model)
    elif _text(model.get("unk_token"), "model: unk_token") not in vocabulary:
        _refuse("model: unk_token", model.get("unk_token"), "a token of the vocabulary")


def _check_merges(model: _Part) -> None:
    """The library cuts the prefix off the right side of each merge, whatever is there."""
    prefix = model.get("continuing_subword_prefix") or ""
    _text(prefix, "model: continuing_subword_prefix")
    if not prefix:
        return
    for index, merge in enumerate(_list(model.get("merges"), "model: merges")):
        sides = merge.split(" ") if isinstance(merge, str) else _list(merge, "model: a merge")
        if len(sides) != 2 or not _text(sides[1], "model: a merge").startswith(prefix):
            _refuse(f"model: merges[{index}]", merge, f"two tokens, the second with the prefix {quoted(prefix)}")


def _check_unigram(model: _Part) -> None:
    pieces = _list(model.get("vocab"), "model: vocab")
    if not pieces or not all(isinstance(each, list) and len(each) == 2 for each in pieces):
        raise _MalformedError("model: vocab is empty or malformed, expected pairs of a token and its score")
    if not all(type(score) in (int, float) and math.isfinite(score) for _, score in pieces):
        raise _MalformedError("model: vocab has a score that is not a finite number")
    unknown = model.get("unk_id")
    if unknown is not None and (type(unknown) is not int or not 0 <= unknown < len(pieces)):
        _refuse("model: unk_id", unknown, f"0 to {len(pieces) - 1}")


def _check_replace(part: _Part, what: str) -> None:
    _check_pattern(part, what)
    _check_insert(part, "content", what)
    if part.get("pattern") in ({"String": ""}, {"Regex": ""}):
        raise _MalformedError(f"{what}: pattern is empty")


def _check_prepend(part: _Part, what: str) -> None:
    _check_insert(part, "prepend", what)


def _check_insert(part: _Part, key: str, what: str) -> None:
    if len(_text(part.get(key), f"{what}: {key}")) > _LONGEST_INSERT:
        _refuse(f"{what}: {key}", part[key], f"at most {_LONGEST_INSERT} characters")


def _check_pattern(part: _Part, what: str) -> None:
    """A regular expression that compiles to little; the library itself stops one that searches for too long."""
    pattern = part.get("pattern")
    if not isinstance(pattern, Mapping) or "Regex" not in pattern:
        return
    regex = _text(pattern["Regex"], f"{what}: pattern")
    if len(regex) > _LONGEST_REGEX:
        raise _MalformedError(f"{what}: pattern has {len(regex)} characters, expected at most {_LONGEST_REGEX}")
    repeats = 1
    for least, most in _COUNT.findall(regex):
        # Digits are counted first: a number of thousands of them is slow to make.
        if max(len(least), len(most)) > len(str(_MOST_REPEATS)):
            repeats = _MOST_REPEATS + 1
        repeats = min(repeats, _MOST_REPEATS + 1) * max(int(least or 1), int(most or 1), 1)
    if repeats > _MOST_REPEATS:
        raise _MalformedError(
            f"{what}: pattern repeats a part too often, expected at most {_MOST_REPEATS} times in all"
        )
    if "\\g" in regex:
        raise _MalformedError(f"{what}: pattern calls a group, expected an expression without recursion")


def _check_length(part: _Part, what: str) -> None:
    length = part.get("length")
    if type(length) is not int or not 1 <= length <= _INT32_MAX:
        _refuse(f"{what}: length", length, "1 or more")


def _check_charsmap(part: _Part, what: str) -> None:
    """SentencePiece's map of characters: a double-array trie, whose units and values are indices, and texts."""
    try:
        data = base64.b64decode(_text(part.get("precompiled_charsmap"), what), validate=True)
    except (binascii.Error, ValueError) as error:
        raise _MalformedError(f"{what}: the map is not base64") from error
    size = int.from_bytes(data[:4], "little")
    texts = data[4 + size :]
    if len(data) < 4 or size % 4 or not 4 <= size <= len(data) - 4:
        raise _MalformedError(f"{what}: the map is truncated")
    try:
        texts.decode("utf-8")
    except UnicodeDecodeError as error:
        raise _MalformedError(f"{what}: the map's texts are not UTF-8") from error
    units = np.frombuffer(data[4 : 4 + size], "<u4").astype(np.int64)
    if not _trie_holds(units, texts):
        raise _MalformedError(f"{what}: the map points outside of itself")


def _trie_holds(units: np.ndarray[Any, np.dtype[np.int64]], texts: bytes) -> bool:
    """Returns whether every step through the trie stays inside, and every value is where a text begins."""
    places = np.arange(len(units))
    is_value = units >> 31 != 0
    steps = (units >> 10) << ((units & 0x200) >> 6)
    next_places = places ^ steps
    nodes = ~is_value
    nodes[0] = True  # a search starts there, whatever the unit says
    # A byte of the text changes the lowest eight bits of the place alone.
    if (next_places[nodes] | 0xFF).max(initial=0) >= len(units):
        return False
    with_value = nodes & (units & 0x100 != 0)
    leaves = next_places[with_value]
    values = units[leaves] & 0x7FFFFFFF
    if not is_value[leaves].all() or values.max(initial=0) > len(texts):
        return False
    first_bytes = np.frombuffer(texts + b"\0", np.uint8)[values]
    return not (first_bytes & 0xC0 == 0x80).any()


def _check_template(part: _Part, what: str) -> None:
    special = _object(part.get("special_tokens"), f"{what}: special_tokens")
    for name, token in special.items():
        entry = _object(token, f"{what}: special_tokens")
        ids, tokens = (_list(entry.get(key), f"{what}: {key}") for key in ("ids", "tokens"))
        if len(ids) != len(tokens) or not 1 <= len(ids) <= _MOST_PLACES:
            raise _MalformedError(f"{what}: the token {quoted(name)} has {len(ids)} ids and {len(tokens)} tokens")
        for each in ids:
            _check_id(each, f"{what}: an id")
    for key, sides in (("single", ["A"]), ("pair", ["A", "B"])):
        places = _list(part.get(key), f"{what}: {key}")
        if len(places) > _MOST_PLACES:
            raise _MalformedError(f"{what}: {key} has {len(places)} places, expected at most {_MOST_PLACES}")
        found = []
        for place in places:
            entry = _object(place, f"{what}: {key}")
            text, token = entry.get("Sequence"), entry.get("SpecialToken")
            chosen = _object(token if text is None else text, f"{what}: {key}")
            name = _text(chosen.get("id"), f"{what}: {key}")
            _check_id(chosen.get("type_id"), f"{what}: type_id")
            if text is not None:
                found.append(name)
            elif name not in special:
                _refuse(f"{what}: {key}", name, "one of special_tokens")
        if sorted(found) != sides:
            _refuse(f"{what}: {key}", found, "each text once")


def _check_ends(part: _Part, what: str) -> None:
    """`sep` and `cls` of the processors from before there were templates."""
    for key in ("sep", "cls"):
        pair = _list(part.get(key), f"{what}: {key}")
        if len(pair) != 2:
            _refuse(f"{what}: {key}", pair, "a token and its id")
        _check_id(pair[1], f"{what}: {key}")


def _check_nothing(part: _Part, what: str) -> None:
    """The library checks these itself."""


def _check_id(value: Any, what: str) -> None:
    if type(value) is not int or not 0 <= value <= _INT32_MAX:
        _refuse(what, value, f"0 to {_INT32_MAX}")


def _object(value: Any, what: str) -> _Part:
    return value if isinstance(value, dict) else _refuse(what, value, "an object")


def _list(value: Any, what: str) -> list[Any]:
    return value if isinstance(value, list) else _refuse(what, value, "a list")


def _text(value: Any, what: str) -> str:
    return value if isinstance(value, str) else _refuse(what, value, "a string")


def _refuse(what: str, found: Any, expected: str) -> NoReturn:
    raise _MalformedError(f"{what} is {quoted(found)}, expected {expected}")


_NORMALIZERS: Mapping[str, _Check] = {
    **dict.fromkeys(
        ("BertNormalizer", "ByteLevel", "Lowercase", "NFC", "NFD", "NFKC", "NFKD", "Nmt", "Strip", "StripAccents"),
        _check_nothing,
    ),
    "Precompiled": _check_charsmap,
    "Prepend": _check_prepend,
    "Replace": _check_replace,
}
_PRE_TOKENIZERS: Mapping[str, _Check] = {
    **dict.fromkeys(
        (
            "BertPreTokenizer",
            "ByteLevel",
            "CharDelimiterSplit",
            "Digits",
            "Metaspace",
            "Punctuation",
            "UnicodeScripts",
            "Whitespace",
            "WhitespaceSplit",
        ),
        _check_nothing,
    ),
    "FixedLength": _check_length,
    "Split": _check_pattern,
}
_POST_PROCESSORS: Mapping[str, _Check] = {
    "BertProcessing": _check_ends,
    "ByteLevel": _check_nothing,
    "RobertaProcessing": _check_ends,
    "TemplateProcessing": _check_template,
}
#: Nothing is decoded, but a decoder's regular expression is compiled when it is read.
_DECODERS: Mapping[str, _Check] = dict.fromkeys(
    ("BPEDecoder", "ByteFallback", "ByteLevel", "CTC", "Fuse", "Metaspace", "Replace", "Strip", "WordPiece"),
    _check_nothing,
)
