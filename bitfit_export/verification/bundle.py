"""Prove a bundle against PyTorch: the same ids, the same logits, the same decisions, for every task.

The reference is the base model with a task's biases merged in, run by PyTorch. It never goes through the compiler,
the row files or the runtime.
"""

from __future__ import annotations

import tempfile
from collections.abc import Container, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from bitfit_export.base_model.loading import BaseModel
from bitfit_export.bundle import write_row
from bitfit_export.bundle.interface import LOGITS, TOKEN_LOGITS
from bitfit_export.delta import TOKEN_PROBLEMS, DeltaConfig, TaskDelta
from bitfit_export.errors import BaseMismatchError, VerificationError
from bitfit_export.runtime import BiasSession

if TYPE_CHECKING:
    from bitfit_export.compiler.pack_rows import RowPacker

__all__ = [
    "FP32_TOLERANCE",
    "LOW_PRECISION_AGREEMENT",
    "PROBE",
    "SAMPLE_TEXTS",
    "Comparison",
    "VerifyReport",
    "check_report",
    "compare_logits",
    "shuffled_tasks",
    "verify_bundle",
]

#: Largest allowed difference of a logit between the bundle and PyTorch, both in float32.
FP32_TOLERANCE = 1e-4
#: In a lower precision differences are reported. Only the probe, whose decisions are far apart, must mostly agree.
LOW_PRECISION_AGREEMENT = 0.8
#: A task made up for verification: it changes every bias term, which a real task may not do.
PROBE = "probe"

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
#: An emulator takes seconds for each.
_BATCHES_ON_EMULATOR = 4
_BATCH = 8
_LONGEST_RANDOM = 64
#: An item as long as the model takes is compared too, but attention grows with the square of it.
_LONGEST = 1024
_PROBE_LABELS = 3


@dataclass(frozen=True)
class Comparison:
    """The bundle's logits beside PyTorch's over some items.

    Attributes:
        name: a task's name, `mixed` for batches in which every item is another task, or `PROBE`; with underscores
            at the end where a task has that name.
        items: how many decisions were compared: texts, or the tokens of texts.
        argmax_agreement: share of the items with the same largest logit.
        tolerance: the largest difference allowed; None in a lower precision.
        least_agreement: the smallest share allowed there.
    """

    name: str
    items: int
    max_difference: float
    mean_difference: float
    argmax_agreement: float
    tolerance: float | None = FP32_TOLERANCE
    least_agreement: float = 0.0

    @property
    def passed(self) -> bool:
        if self.tolerance is not None:
            return self.max_difference <= self.tolerance and self.argmax_agreement == 1.0
        return bool(np.isfinite(self.max_difference)) and self.argmax_agreement >= self.least_agreement


@dataclass(frozen=True)
class VerifyReport:
    """One comparison a task, and one of mixed batches."""

    comparisons: tuple[Comparison, ...]
    seed: int

    @property
    def max_difference(self) -> float:
        return max(each.max_difference for each in self.comparisons)


@dataclass(frozen=True)
class _Batch:
    """Ids, mask and, where the model takes them, token types, each int64 [batch, sequence]."""

    arrays: dict[str, np.ndarray]

    @property
    def items(self) -> int:
        return len(self.arrays["input_ids"])


def verify_bundle(
    folder: Path,
    base: BaseModel,
    deltas: Mapping[str, TaskDelta],
    *,
    packer: RowPacker | None = None,
    seed: int = 0,
    engine: str | None = None,
    engine_options: Mapping[str, str] | None = None,
) -> VerifyReport:
    """Compare a bundle with PyTorch on sample texts and on random ids with padding, one task at a time and mixed.

    Args:
        packer: of the compiled model; with it, a task is made up that changes every bias term, and compared too.
        engine, engine_options: as for `BiasSession`.

    Raises:
        BaseMismatchError: the bundle was compiled from another base model.
        VerificationError: the tokenizers disagree, or a comparison does not hold; the message has the figures.
    """
    session = BiasSession(folder, engine=engine, engine_options=engine_options, check_hashes=True)
    manifest = session.manifest
    if manifest.base.digest != base.digest:
        raise BaseMismatchError(
            f"the bundle was compiled from {manifest.base.name} with digest "
            f"{manifest.base.digest[:12]}, but {base.source.name} has digest {base.digest[:12]}",
            hint="pass --model with the base model that the bundle was compiled from",
        )
    exact = session.exact and manifest.precision == "fp32" and manifest.row_dtype == "fp32"
    tolerance = FP32_TOLERANCE if exact else None
    batches = _fit(manifest.static_shape, [*_text_batches(session, base), *_random_batches(base, seed)])
    if session.emulated:
        batches = batches[:: -(-len(batches) // _BATCHES_ON_EMULATOR)]
    chosen = dict(deltas)
    probe = _free_name(PROBE, deltas)
    if packer is not None:
        # A graph of fixed shape has as many labels as its tasks have.
        most = max(delta.config.output_size for delta in deltas.values())
        labels = most if manifest.static_shape else _PROBE_LABELS
        chosen[probe] = _load_probe(session, packer, probe, labels, seed)
    references = {name: _reference_logits(base, delta, batches) for name, delta in chosen.items()}
    comparisons = [
        compare_logits(
            name,
            _run_single(session, name, delta, batches),
            _flat(references[name]),
            tolerance,
            least_agreement=LOW_PRECISION_AGREEMENT if name == probe else 0.0,
        )
        for name, delta in chosen.items()
    ]
    if manifest.layout_kind == "table":
        comparisons.append(_compare_mixed(session, chosen, references, batches, seed, tolerance))
    report = VerifyReport(tuple(comparisons), seed)
    check_report(report)
    return report


def check_report(report: VerifyReport) -> None:
    """Raise VerificationError when a comparison does not hold."""
    failed = [each for each in report.comparisons if not each.passed]
    if failed:
        worst = max(failed, key=lambda each: each.max_difference)
        allowed = "a finite one" if worst.tolerance is None else f"at most {worst.tolerance:.0e}"
        raise VerificationError(
            f"{len(failed)} of {len(report.comparisons)} comparisons with PyTorch failed; {worst.name}: largest "
            f"difference {worst.max_difference:.2e}, expected {allowed}; the same argmax on "
            f"{worst.argmax_agreement:.1%} of {worst.items} items, expected "
            f"{'all' if worst.tolerance is not None else f'at least {worst.least_agreement:.0%}'}"
        )


def compare_logits(
    name: str,
    found: Sequence[np.ndarray],
    expected: Sequence[np.ndarray],
    tolerance: float | None = FP32_TOLERANCE,
    *,
    least_agreement: float = 0.0,
) -> Comparison:
    """Compare logits item by item; each is float32 [labels of its task]."""
    if any(ours.shape != theirs.shape for ours, theirs in zip(found, expected, strict=True)):
        raise VerificationError(f"{name}: the bundle gives another number of logits than PyTorch")
    differences = [np.abs(ours - theirs) for ours, theirs in zip(found, expected, strict=True)]
    agree = [int(ours.argmax()) == int(theirs.argmax()) for ours, theirs in zip(found, expected, strict=True)]
    flat = np.concatenate(differences)
    # A NaN compares as neither larger nor smaller; it must count as the largest difference there is.
    largest = float(flat.max()) if np.isfinite(flat).all() else float("inf")
    agreement = float(np.mean(agree))
    return Comparison(name, len(found), largest, float(flat.mean()), agreement, tolerance, least_agreement)


def _free_name(name: str, taken: Container[str]) -> str:
    """The name, with as many underscores at its end as it takes to be no task's."""
    while name in taken:
        name += "_"
    return name


def _text_batches(session: BiasSession, base: BaseModel) -> list[_Batch]:
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
        batches.append(_Batch({name: np.asarray(expected[name], np.int64)[some] for name in found}))
    return batches


def _random_batches(base: BaseModel, seed: int) -> list[_Batch]:
    """Random ids of random lengths; one token, and an item as long as the model takes, each alone."""
    generator = np.random.default_rng(seed)
    most = min(_LONGEST_RANDOM, base.max_positions) + 1
    several = [(_BATCH, int(generator.integers(2, most))) for _ in range(0, _RANDOM_ITEMS, _BATCH)]
    shapes = [*several, (1, 1), (1, min(_LONGEST, base.max_positions))]
    return [_random_batch(base, items, longest, generator) for items, longest in shapes]


def _random_batch(base: BaseModel, items: int, longest: int, generator: np.random.Generator) -> _Batch:
    """The first item is the longest; the others are padded on the right."""
    lengths = generator.integers(1, longest + 1, items)
    lengths[0] = longest
    mask = (np.arange(longest) < lengths[:, None]).astype(np.int64)
    ids = generator.integers(0, base.module.config.vocab_size, mask.shape) * mask
    arrays = {"input_ids": ids, "attention_mask": mask}
    if "token_type_ids" in base.input_names:
        types = getattr(base.module.config, "type_vocab_size", 2)
        arrays["token_type_ids"] = generator.integers(0, types, ids.shape) * mask
    return _Batch(arrays)


def _fit(static_shape: tuple[int, int] | None, batches: Sequence[_Batch]) -> list[_Batch]:
    """The batches cut to what a model of fixed shape takes, in items and in tokens."""
    if static_shape is None:
        return list(batches)
    most, longest = static_shape
    return [
        _Batch({name: array[start : start + most, :longest] for name, array in batch.arrays.items()})
        for batch in batches
        for start in range(0, batch.items, most)
    ]


def _load_probe(session: BiasSession, packer: RowPacker, name: str, labels: int, seed: int) -> TaskDelta:
    """Make up a task that changes every bias term at random, and load its row."""
    random = np.random.default_rng(seed + 2)
    base, plan = packer.base, packer.head
    config = DeltaConfig(
        base_model=base.source.name,
        base_revision=base.revision,
        base_digest=base.digest,
        task=name,
        problem_type="single_label",
        labels=tuple(f"LABEL_{number}" for number in range(labels)),
        bias_terms=tuple(base.biases),
        method="probe",
        pooling="cls",
        max_length=base.max_positions,
        activation=plan.activation,
    )
    shapes: dict[str, tuple[int, ...]] = {
        "classifier.weight": (labels, plan.inner),
        "classifier.bias": (labels,),
    }
    if plan.activation is not None:
        shapes |= {"dense.weight": (plan.inner, plan.hidden), "dense.bias": (plan.inner,)}
    delta = TaskDelta(
        config,
        {name: random.normal(0, 0.05, value.shape).astype(np.float32) for name, value in base.biases.items()},
        {name: random.normal(0, shape[-1] ** -0.5, shape).astype(np.float32) for name, shape in shapes.items()},
    )
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / f"{name}.bias"
        write_row(path, packer.pack(delta, task=name))
        session.load_task(path)
    return delta


def _reference_logits(base: BaseModel, delta: TaskDelta, batches: Sequence[_Batch]) -> list[np.ndarray]:
    """PyTorch's decisions for each item of the batches, each [decisions, labels]: one, or one a token."""
    import torch

    from bitfit_export.reference.task_model import merged_model

    model = merged_model(base, delta)
    with torch.inference_mode():
        outputs = [model(**{name: torch.from_numpy(v) for name, v in b.arrays.items()})["logits"] for b in batches]
    return [
        item
        for batch, output in zip(batches, outputs, strict=True)
        for item in _decisions(batch, output.numpy(), delta)
    ]


def _decisions(batch: _Batch, logits: np.ndarray, delta: TaskDelta) -> list[np.ndarray]:
    """[batch, labels] or [batch, sequence, labels] to [decisions, labels of the task] per item, without the padding."""
    labels = delta.config.output_size
    if delta.config.problem_type not in TOKEN_PROBLEMS:
        return [item[None, :labels] for item in logits]
    return [item[kept.astype(bool), :labels] for item, kept in zip(logits, batch.arrays["attention_mask"], strict=True)]


def _flat(items: Sequence[np.ndarray]) -> list[np.ndarray]:
    return [decision for item in items for decision in item]


def _run_single(session: BiasSession, task: str, delta: TaskDelta, batches: Sequence[_Batch]) -> list[np.ndarray]:
    return _flat([item for b in batches for item in _decisions(b, session.run(task, **b.arrays), delta)])


def _compare_mixed(
    session: BiasSession,
    deltas: Mapping[str, TaskDelta],
    references: Mapping[str, Sequence[np.ndarray]],
    batches: Sequence[_Batch],
    seed: int,
    tolerance: float | None,
) -> Comparison:
    """Batches in which every item is another task, each item cut to its own task's labels."""
    tasks = shuffled_tasks(list(deltas), sum(batch.items for batch in batches), seed)
    expected = [references[task][item] for item, task in enumerate(tasks)]
    found: list[np.ndarray] = []
    for batch in batches:
        chosen = tasks[len(found) : len(found) + batch.items]
        outputs = session.run_outputs(chosen, **batch.arrays)
        for item, task in enumerate(chosen):
            name = TOKEN_LOGITS if deltas[task].config.problem_type in TOKEN_PROBLEMS else LOGITS
            one = replace(batch, arrays={key: array[item : item + 1] for key, array in batch.arrays.items()})
            found += _decisions(one, outputs[name][item : item + 1], deltas[task])
    return compare_logits(_free_name("mixed", deltas), _flat(found), _flat(expected), tolerance)


def shuffled_tasks(names: list[str], items: int, seed: int) -> list[str]:
    """A task for each item: every task about equally often, in random order."""
    random = np.random.default_rng(seed + 1)
    if len(names) > items:
        names = [str(name) for name in random.permutation(names)]
    repeated = (names * (items // len(names) + 1))[:items]
    return [str(name) for name in random.permutation(repeated)]
