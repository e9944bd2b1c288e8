"""Text to token ids, exactly as transformers' tokenizer gives them, without transformers."""

from __future__ import annotations

import json
from collections.abc import Sequence
from typing import Any, NamedTuple, TypeAlias, cast

import numpy as np
from numpy.typing import NDArray
from tokenizers import Tokenizer

from bitfit_export.bundle import TOKENIZER_FILE
from bitfit_export.bundle.lazy import lazy_property
from bitfit_export.errors import BundleError, InputError, UsageError, first_line
from bitfit_export.runtime.text.alignment import AlignedTokens, align_tokens, context_windows
from bitfit_export.runtime.text.tokenizer_file import check_tokenizer

__all__ = ["TOKENIZER_FILE", "Text", "TextEncoder", "TokenIds", "as_texts", "read_tokenizer"]

#: A text; a pair of texts such as premise and hypothesis; or a text as the list of its words.
Text: TypeAlias = str | tuple[str, str] | list[str]
IntArray: TypeAlias = NDArray[np.int64]

# The library's PanicException is a BaseException, and has no name to catch it by.
_NOT_OF_THE_LIBRARY = (KeyboardInterrupt, SystemExit, GeneratorExit, MemoryError)
#: The overlap of windows, by default.
_OVERLAP = 128


class TokenIds(NamedTuple):
    """One text's tokens, not padded."""

    ids: list[int]
    type_ids: list[int]


class TextEncoder:
    """The bundle's tokenizer. Any number of threads may use one encoder.

    The truncation of a `Tokenizer` is part of its state, so it is not used: a text that is too long is cut after it
    was tokenised. That also saves the library's list of everything that was cut off, which for a pair of two long
    texts holds every piece of one with every piece of the other.

    Args:
        data: the bytes of `tokenizer.json`. A truncation or padding that is baked into that file is cleared.
        max_positions: the longest sequence that the model takes, in tokens.
        pad_token_id: what `input_ids` are padded with.
        where: names the file in messages.

    Raises:
        BundleError: the tokenizer cannot be used.
    """

    def __init__(self, data: bytes, *, max_positions: int, pad_token_id: int, where: str = TOKENIZER_FILE) -> None:
        self._tokenizer = read_tokenizer(data, where)
        self._max_positions = max_positions
        self._pad_token_id = pad_token_id

    def encode(
        self, texts: Text | Sequence[Text], *, max_length: int | None = None, truncate: bool = False
    ) -> dict[str, IntArray]:
        """`tokenize`, then `pad`: what a transformers tokenizer gives with `padding=True`.

        Returns:
            `input_ids`, `attention_mask` and `token_type_ids`, int64 [batch, sequence].

        Raises:
            InputError, UsageError: as `tokenize`.
        """
        return self.pad(self.tokenize(texts, max_length=max_length, truncate=truncate))

    def tokenize(
        self, texts: Text | Sequence[Text], *, max_length: int | None = None, truncate: bool = False
    ) -> list[TokenIds]:
        """The tokens of each text, with the model's special tokens.

        Args:
            texts: a string or a tuple of two is one text; a list holds several, each a string, a tuple of two, or a
                list of words.
            max_length: the most tokens that a text may have, special tokens included; by default `max_positions`.
            truncate: cut a longer text at its end, the longer one of a pair first, instead of refusing it.

        Raises:
            InputError: no text, one that is none of these, or one that is too long.
            UsageError: a `max_length` that the model or the special tokens don't allow.
        """
        items = as_texts(texts)
        found = self._encode(items, offsets=False)
        kept = _keep(found, self._check_limit(max_length), truncate=truncate)
        return [
            TokenIds(encoding.ids, encoding.type_ids)
            if len(positions) == len(encoding)
            else TokenIds([encoding.ids[each] for each in positions], [encoding.type_ids[each] for each in positions])
            for encoding, positions in zip(found, kept, strict=True)
        ]

    def align(
        self, texts: Sequence[Text], *, max_length: int | None = None, truncate: bool = False
    ) -> list[AlignedTokens]:
        """As `tokenize`, with the word of each token."""
        items = as_texts(texts)
        found = self._encode(items, offsets=True)
        kept = _keep(found, self._check_limit(max_length), truncate=truncate)
        return [
            align_tokens(encoding, item).take(positions)
            for item, encoding, positions in zip(items, found, kept, strict=True)
        ]

    def windows(
        self, pairs: Sequence[tuple[str, str]], *, max_length: int | None = None, overlap: int = _OVERLAP
    ) -> list[list[AlignedTokens]]:
        """The tokens of each question and context; a context that is too long becomes several windows that overlap.

        Args:
            overlap: tokens that two windows of one context share, where there is room for as many new ones.

        Raises:
            InputError: a question that leaves a context no room, or a context without a word.
            UsageError: as `tokenize`.
        """
        limit = self._check_limit(max_length)
        found = self._encode(list(pairs), offsets=True)
        for item, encoding in enumerate(found):
            question = len(encoding) - encoding.sequence_ids.count(1)
            if question >= limit:
                raise InputError(
                    f"has a question of {question} tokens with the special ones, expected fewer than {limit}",
                    item=item,
                    hint="shorten the question",
                )
        aligned = [align_tokens(encoding, pair) for pair, encoding in zip(pairs, found, strict=True)]
        windows = [[each.take(kept) for kept in context_windows(each.sides, limit, overlap)] for each in aligned]
        for item, each in enumerate(windows):
            if not any(window.positions(1) for window in each):
                raise InputError("has a context without a word, expected at least one", item=item)
        return windows

    def pad(self, items: Sequence[TokenIds | AlignedTokens]) -> dict[str, IntArray]:
        """Items as int64 arrays [batch, sequence], padded on the right to the longest."""
        shape = (len(items), max(len(item.ids) for item in items))
        input_ids = np.full(shape, self._pad_token_id, np.int64)
        attention_mask = np.zeros(shape, np.int64)
        token_type_ids = np.zeros(shape, np.int64)
        for index, item in enumerate(items):
            length = len(item.ids)
            input_ids[index, :length] = item.ids
            attention_mask[index, :length] = 1
            token_type_ids[index, :length] = item.type_ids
        return {"input_ids": input_ids, "attention_mask": attention_mask, "token_type_ids": token_type_ids}

    def _check_limit(self, max_length: int | None) -> int:
        if max_length is None:
            return self._max_positions
        if type(max_length) is not int or not 1 <= max_length <= self._max_positions:
            raise UsageError(f"max_length is {max_length!r}, expected 1 to {self._max_positions} tokens")
        return max_length

    def _encode(self, texts: Sequence[Text], *, offsets: bool) -> list[Any]:
        """An `Encoding` of each text. Without offsets it is faster; the ids are the same."""
        encodings: dict[int, Any] = {}
        try:
            for words in (False, True):
                items = [item for item, text in enumerate(texts) if isinstance(text, list) == words]
                if items:
                    tokenizer = self._word_tokenizer if words else self._tokenizer
                    encode = tokenizer.encode_batch if offsets else tokenizer.encode_batch_fast
                    encodings |= zip(items, encode([texts[item] for item in items], is_pretokenized=words), strict=True)
        except _NOT_OF_THE_LIBRARY:
            raise
        except BaseException as error:
            raise _encoding_error(texts, error) from error
        return [encodings[item] for item in range(len(texts))]

    @lazy_property
    def _word_tokenizer(self) -> Any:
        """For lists of words. A byte-level tokenizer must then see a space before each word, as it does in a text."""
        spec = json.loads(self._tokenizer.to_str())
        first = spec["pre_tokenizer"] or {}
        for part in first.get("pretokenizers", [first]):
            if part.get("type") == "ByteLevel":
                part["add_prefix_space"] = True
        return Tokenizer.from_str(json.dumps(spec))


def _keep(encodings: Sequence[Any], limit: int, *, truncate: bool) -> list[Sequence[int]]:
    """The positions of each encoding that stay; all of them where it is not too long."""
    long = [item for item, encoding in enumerate(encodings) if len(encoding) > limit]
    if long and not truncate:
        raise _too_long(long, len(encodings[long[0]]), limit)
    return [_cut(encoding, limit) if len(encoding) > limit else range(len(encoding)) for encoding in encodings]


def _cut(encoding: Any, limit: int) -> list[int]:
    """The first tokens of each side, and all special tokens, `limit` in all: truncation="longest_first" on the right.

    Special tokens stand where they would stand around the shorter text: which ones there are does not depend on it.
    """
    sides = encoding.sequence_ids  # 0 or 1; None for a special token
    special = sides.count(None)
    if limit < special:
        raise UsageError(f"max_length is {limit}, expected at least {special}, the number of special tokens")
    left = _longest_first(sides.count(0), sides.count(1), limit - special)
    kept = []
    for position, side in enumerate(sides):
        if side is None:
            kept.append(position)
        elif left[side]:
            left[side] -= 1
            kept.append(position)
    return kept


def _longest_first(first: int, second: int, room: int) -> list[int]:
    """How many tokens of each side stay when they have more than `room` together, as the tokenizers library counts.

    A side that takes at most half of the room stays whole; else each gets half, and the longer one, or of two equal
    ones the second, the odd token.
    """
    shorter = min(first, second, room // 2)
    return [shorter, room - shorter] if first <= second else [room - shorter, shorter]


def as_texts(texts: Text | Sequence[Text]) -> list[Text]:
    """Texts as a list: a string or a tuple is one text, a list or another sequence holds several.

    Raises:
        InputError: no text, or one that is neither a string, nor a tuple of two strings, nor a list of words.
    """
    if isinstance(texts, (str, tuple)):
        items: list[object] = [texts]
    elif isinstance(texts, Sequence) and not isinstance(texts, (bytes, bytearray)):
        items = list(texts)
    else:
        raise InputError(
            f"the texts are {type(texts).__name__}, expected a list of strings, pairs of strings or lists of words"
        )
    if not items:
        raise InputError("there is no text, expected at least one")
    for place, item in enumerate(items):
        if not isinstance(item, str) and not _is_pair(item) and not _is_words(item):
            raise InputError(
                f"is {_describe(item)}, expected a string, a tuple of two strings or a list of words", item=place
            )
    return cast("list[Text]", items)


def _is_pair(item: object) -> bool:
    return isinstance(item, tuple) and len(item) == 2 and all(isinstance(each, str) for each in item)


def _is_words(item: object) -> bool:
    return isinstance(item, list) and bool(item) and all(isinstance(each, str) for each in item)


def _describe(item: object) -> str:
    if isinstance(item, (tuple, list)):
        return f"a {type(item).__name__} of ({', '.join(type(each).__name__ for each in item)})"
    return f"{type(item).__name__}"


def read_tokenizer(data: bytes, where: str) -> Any:
    """A `Tokenizer` that neither truncates nor pads.

    Args:
        data: the bytes of a `tokenizer.json`.
        where: names the file in messages.

    Raises:
        BundleError: the file cannot be used.
    """
    text = check_tokenizer(data, where)
    try:
        tokenizer = Tokenizer.from_str(text)
        _check_added_tokens(tokenizer)
    except _NOT_OF_THE_LIBRARY:
        raise
    except BaseException as error:
        raise BundleError(
            f"the tokenizer {where} cannot be read: {first_line(error)}",
            hint="copy the bundle again, or export it again",
        ) from error
    tokenizer.no_truncation()
    tokenizer.no_padding()
    processor = tokenizer.post_processor
    if hasattr(processor, "trim_offsets"):
        # Byte-level words are trimmed here. The library's own trimming takes the first character of a word after a
        # special token, where it has put a space before that word itself.
        processor.trim_offsets = False
        tokenizer.post_processor = processor
    return tokenizer


def _check_added_tokens(tokenizer: Any) -> None:
    """The library would look for an added token of which its own normalizer leaves nothing, and panic."""
    for token in tokenizer.get_added_tokens_decoder().values():
        if token.normalized and tokenizer.normalizer and not tokenizer.normalizer.normalize_str(token.content):
            raise ValueError(f"nothing is left of the added token {token.content!r} when it is normalised")


def _too_long(long: Sequence[int], found: int, limit: int) -> InputError:
    others = f" ({len(long)} items are too long)" if len(long) > 1 else ""
    return InputError(
        f"has {found} tokens, expected at most {limit}{others}",
        item=long[0],
        hint="shorten the text, or pass --truncate (truncate=True) to cut it",
    )


def _encoding_error(texts: Sequence[Text], error: BaseException) -> InputError:
    """Say which text the library could not take; half a surrogate pair is the only kind known."""
    for item, text in enumerate(texts):
        try:
            "".join(text).encode("utf-8")
        except UnicodeEncodeError:
            return InputError("has half a surrogate pair, expected a string that UTF-8 can write", item=item)
    return InputError(f"the texts cannot be tokenised: {first_line(error)}")
