"""From a fine-tuned model to a task delta."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from pathlib import Path

import numpy as np

from bitfit_export.base_model.loading import BaseModel
from bitfit_export.base_model.source import model_argument
from bitfit_export.delta import DeltaConfig, TaskDelta
from bitfit_export.errors import UsageError
from bitfit_export.interop.difference import BIAS_TERM, check_only_biases, compare_with_base
from bitfit_export.interop.reading import Checkpoint, read_checkpoint
from bitfit_export.interop.same_logits import check_same_logits
from bitfit_export.interop.same_tokenizer import check_tokenizer
from bitfit_export.interop.task_classes import head_names, labels_of, problem_type_of, split_state, wiring

__all__ = ["CHOSEN_REGRESSION", "METHOD", "chose_regression", "import_task", "render_import_card", "task_of_checkpoint"]

#: What `DeltaConfig.method` says of a task that was trained elsewhere.
METHOD = "imported"
#: What `bitfit` says where it had to choose.
CHOSEN_REGRESSION = (
    "taken for a regression, as its head has one output and its config names no problem_type; the pipeline of "
    "transformers applies a sigmoid to it, as does bitfit diff ... --problem-type multi_label"
)
#: The longest text of a model that reads none; nothing uses it.
_NO_TEXT = 1


def import_task(base: BaseModel, folder: Path, task: str, *, say: Callable[[str], None] | None = None) -> TaskDelta:
    """Read the checkpoint or adapter in `folder` as a delta of `base`.

    Args:
        say: is given a line about what the folder leaves open and what was chosen.

    Raises:
        DeltaError: it is damaged, or more than bias terms and a known head differ from `base`.
        BaseMismatchError: it is of another architecture, or says that it has another base model.
    """
    checkpoint = read_checkpoint(base, folder)
    delta = task_of_checkpoint(base, checkpoint, task)
    if say is not None and chose_regression(checkpoint, delta):
        say(f"{task}: {CHOSEN_REGRESSION}")
    return delta


def chose_regression(checkpoint: Checkpoint, delta: TaskDelta) -> bool:
    """Returns whether `delta` is a regression only because its head has one output."""
    return delta.config.problem_type == "regression" and checkpoint.problem_type is None


def task_of_checkpoint(
    base: BaseModel,
    checkpoint: Checkpoint,
    task: str,
    labels: Sequence[str] | None = None,
    problem_type: str | None = None,
) -> TaskDelta:
    """A checkpoint as a delta of `base`: its bias terms less the base's, and its head.

    Only bias terms that changed are in the delta. b_0 + (b_F - b_0) is b_F but for float32's rounding.

    Args:
        labels: names to use instead of the checkpoint's, which need not name each output then.
        problem_type: the one to use instead of the checkpoint's.

    Raises:
        DeltaError: more than bias terms and a known head differ, or the delta's logits are not the checkpoint's.
        UsageError: another number of labels than the head has, or a problem type that does not go with it.
    """
    difference = compare_with_base(base, checkpoint)
    check_only_biases(difference, checkpoint)
    check_tokenizer(base, checkpoint)
    model = checkpoint.model
    changed = {change.name for change in difference.changes if change.kind == BIAS_TERM}
    body, _ = split_state(model, base)
    biases = {name: body[name].numpy() - value for name, value in base.biases.items() if name in changed}
    wired = wiring(model, base)
    problem = problem_type_of(model, checkpoint.problem_type, problem_type)
    config = DeltaConfig(
        base_model=base.source.name,
        base_revision=base.revision,
        base_digest=base.digest,
        task=task,
        problem_type=problem,
        labels=_labels(checkpoint, problem, labels),
        bias_terms=tuple(biases),
        method=METHOD,
        pooling=wired.pooling,
        max_length=_NO_TEXT if base.tokenizer is None else base.max_positions,
        activation=wired.activation,
        training={"architecture": type(model).__name__},
    )
    delta = TaskDelta(config, biases, _head(checkpoint, base))
    check_same_logits(model, base, delta)
    return delta


def render_import_card(delta: TaskDelta, model: str) -> str:
    """The model card of a delta that was trained elsewhere: what it is, and nothing about a training.

    Args:
        model: the base model's short name.
    """
    config = delta.config
    values = sum(value.size for value in delta.biases.values())
    return (
        f"---\nbase_model: {config.base_model}\nbase_model_relation: adapter\nlibrary_name: bitfit-export\n"
        "tags:\n- bitfit\n---\n\n"
        f"# {config.task} on {model_argument(model)}\n\n"
        f"A BitFit task delta that was made from a `{config.training['architecture']}`: the changes of "
        f"{len(config.bias_terms)} bias terms ({values:,} values) of `{config.base_model}`, and its head. All other "
        "weights are the base model's, to the bit. How it was trained and how well it does is not recorded here.\n\n"
        f"## Use\n\n```\nbitfit-export --model {model_argument(model)} --tasks {config.task}\n```\n"
    )


def _labels(checkpoint: Checkpoint, problem: str, wanted: Sequence[str] | None) -> tuple[str, ...]:
    outputs = 2 if problem == "span" else int(checkpoint.model.config.num_labels)
    expected = 0 if problem == "regression" else outputs
    if wanted is not None and len(wanted) != expected:
        raise UsageError(
            f"--labels has {len(wanted)} names, expected {expected} as the head of {checkpoint.folder}",
            hint="a regression has no labels; --problem-type names another" if problem == "regression" else None,
        )
    if problem == "regression":
        return ()
    return labels_of(checkpoint.model, checkpoint.id2label) if wanted is None else tuple(wanted)


def _head(checkpoint: Checkpoint, base: BaseModel) -> dict[str, np.ndarray]:
    _, tensors = split_state(checkpoint.model, base)
    head = {ours: tensors[theirs].numpy().copy() for theirs, ours in head_names(tensors).items()}
    outputs = head["classifier.weight"].shape[0]
    return {"classifier.bias": np.zeros(outputs, np.float32)} | head
