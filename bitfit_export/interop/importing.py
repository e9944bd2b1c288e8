"""From a fine-tuned model to a task delta."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import numpy as np

from bitfit_export.base_model.loading import BaseModel, model_argument
from bitfit_export.delta import DeltaConfig, TaskDelta
from bitfit_export.errors import DeltaError, UsageError
from bitfit_export.interop.difference import BIAS_TERM, check_only_biases, compare_with_base
from bitfit_export.interop.reading import Checkpoint, read_checkpoint
from bitfit_export.interop.same_logits import check_same_logits
from bitfit_export.interop.task_classes import head_names, labels_of, problem_type_of, split_state, wiring
from bitfit_export.verification.bundle import SAMPLE_TEXTS

__all__ = ["METHOD", "import_task", "render_import_card", "task_of_checkpoint"]

#: What `DeltaConfig.method` says of a task that was trained elsewhere.
METHOD = "imported"
#: The longest text of a model that reads none; nothing uses it.
_NO_TEXT = 1


def import_task(base: BaseModel, folder: Path, task: str) -> TaskDelta:
    """Read the checkpoint or adapter in `folder` as a delta of `base`.

    Raises:
        DeltaError: it is damaged, or more than bias terms and a known head differ from `base`.
        BaseMismatchError: it is of another architecture, or says that it has another base model.
    """
    return task_of_checkpoint(base, read_checkpoint(base, folder), task)


def task_of_checkpoint(
    base: BaseModel, checkpoint: Checkpoint, task: str, labels: Sequence[str] | None = None
) -> TaskDelta:
    """A checkpoint as a delta of `base`: its bias terms less the base's, and its head.

    Only bias terms that changed are in the delta. b_0 + (b_F - b_0) is b_F but for float32's rounding.

    Args:
        labels: names to use instead of the checkpoint's.

    Raises:
        DeltaError: more than bias terms and a known head differ, or the delta's logits are not the checkpoint's.
        UsageError: another number of labels than the head has.
    """
    difference = compare_with_base(base, checkpoint)
    check_only_biases(difference, checkpoint)
    _check_tokenizer(base, checkpoint)
    model = checkpoint.model
    changed = {change.name for change in difference.changes if change.kind == BIAS_TERM}
    body, _ = split_state(model, base)
    biases = {name: body[name].numpy() - value for name, value in base.biases.items() if name in changed}
    wired = wiring(model, base)
    config = DeltaConfig(
        base_model=base.source.name,
        base_revision=base.revision,
        base_digest=base.digest,
        task=task,
        problem_type=problem_type_of(model),
        labels=_labels(checkpoint, labels),
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


def _labels(checkpoint: Checkpoint, wanted: Sequence[str] | None) -> tuple[str, ...]:
    found = labels_of(checkpoint.model)
    if wanted is None:
        return found
    if len(wanted) != len(found):
        raise UsageError(f"--labels has {len(wanted)} names, expected {len(found)} as the head of {checkpoint.folder}")
    return tuple(wanted)


def _head(checkpoint: Checkpoint, base: BaseModel) -> dict[str, np.ndarray]:
    _, tensors = split_state(checkpoint.model, base)
    head = {ours: tensors[theirs].numpy().copy() for theirs, ours in head_names(tensors).items()}
    outputs = head["classifier.weight"].shape[0]
    return {"classifier.bias": np.zeros(outputs, np.float32)} | head


def _check_tokenizer(base: BaseModel, checkpoint: Checkpoint) -> None:
    """A tokenizer that the checkpoint brings must read text as the base model's does: a bundle has only that one."""
    if base.tokenizer is None or not (checkpoint.folder / "tokenizer.json").is_file():
        return
    from transformers import AutoTokenizer

    try:
        theirs = AutoTokenizer.from_pretrained(str(checkpoint.folder), local_files_only=True)
    except Exception as error:  # whatever transformers raises for a damaged file
        raise DeltaError(f"the tokenizer in {checkpoint.folder} can't be loaded: {error}") from error
    for text in SAMPLE_TEXTS:
        if theirs(*text)["input_ids"] != base.tokenizer(*text)["input_ids"]:
            raise DeltaError(
                f"the tokenizer in {checkpoint.folder} gives other ids than {base.source.name}'s for {text[0]!r}",
                hint="name the base model that it was fine-tuned from; a bundle has one tokenizer for all its tasks",
            )
