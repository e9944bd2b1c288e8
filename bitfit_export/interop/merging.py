"""From a task delta to a checkpoint that transformers loads.

Beside transformers' files there is `bitfit_merge.json`: what was merged, and SHA-256 of every file. So a later merge
replaces what an earlier one wrote, and no checkpoint that somebody has trained since.
"""

from __future__ import annotations

import copy
from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

import torch

from bitfit_export import __version__
from bitfit_export.base_model.loading import BaseModel
from bitfit_export.bundle.fields import check_digest
from bitfit_export.delta import TOKEN_PROBLEMS, TaskDelta
from bitfit_export.errors import DeltaError
from bitfit_export.files import canonical_json, new_folder, sha256_of_file
from bitfit_export.files.outputs import OutputKind, refuse_overlap
from bitfit_export.interop.same_logits import check_same_logits
from bitfit_export.interop.task_classes import Wiring, head_names, new_task_model, split_state, wiring

if TYPE_CHECKING:
    from transformers import PreTrainedModel

__all__ = ["MERGED", "MERGE_FILE", "merge_task", "merged_checkpoint"]

MERGE_FILE = "bitfit_merge.json"
_MERGE_VERSION = 1

_PROBLEM_TYPES = {
    "regression": "regression",
    "single_label": "single_label_classification",
    "multi_label": "multi_label_classification",
}


def merge_task(base: BaseModel, delta: TaskDelta, folder: Path, *, overwrite: bool = False) -> str:
    """Write base and delta as one checkpoint in float32, with the tokenizer; give the name of its class.

    Raises:
        BaseMismatchError: a delta of another base model.
        DeltaError: a head that transformers' class for this task does not have.
        OutputError: the folder exists, or cannot be written, or is the base model's.
        BusyError: another process is writing it.
    """
    refuse_overlap(folder, [base.source.location])
    model = merged_checkpoint(base, delta)
    with new_folder(folder, replaces=MERGED if overwrite else None) as temporary:
        model.save_pretrained(temporary)
        if base.tokenizer is not None:
            base.tokenizer.save_pretrained(temporary)
        (temporary / MERGE_FILE).write_bytes(canonical_json(_record(base, delta, temporary)))
    return type(model).__name__


def _record(base: BaseModel, delta: TaskDelta, folder: Path) -> dict[str, Any]:
    """Returns the contents of `bitfit_merge.json` in the checkpoint's `folder`."""
    files = sorted(path for path in folder.rglob("*") if path.is_file())
    return {
        "format_version": _MERGE_VERSION,
        "product_version": __version__,
        "base_model": base.source.name,
        "base_digest": base.digest,
        "task": delta.config.task,
        "files": {path.relative_to(folder).as_posix(): sha256_of_file(path) for path in files},
    }


def _files_of(record: Any) -> Mapping[str, str | None]:
    """The files of a merged checkpoint's folder, by its `bitfit_merge.json`."""
    check_digest(record["base_digest"], "base_digest")
    if record["format_version"] != _MERGE_VERSION:
        raise DeltaError(f"not the {MERGE_FILE} of this release")
    for digest in record["files"].values():
        check_digest(digest, "a file's sha256")
    return {MERGE_FILE: None, **record["files"]}


#: How a merged checkpoint's folder is told from any other.
MERGED = OutputKind("a merged checkpoint", MERGE_FILE, _files_of)


def merged_checkpoint(base: BaseModel, delta: TaskDelta) -> PreTrainedModel:
    """The model that `merge_task` saves; its logits are those of base and delta."""
    delta.check_base(base.source.name, base.digest, base.biases)
    kind = delta.config.problem_type if delta.config.problem_type in TOKEN_PROBLEMS else "sentence"
    model = new_task_model(base, kind, _config(base, delta))
    _check_wiring(model, base, delta)
    body, head = split_state(model, base)
    _copy(base.module.state_dict(), body)
    _copy({name: torch.from_numpy(value) for name, value in delta.merge(base.biases).items()}, body)
    names = head_names(head)
    _check_nothing_is_lost(model, delta, body.keys() | set(names.values()))
    _copy({theirs: torch.from_numpy(delta.head[ours]) for theirs, ours in names.items()}, head)
    check_same_logits(model, base, delta)
    return model


def _config(base: BaseModel, delta: TaskDelta) -> Any:
    """The base model's settings with the task's labels."""
    config: Any = copy.deepcopy(base.module.config)
    config.dtype = "float32"
    config.num_labels = delta.config.output_size
    if delta.config.labels:
        config.id2label = dict(enumerate(delta.config.labels))
        config.label2id = {label: number for number, label in config.id2label.items()}
    if base.tokenizer is not None and config.pad_token_id is None:
        # Decoders' classes look for the last token before the padding, and refuse a batch where they don't know it.
        config.pad_token_id = base.tokenizer.pad_token_id
    # Token and span classes have one loss and no problem type.
    config.problem_type = _PROBLEM_TYPES.get(delta.config.problem_type)
    return config


def _check_wiring(model: PreTrainedModel, base: BaseModel, delta: TaskDelta) -> None:
    expected, found = wiring(model, base), Wiring(delta.config.pooling, delta.config.activation)
    if found != expected:
        raise DeltaError(
            f"the head of {delta.config.task} has {found}, but {type(model).__name__} has {expected}: "
            "no checkpoint of transformers gives its logits",
            hint=f"train with --pooling {expected.pooling}, or compile the task with bitfit-export",
        )


def _check_nothing_is_lost(model: PreTrainedModel, delta: TaskDelta, kept: set[str]) -> None:
    """Refuse a task with a tensor for which the class has no place, unless it is zero or nothing reads it."""
    tensors = {**delta.biases, **delta.head}
    unread = () if delta.config.pooling == "pooler" else ("pooler.",)
    lost = [name for name, value in tensors.items() if name not in kept and not name.startswith(unread) and value.any()]
    if lost:
        raise DeltaError(
            f"{type(model).__name__} has no {', '.join(lost)}, so no checkpoint of it gives the logits of "
            f"{delta.config.task}",
            hint="compile the task with bitfit-export, which has a place for all of its tensors",
        )


def _copy(values: dict[str, torch.Tensor], targets: dict[str, torch.Tensor]) -> None:
    """Put values where the model has a tensor of the name. A class that reads no pooler has none.

    Raises:
        DeltaError: a head tensor of another shape than the class has.
    """
    for name, value in values.items():
        if name not in targets:
            continue
        if value.shape != targets[name].shape:
            raise DeltaError(
                f"{name} has shape {tuple(value.shape)}, the class of transformers expects {tuple(targets[name].shape)}"
            )
        targets[name].copy_(value)
