"""What a bundle and PyTorch are compared on: sample texts, and random ids with padding."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np

from bitfit_export.errors import VerificationError

if TYPE_CHECKING:
    from bitfit_export.base_model.loading import BaseModel
    from bitfit_export.runtime import BiasSession

__all__ = ["SAMPLE_TEXTS", "Batch", "fit_batches", "random_batches", "text_batches"]

#: Real text for tasks of any kind: short, long, paired, not ASCII, and empty.
SAMPLE_TEXTS: tuple[tuple[str, ...], ...] = (
    ("The soup was cold, but the waiter was kind.",),
    ("An utterly forgettable evening, and I left before the end.",),
    ("Whom did the committee say that they had interviewed?",),
    ("Zażółć gęślą jaźń — naïve café, 北京 2026 🙂",),
    ("",),
    ("A ferry leaves the harbour every hour.", "Boats depart from the port once an hour."),
    ("She repaired the old radio in her workshop.", "The radio was thrown away."),
    (
        "The museum, which had been closed for three years while its roof was being rebuilt, opened its doors again "
        "on Saturday, and by noon the queue reached the river.",
        "The museum opened again on Saturday.",
    ),
)

_RANDOM_ITEMS = 24
_BATCH = 8
_LONGEST_RANDOM = 64
#: An item as long as the model takes is compared too, but attention grows with the square of it.
_LONGEST = 1024


@dataclass(frozen=True)
class Batch:
    """Ids, mask and, where the model takes them, token types, each int64 [batch, sequence]."""

    arrays: dict[str, np.ndarray]

    @property
    def items(self) -> int:
        return len(self.arrays["input_ids"])


def text_batches(session: BiasSession, base: BaseModel) -> list[Batch]:
    """The sample texts, tokenised by transformers; the bundle's own tokenizer must give the same ids."""
    batches = []
    for width in (1, 2):
        texts = [text for text in SAMPLE_TEXTS if len(text) == width]
        columns = [list(column) for column in zip(*texts, strict=True)]
        static = session.manifest.static_shape
        limit = base.max_positions if static is None else static[1]
        expected = base.tokenizer(*columns, truncation=True, max_length=limit, padding=True, return_tensors="np")
        found = session.encode([text[0] if width == 1 else (text[0], text[1]) for text in texts], truncate=True)
        for name in base.input_names:
            if not np.array_equal(found[name], expected[name]):
                raise VerificationError(f"the bundle's tokenizer gives other {name} than transformers' on sample texts")
        # A tokenizer that adds no token of its own has none for an empty text, which no model can answer.
        some = expected["attention_mask"].any(axis=1)
        batches.append(Batch({name: np.asarray(expected[name], np.int64)[some] for name in found}))
    return batches


def random_batches(base: BaseModel, seed: int) -> list[Batch]:
    """Random ids of random lengths; one token, and an item as long as the model takes, each alone."""
    generator = np.random.default_rng(seed)
    most = min(_LONGEST_RANDOM, base.max_positions) + 1
    several = [(_BATCH, int(generator.integers(2, most))) for _ in range(0, _RANDOM_ITEMS, _BATCH)]
    shapes = [*several, (1, 1), (1, min(_LONGEST, base.max_positions))]
    return [_random_batch(base, items, longest, generator) for items, longest in shapes]


def _random_batch(base: BaseModel, items: int, longest: int, generator: np.random.Generator) -> Batch:
    """The first item is the longest; the others are padded on the right."""
    lengths = generator.integers(1, longest + 1, items)
    lengths[0] = longest
    mask = (np.arange(longest) < lengths[:, None]).astype(np.int64)
    ids = generator.integers(0, base.module.config.vocab_size, mask.shape) * mask
    arrays = {"input_ids": ids, "attention_mask": mask}
    if "token_type_ids" in base.input_names:
        types = getattr(base.module.config, "type_vocab_size", 2)
        arrays["token_type_ids"] = generator.integers(0, types, ids.shape) * mask
    return Batch(arrays)


def fit_batches(static_shape: tuple[int, int] | None, batches: Sequence[Batch]) -> list[Batch]:
    """The batches cut to what a model of fixed shape takes, in items and in tokens."""
    if static_shape is None:
        return list(batches)
    most, longest = static_shape
    return [
        Batch({name: array[start : start + most, :longest] for name, array in batch.arrays.items()})
        for batch in batches
        for start in range(0, batch.items, most)
    ]
