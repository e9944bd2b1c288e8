"""Prove a bundle against PyTorch: the same ids, the same logits, the same decisions, for every task.

The reference is the base model with a task's biases merged in, run by PyTorch. It never goes through the compiler,
the row files or the runtime.
"""

from __future__ import annotations

import tempfile
from collections.abc import Container, Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from bitfit_export.base_model.loading import BaseModel
from bitfit_export.bundle import write_row
from bitfit_export.bundle.interface import LOGITS, TOKEN_LOGITS
from bitfit_export.delta import TOKEN_PROBLEMS, DeltaConfig, TaskDelta
from bitfit_export.errors import BaseMismatchError
from bitfit_export.runtime import BiasSession
from bitfit_export.verification.comparison import (
    FP32_TOLERANCE,
    LOW_PRECISION_AGREEMENT,
    Comparison,
    VerifyReport,
    check_report,
    compare_logits,
)
from bitfit_export.verification.samples import Batch, fit_batches, random_batches, text_batches

if TYPE_CHECKING:
    from bitfit_export.compiler.pack_rows import RowPacker

__all__ = [
    "PROBE",
    "shuffled_tasks",
    "verify_bundle",
]

#: A task made up for verification: it changes every bias term, which a real task may not do.
PROBE = "probe"

_PROBE_LABELS = 3


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
    batches = fit_batches(manifest.static_shape, [*text_batches(session, base), *random_batches(base, seed)])
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


def _free_name(name: str, taken: Container[str]) -> str:
    """The name, with as many underscores at its end as it takes to be no task's."""
    while name in taken:
        name += "_"
    return name


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


def _reference_logits(base: BaseModel, delta: TaskDelta, batches: Sequence[Batch]) -> list[np.ndarray]:
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


def _decisions(batch: Batch, logits: np.ndarray, delta: TaskDelta) -> list[np.ndarray]:
    """[batch, labels] or [batch, sequence, labels] to [decisions, labels of the task] per item, without the padding."""
    labels = delta.config.output_size
    if delta.config.problem_type not in TOKEN_PROBLEMS:
        return [item[None, :labels] for item in logits]
    return [item[kept.astype(bool), :labels] for item, kept in zip(logits, batch.arrays["attention_mask"], strict=True)]


def _flat(items: Sequence[np.ndarray]) -> list[np.ndarray]:
    return [decision for item in items for decision in item]


def _run_single(session: BiasSession, task: str, delta: TaskDelta, batches: Sequence[Batch]) -> list[np.ndarray]:
    return _flat([item for b in batches for item in _decisions(b, session.run(task, **b.arrays), delta)])


def _compare_mixed(
    session: BiasSession,
    deltas: Mapping[str, TaskDelta],
    references: Mapping[str, Sequence[np.ndarray]],
    batches: Sequence[Batch],
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
