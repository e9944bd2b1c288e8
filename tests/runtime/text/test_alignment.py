"""Windows of a context: each one fits, together they cover it, and neighbours overlap. And the words in them."""

from __future__ import annotations

from itertools import pairwise

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from bitfit_export.runtime.predict.postprocess import find_answers
from bitfit_export.runtime.text.alignment import AlignedTokens, context_windows


def sides_of(question: int, context: int) -> list[int | None]:
    """[CLS] question [SEP] context [SEP]"""
    return [None, *[0] * question, None, *[1] * context, None]


@given(question=st.integers(0, 20), context=st.integers(1, 300), room=st.integers(1, 60), overlap=st.integers(0, 60))
def test_windows(question: int, context: int, room: int, overlap: int) -> None:
    sides = sides_of(question, context)
    limit = question + 3 + room
    windows = list(context_windows(sides, limit, overlap))
    others = [position for position, side in enumerate(sides) if side != 1]
    stretches = []
    for window in windows:
        assert window == sorted(window)
        assert len(window) <= limit
        assert [position for position in window if sides[position] != 1] == others
        stretches.append([position for position in window if sides[position] == 1])
        assert stretches[-1] == list(range(stretches[-1][0], stretches[-1][-1] + 1))
    assert sorted({position for stretch in stretches for position in stretch}) == [
        position for position, side in enumerate(sides) if side == 1
    ]
    shared = min(overlap, room // 2)
    for left, right in pairwise(stretches):
        assert len(left) == room
        assert len(set(left) & set(right)) == shared
        assert len(right) > shared, "a window without a new token"


def test_a_context_that_fits_is_one_window() -> None:
    assert list(context_windows(sides_of(2, 5), 10, 128)) == [list(range(10))]
    assert list(context_windows(sides_of(2, 6), 10, 2)) == [[0, 1, 2, 3, 4, 5, 6, 7, 8, 10], [0, 1, 2, 3, 7, 8, 9, 10]]


def test_an_answer_begins_and_ends_with_a_word() -> None:
    """Tokens that are nothing but a space, as SentencePiece makes them, take part in the softmax alone."""
    tokens = AlignedTokens(
        ids=[0] * 7,
        type_ids=[0] * 7,
        sides=[None, 0, None, 1, 1, 1, None],
        words=[None, 0, None, 0, 1, 2, None],
        spans=[(0, 0), (0, 3), (0, 0), (0, 3), (4, 4), (5, 9), (0, 0)],
    )
    logits = np.zeros((7, 2), np.float32)
    logits[4] = 5
    found = find_answers(logits, tokens, "Ada  here", max_tokens=3, count=9)
    assert sorted(each["answer"] for each in found) == ["Ada", "Ada  here", "here"]
    assert [each["score"] for each in found] == pytest.approx([(3 + np.exp(5)) ** -2] * 3)
    assert tokens.positions(1) == [3, 5]
