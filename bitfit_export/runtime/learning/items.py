"""Examples as items of a batch: tokens, targets, and logits back to scores. One class for each kind of task.

What a token or span task learns and answers is laid out as `BiasSession.predict` has it: a word is read at its first
token, and a context that is too long is read in windows that overlap.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, Protocol, TypeAlias, cast

import numpy as np
from numpy.typing import NDArray

from bitfit_export.bundle.interface import LOGITS, TOKEN_LOGITS
from bitfit_export.errors import DataError, InputError
from bitfit_export.runtime.learning.examples import LabelledTexts, class_weights
from bitfit_export.runtime.learning.scores import score, score_answers, score_words
from bitfit_export.runtime.predict.postprocess import best_answers, find_answers
from bitfit_export.runtime.text.alignment import AlignedTokens
from bitfit_export.runtime.text.tokenizer import Text, TextEncoder, TokenIds

__all__ = ["LearningItems", "items_of"]

Float32Array: TypeAlias = NDArray[np.float32]
#: The longest answer, as `BiasSession.predict` has it by default.
_MAX_ANSWER_TOKENS = 30


class LearningItems(Protocol):
    """Tokenised examples.

    Attributes:
        output: the graph's output that the logits are in.
        tokens: of each item; of a span task an item is a window of a context.
        weights: the factor of each item's loss, float32 [items].
        shares: what each item adds to the number that a batch's loss is divided by, float32 [items].
    """

    output: str
    tokens: list[TokenIds]
    weights: Float32Array
    shares: Float32Array

    def targets(self, places: Sequence[int]) -> Float32Array:
        """Returns what `train_step` takes of the items at these places.

        Float32 [items, labels] of a sentence task, [items, longest of them, labels] of a token or span task.
        """

    def score(self, logits: Sequence[Float32Array]) -> dict[str, float]:
        """Returns the scores of all examples by their names, those of `metric_names`.

        Args:
            logits: of each item, [labels] or [tokens and padding, labels].
        """


def items_of(
    examples: LabelledTexts,
    what: str,
    problem_type: str,
    labels: Sequence[str],
    encoder: TextEncoder,
    *,
    max_length: int,
    balance: bool = False,
) -> LearningItems:
    """Tokenise examples as their problem type needs it.

    Args:
        what: the examples' name, for messages.
        max_length: tokens at which a text is cut; those of a window of a context.
        balance: weigh the examples of a `single_label` task by the inverse frequency of their class.

    Raises:
        DataError: a text that the tokenizer cannot take, one without a token, or a question that leaves its context no
            room.
    """
    try:
        if problem_type == "token":
            return _Words(examples, labels, encoder, max_length)
        if problem_type == "span":
            return _Questions(examples, encoder, max_length)
        return _Sentences(examples, problem_type, len(labels), encoder, max_length, balance)
    except InputError as error:
        where = "" if error.item is None else f"example {error.item + 1} "
        raise DataError(f"{what}: {where}{error.problem}", hint=error.hint) from error


class _Sentences:
    """Texts or pairs with one label, some labels or a number."""

    output = LOGITS

    def __init__(
        self,
        examples: LabelledTexts,
        problem_type: str,
        labels: int,
        encoder: TextEncoder,
        max_length: int,
        balance: bool,
    ) -> None:
        texts = cast("list[Text]", [each[0] if len(each) == 1 else (each[0], each[1]) for each in examples.texts])
        self.tokens = encoder.tokenize(texts, truncate=True, max_length=max_length)
        _check_tokens(self.tokens)
        self._problem_type, self._labels = problem_type, examples.labels
        self._targets = _sentence_targets(problem_type, examples.labels, max(1, labels))
        self.weights: Float32Array = np.ones(len(texts), np.float32)
        if balance and problem_type == "single_label":
            self.weights = class_weights(examples.labels, labels)[np.asarray(examples.labels, np.int64)]
        self.shares = self.weights

    def targets(self, places: Sequence[int]) -> Float32Array:
        return self._targets[list(places)]

    def score(self, logits: Sequence[Float32Array]) -> dict[str, float]:
        return score(self._problem_type, np.stack(logits), self._labels)


class _Words:
    """Texts as lists of words with a label each. A word that is cut off has no prediction, which is an error."""

    output = TOKEN_LOGITS

    def __init__(self, examples: LabelledTexts, labels: Sequence[str], encoder: TextEncoder, max_length: int) -> None:
        aligned = encoder.align([list(words) for words in examples.texts], truncate=True, max_length=max_length)
        _check_tokens(aligned)
        self.tokens = [TokenIds(each.ids, each.type_ids) for each in aligned]
        self._first_tokens = [_first_tokens(each) for each in aligned]
        self._names, self._labels = labels, examples.labels
        self.weights: Float32Array = np.ones(len(aligned), np.float32)
        self.shares = np.array([len(each) for each in self._first_tokens], np.float32)

    def targets(self, places: Sequence[int]) -> Float32Array:
        longest = max(len(self.tokens[place].ids) for place in places)
        targets = np.zeros((len(places), longest, len(self._names)), np.float32)
        for item, place in enumerate(places):
            for word, position in self._first_tokens[place].items():
                targets[item, position, self._labels[place][word]] = 1
        return targets

    def score(self, logits: Sequence[Float32Array]) -> dict[str, float]:
        predictions = [
            [self._names[values[first[word]].argmax()] if word in first else None for word in range(len(labels))]
            for values, first, labels in zip(logits, self._first_tokens, self._labels, strict=True)
        ]
        references = [[self._names[label] for label in labels] for labels in self._labels]
        return score_words(self._names, predictions, references)


class _Questions:
    """Windows of contexts. One that lacks the answer has the first token of all, [CLS], as its answer."""

    output = TOKEN_LOGITS

    def __init__(self, examples: LabelledTexts, encoder: TextEncoder, max_length: int) -> None:
        self._contexts = [texts[1] for texts in examples.texts]
        self._references = [[text for _, text in answers] for answers in examples.labels]
        pairs = [(question, context) for question, context in examples.texts]
        # The windows of bitfit-train share a third of their tokens, too.
        windows = encoder.windows(pairs, max_length=max_length, overlap=max_length // 3)
        self._windows = [(number, window) for number, each in enumerate(windows) for window in each]
        self.tokens = [TokenIds(window.ids, window.type_ids) for _, window in self._windows]
        self._answers = [_answer_tokens(window, *examples.labels[number][0]) for number, window in self._windows]
        self.weights: Float32Array = np.ones(len(self._windows), np.float32)
        self.shares = self.weights

    def targets(self, places: Sequence[int]) -> Float32Array:
        longest = max(len(self.tokens[place].ids) for place in places)
        targets = np.zeros((len(places), longest, 2), np.float32)
        for item, place in enumerate(places):
            first, last = self._answers[place]
            targets[item, first, 0] = targets[item, last, 1] = 1
        return targets

    def score(self, logits: Sequence[Float32Array]) -> dict[str, float]:
        found: list[list[Any]] = [[] for _ in self._contexts]
        for (number, window), values in zip(self._windows, logits, strict=True):
            found[number] += find_answers(
                values[: len(window.ids)], window, self._contexts[number], max_tokens=_MAX_ANSWER_TOKENS, count=1
            )
        answers = [best_answers(each)[0]["answer"] if each else "" for each in found]
        return score_answers(answers, self._references)


def _check_tokens(items: Sequence[TokenIds | AlignedTokens]) -> None:
    for place, each in enumerate(items):
        if not each.ids:
            raise InputError(
                "has no token, expected at least one", item=place, hint="leave examples without a text out"
            )


def _sentence_targets(problem_type: str, labels: Sequence[Any], count: int) -> Float32Array:
    targets = np.zeros((len(labels), count), np.float32)
    if problem_type == "single_label":
        targets[np.arange(len(labels)), np.asarray(labels, np.int64)] = 1
    elif problem_type == "multi_label":
        targets[:] = np.asarray(labels, np.float32)
    else:
        targets[:, 0] = labels
    return targets


def _first_tokens(tokens: AlignedTokens) -> dict[int, int]:
    """The first token of each word that has one."""
    found: dict[int, int] = {}
    for position, word in enumerate(tokens.words):
        if word is not None:
            found.setdefault(word, position)
    return found


def _answer_tokens(window: AlignedTokens, start: int, text: str) -> tuple[int, int]:
    """The first and the last token of an answer, or twice the first of all where the window lacks a part of it.

    The answer begins and ends with whole words, as those that a session finds.

    Args:
        start: its first character in the context.
    """
    tokens = window.positions(1)
    inside = [each for each in tokens if window.spans[each][1] > start and window.spans[each][0] < start + len(text)]
    covers = inside and window.spans[tokens[0]][0] <= start and window.spans[tokens[-1]][1] >= start + len(text)
    return (inside[0], inside[-1]) if covers else (0, 0)
