"""A folder to a model with a head: a checkpoint that transformers wrote, or an adapter that PEFT wrote."""

from __future__ import annotations

import json
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from bitfit_export.base_model.loading import BaseModel
from bitfit_export.errors import BaseMismatchError, DeltaError, first_line
from bitfit_export.interop.peft import ADAPTER_CONFIG, apply_adapter
from bitfit_export.interop.task_classes import check_architecture

if TYPE_CHECKING:
    from transformers import PreTrainedModel

__all__ = ["Checkpoint", "is_checkpoint", "read_checkpoint"]

MODEL_CONFIG = "config.json"
_WEIGHT_FILES = ("model.safetensors", "model.safetensors.index.json")


@dataclass(frozen=True)
class Checkpoint:
    """A fine-tuned model with its head.

    Attributes:
        model: of a task class such as `BertForSequenceClassification`, in float32 and eval mode.
        dtype: in which its file has the weights, as torch names it: `float32`, `bfloat16`, ...
    """

    folder: Path
    model: PreTrainedModel
    dtype: str


def is_checkpoint(folder: Path) -> bool:
    """Whether `read_checkpoint` has something to read in `folder`."""
    return any((folder / name).is_file() for name in (ADAPTER_CONFIG, MODEL_CONFIG))


def read_checkpoint(base: BaseModel, folder: Path) -> Checkpoint:
    """Load a fine-tuned model, or put an adapter's changes into a copy of `base`.

    Raises:
        DeltaError: the folder has neither, or one that is damaged, incomplete, or has no head that is known.
        BaseMismatchError: a model of another architecture than `base`.
    """
    if (folder / ADAPTER_CONFIG).is_file():
        return Checkpoint(folder, apply_adapter(base, folder), "float32")
    _check_config(base, folder)
    model = _from_pretrained(folder)
    dtype = str(model.dtype).removeprefix("torch.")
    return Checkpoint(folder, model.float().eval().requires_grad_(False), dtype)


def _check_config(base: BaseModel, folder: Path) -> None:
    path = folder / MODEL_CONFIG
    try:
        config = json.loads(path.read_text(encoding="utf-8"))
        model_type, architecture = str(config["model_type"]), str(config["architectures"][0])
    except OSError as error:
        raise DeltaError(
            f"{path} can't be read: {error.strerror}", hint="expected a checkpoint's folder, or a PEFT adapter's"
        ) from error
    except (IndexError, KeyError, TypeError, ValueError) as error:
        raise DeltaError(
            f"{path} is no whole configuration with model_type and architectures",
            hint="save the fine-tuned model again with save_pretrained",
        ) from error
    expected = base.module.config.model_type
    if model_type != expected:
        raise BaseMismatchError(
            f"{folder} is a model of type {model_type}, but {base.source.name} is one of type {expected}",
            hint="name the base model that it was fine-tuned from",
        )
    check_architecture(folder, architecture)
    if not any((folder / name).is_file() for name in _WEIGHT_FILES):
        raise DeltaError(
            f"{folder} has no {_WEIGHT_FILES[0]}, expected the weights as safetensors",
            hint="load the model with transformers and save it again with save_pretrained",
        )


def _from_pretrained(folder: Path) -> PreTrainedModel:
    import transformers

    architecture = json.loads((folder / MODEL_CONFIG).read_text(encoding="utf-8"))["architectures"][0]
    loader: Any = getattr(transformers, architecture)
    try:
        model, info = loader.from_pretrained(
            str(folder), output_loading_info=True, dtype="auto", use_safetensors=True, local_files_only=True
        )
    except Exception as error:  # whatever transformers and safetensors raise for a damaged file
        raise DeltaError(
            f"the checkpoint in {folder} can't be loaded: {first_line(error)}", hint="copy it or save it again"
        ) from error
    if info["missing_keys"]:
        raise DeltaError(
            f"{folder} lacks {_shown(info['missing_keys'])} of {architecture}, expected all its tensors",
            hint="copy it or save it again with save_pretrained",
        )
    # A pooler that the class leaves out came with the base model's file; any other tensor was meant to be used.
    unread = [name for name in info["unexpected_keys"] if ".pooler." not in name]
    if unread:
        raise DeltaError(f"{folder} has {_shown(unread)}, which {architecture} does not read")
    return model


def _shown(names: Any) -> str:
    ordered = sorted(names)
    return ", ".join(ordered[:3]) + (f" and {len(ordered) - 3} more tensors" if len(ordered) > 3 else "")
