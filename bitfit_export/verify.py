"""Prove a bundle against PyTorch: the same ids, the same logits, the same decisions, for every task.

The reference is the base model with a task's biases merged in, run by PyTorch. It never goes through the compiler,
the row files or the runtime.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from bitfit_export.base_models import BaseModel
from bitfit_export.delta import TaskDelta
from bitfit_export.errors import BaseMismatchError, VerificationError
from bitfit_export.runtime import BiasSession

__all__ = ["FP32_TOLERANCE", "SAMPLE_TEXTS", "Comparison", "VerifyReport", "check_report", "verify_bundle"]

#: Largest allowed difference of a logit between the bundle and PyTorch, both in float32.
FP32_TOLERANCE = 1e-4

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

_RANDOM_ROWS = 24
_BATCH = 8
_LONGEST_RANDOM = 64


@dataclass(frozen=True)
class Comparison:
    """The bundle's logits beside PyTorch's over some rows.

    Attributes:
        name: a task's name, or `mixed` for batches in which every row is another task.
        argmax_agreement: share of the rows with the same largest logit.
    """

    name: str
    rows: int
    max_difference: float
    mean_difference: float
    argmax_agreement: float

    @property
    def passed(self) -> bool:
        return self.max_difference <= FP32_TOLERANCE and self.argmax_agreement == 1.0


@dataclass(frozen=True)
class VerifyReport:
    """One comparison a task, and one of mixed batches."""

    comparisons: tuple[Comparison, ...]
    seed: int
    tolerance: float = FP32_TOLERANCE

    @property
    def max_difference(self) -> float:
        return max(each.max_difference for each in self.comparisons)


@dataclass(frozen=True)
class _Batch:
    """Ids, mask and, where the model takes them, token types, each int64 [batch, sequence]."""

    arrays: dict[str, np.ndarray]

    @property
    def rows(self) -> int:
        return len(self.arrays["input_ids"])


def verify_bundle(folder: Path, base: BaseModel, deltas: Mapping[str, TaskDelta], *, seed: int = 0) -> VerifyReport:
    """Compare a bundle with PyTorch on sample texts and on random ids with padding, one task at a time and mixed.

    Raises:
        BaseMismatchError: the bundle was compiled from another base model.
        VerificationError: the tokenizers disagree, or a comparison does not hold; the message has the figures.
    """
    session = BiasSession(folder, check_hashes=True)
    if session.manifest.base.digest != base.digest:
        raise BaseMismatchError(
            f"the bundle was compiled from {session.manifest.base.name} with digest "
            f"{session.manifest.base.digest[:12]}, but {base.source.name} has digest {base.digest[:12]}",
            hint="pass --model with the base model that the bundle was compiled from",
        )
    batches = [*_text_batches(session, base), *_random_batches(base, seed)]
    rows = sum(batch.rows for batch in batches)
    references = {name: _reference_logits(base, delta, batches) for name, delta in deltas.items()}
    comparisons = [
        compare_logits(name, _run_single(session, name, batches), reference) for name, reference in references.items()
    ]
    tasks = _shuffled_tasks(list(deltas), rows, seed)
    mixed = [references[task][row] for row, task in enumerate(tasks)]
    comparisons.append(compare_logits("mixed", _run_mixed(session, tasks, batches, deltas), mixed))
    report = VerifyReport(tuple(comparisons), seed)
    check_report(report)
    return report


def check_report(report: VerifyReport) -> None:
    """Raise VerificationError when a comparison does not hold."""
    failed = [each for each in report.comparisons if not each.passed]
    if failed:
        worst = max(failed, key=lambda each: each.max_difference)
        raise VerificationError(
            f"{len(failed)} of {len(report.comparisons)} comparisons with PyTorch failed; {worst.name}: largest "
            f"difference {worst.max_difference:.2e}, expected at most {report.tolerance:.0e}; the same argmax on "
            f"{worst.argmax_agreement:.1%} of {worst.rows} rows, expected all"
        )


def compare_logits(name: str, found: Sequence[np.ndarray], expected: Sequence[np.ndarray]) -> Comparison:
    """Compare logits row by row; each row is float32 [labels of its task]."""
    if any(ours.shape != theirs.shape for ours, theirs in zip(found, expected, strict=True)):
        raise VerificationError(f"{name}: the bundle gives another number of logits than PyTorch")
    differences = [np.abs(ours - theirs) for ours, theirs in zip(found, expected, strict=True)]
    agree = [int(ours.argmax()) == int(theirs.argmax()) for ours, theirs in zip(found, expected, strict=True)]
    flat = np.concatenate(differences)
    # A NaN compares as neither larger nor smaller; it must count as the largest difference there is.
    largest = float(flat.max()) if np.isfinite(flat).all() else float("inf")
    return Comparison(name, len(found), largest, float(flat.mean()), float(np.mean(agree)))


def _text_batches(session: BiasSession, base: BaseModel) -> list[_Batch]:
    """The sample texts, tokenised by transformers; the bundle's own tokenizer must give the same ids."""
    batches = []
    for width in (1, 2):
        texts = [text for text in SAMPLE_TEXTS if len(text) == width]
        columns = [list(column) for column in zip(*texts, strict=True)]
        limit = base.max_positions
        expected = base.tokenizer(*columns, truncation=True, max_length=limit, padding=True, return_tensors="np")
        found = session.encode([text[0] if width == 1 else (text[0], text[1]) for text in texts], truncate=True)
        for name in base.tokenizer.model_input_names:
            if not np.array_equal(found[name], expected[name]):
                raise VerificationError(f"the bundle's tokenizer gives other {name} than transformers' on sample texts")
        batches.append(_Batch({name: np.asarray(expected[name], np.int64) for name in found}))
    return batches


def _random_batches(base: BaseModel, seed: int) -> list[_Batch]:
    """Random ids of random lengths, padded on the right."""
    generator = np.random.default_rng(seed)
    vocabulary = base.module.config.vocab_size
    batches = []
    for _ in range(0, _RANDOM_ROWS, _BATCH):
        longest = int(generator.integers(2, min(_LONGEST_RANDOM, base.max_positions) + 1))
        lengths = generator.integers(1, longest + 1, _BATCH)
        lengths[0] = longest
        mask = (np.arange(longest) < lengths[:, None]).astype(np.int64)
        ids = generator.integers(0, vocabulary, (_BATCH, longest)) * mask
        arrays = {"input_ids": ids, "attention_mask": mask}
        if "token_type_ids" in base.tokenizer.model_input_names:
            arrays["token_type_ids"] = generator.integers(0, base.module.config.type_vocab_size, ids.shape) * mask
        batches.append(_Batch(arrays))
    return batches


def _reference_logits(base: BaseModel, delta: TaskDelta, batches: Sequence[_Batch]) -> list[np.ndarray]:
    import torch

    from bitfit_export.task_model import merged_model

    model = merged_model(base, delta)
    with torch.inference_mode():
        outputs = [model(**{name: torch.from_numpy(v) for name, v in b.arrays.items()})["logits"] for b in batches]
    return [row for output in outputs for row in output.numpy()]


def _run_single(session: BiasSession, task: str, batches: Sequence[_Batch]) -> list[np.ndarray]:
    return [row for batch in batches for row in session.run(task, **batch.arrays)]


def _shuffled_tasks(names: list[str], rows: int, seed: int) -> list[str]:
    """A task for each row: every task about equally often, in random order."""
    repeated = (names * (rows // len(names) + 1))[:rows]
    return [str(name) for name in np.random.default_rng(seed + 1).permutation(repeated)]


def _run_mixed(
    session: BiasSession, tasks: Sequence[str], batches: Sequence[_Batch], deltas: Mapping[str, TaskDelta]
) -> list[np.ndarray]:
    """Logits of a mixed run, each row cut to its own task's labels."""
    found: list[np.ndarray] = []
    for batch in batches:
        chosen = tasks[len(found) : len(found) + batch.rows]
        logits = session.run(chosen, **batch.arrays)
        found += [row[: deltas[task].config.output_size] for row, task in zip(logits, chosen, strict=True)]
    return found
