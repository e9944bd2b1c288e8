"""The origin of tokens: the word of each, and the characters of that word. Token and span tasks answer with these."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import Any, NamedTuple

__all__ = ["AlignedTokens", "align_tokens", "context_windows"]


class AlignedTokens(NamedTuple):
    """The tokens of a text or of a window of one, not padded; the lists are equally long.

    Attributes:
        sides: 0 for the text, 1 for the second one of a pair, None for a special token.
        words: the number of the token's word in its side, None for a special token.
        spans: the characters of that word in its side, from start to before end, without spaces around it; an empty
            span for a special token, and for a word that is nothing but a space. A list of words counts as the words
            with a space between each two.
    """

    ids: list[int]
    type_ids: list[int]
    sides: list[int | None]
    words: list[int | None]
    spans: list[tuple[int, int]]

    def positions(self, side: int) -> list[int]:
        """The positions of the side's tokens that stand for characters of it."""
        ends = zip(self.sides, self.spans, strict=True)
        return [position for position, (each, (start, end)) in enumerate(ends) if each == side and start < end]

    def take(self, kept: Sequence[int]) -> AlignedTokens:
        """The tokens at these positions."""
        return AlignedTokens(
            ids=[self.ids[position] for position in kept],
            type_ids=[self.type_ids[position] for position in kept],
            sides=[self.sides[position] for position in kept],
            words=[self.words[position] for position in kept],
            spans=[self.spans[position] for position in kept],
        )


def align_tokens(encoding: Any, text: str | tuple[str, str] | list[str]) -> AlignedTokens:
    """The tokens of an encoding of the tokenizers library.

    Args:
        text: what was encoded.
    """
    sides, words = encoding.sequence_ids, encoding.word_ids
    spans = _given_spans(text) if isinstance(text, list) else _found_spans(encoding, text)
    return AlignedTokens(
        ids=encoding.ids,
        type_ids=encoding.type_ids,
        sides=sides,
        words=words,
        spans=[spans.get(word, (0, 0)) for word in zip(sides, words, strict=True)],
    )


def context_windows(sides: Sequence[int | None], limit: int, overlap: int) -> Iterator[list[int]]:
    """Positions of at most `limit` tokens each: all but the second text's, and a stretch of those.

    Args:
        sides: of the whole pair.
        limit: more than the tokens that are not the second text's.
        overlap: how many tokens two neighbours share, at most half of the room that the second text has.
    """
    # The tokens of a text stand together.
    first = sides.index(1) if 1 in sides else len(sides)
    last = first + sides.count(1)
    before, after = range(first), range(last, len(sides))
    room = limit - len(before) - len(after)
    step = room - min(overlap, room // 2)
    while True:
        yield [*before, *range(first, min(first + room, last)), *after]
        if first + room >= last:
            return
        first += step


def _found_spans(encoding: Any, text: str | tuple[str, str]) -> dict[tuple[int | None, int | None], tuple[int, int]]:
    """The characters of each word, by its side and number: from its first token's to its last one's."""
    sides = (text,) if isinstance(text, str) else text
    spans: dict[tuple[int | None, int | None], tuple[int, int]] = {}
    for side, word, (start, end) in zip(encoding.sequence_ids, encoding.word_ids, encoding.offsets, strict=True):
        if word is not None:
            spans[side, word] = (spans.get((side, word), (start, end))[0], end)
    return {key: _trim(sides[key[0] or 0], *span) for key, span in spans.items()}


def _trim(text: str, start: int, end: int) -> tuple[int, int]:
    """SentencePiece's tokenizers count the space before a word as a part of it."""
    while start < end and text[start].isspace():
        start += 1
    while start < end and text[end - 1].isspace():
        end -= 1
    return start, end


def _given_spans(words: Sequence[str]) -> dict[tuple[int | None, int | None], tuple[int, int]]:
    spans: dict[tuple[int | None, int | None], tuple[int, int]] = {}
    start = 0
    for number, word in enumerate(words):
        spans[0, number] = (start, start + len(word))
        start += len(word) + 1
    return spans
