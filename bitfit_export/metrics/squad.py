"""The metrics of an answer: SQuAD's exact match and F1, with the normalisation of its official script (version 1.1)."""

from __future__ import annotations

import re
import string
from collections import Counter
from collections.abc import Callable, Sequence

__all__ = ["answer_f1", "best_over", "exact_match", "normalise"]

_ARTICLES = re.compile(r"\b(a|an|the)\b")
_PUNCTUATION = str.maketrans("", "", string.punctuation)


def normalise(text: str) -> str:
    """Lower case, without ASCII punctuation and English articles, words one space apart."""
    return " ".join(_ARTICLES.sub(" ", text.lower().translate(_PUNCTUATION)).split())


def exact_match(prediction: str, reference: str) -> float:
    return float(normalise(prediction) == normalise(reference))


def answer_f1(prediction: str, reference: str) -> float:
    """The harmonic mean of precision and recall over words, as bags."""
    found, expected = normalise(prediction).split(), normalise(reference).split()
    shared = sum((Counter(found) & Counter(expected)).values())
    return 2 * shared / (len(found) + len(expected)) if shared else 0.0


def best_over(
    score: Callable[[str, str], float], predictions: Sequence[str], references: Sequence[Sequence[str]]
) -> float:
    """The mean over the questions, each against the reference that suits the prediction best; 0 to 1."""
    best = [max(score(text, each) for each in texts) for text, texts in zip(predictions, references, strict=True)]
    return sum(best) / len(best)
