"""A folder to a model with a head: a checkpoint that transformers wrote, or an adapter that PEFT wrote."""

from __future__ import annotations

import json
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from bitfit_export.base_model.loading import BaseModel
from bitfit_export.base_model.weight_files import (
    StoredTensor,
    explain_missing,
    narrowest_dtype,
    stored_tensors,
    weight_files,
)
from bitfit_export.errors import BaseMismatchError, DeltaError, first_line
from bitfit_export.interop.peft import ADAPTER_CONFIG, apply_adapter
from bitfit_export.interop.task_classes import check_architecture, is_classifier

if TYPE_CHECKING:
    from transformers import PreTrainedModel

__all__ = ["Checkpoint", "is_checkpoint", "read_checkpoint"]

MODEL_CONFIG = "config.json"
_WEIGHT_FILES = ("model.safetensors", "model.safetensors.index.json")
#: What `Checkpoint` has of config.json as it is there: the names of labels may not fit the head.
_TASK_SETTINGS = ("id2label", "label2id", "num_labels", "problem_type")


@dataclass(frozen=True)
class Checkpoint:
    """A fine-tuned model with its head.

    Attributes:
        model: of a task class such as `BertForSequenceClassification`, in float32 and eval mode.
        dtype: in which its file has the weights, as torch names it: `float32`, `bfloat16`, ...; where it mixes them,
            the one with the fewest digits.
        id2label: the names of the labels as config.json has them; None where it has none.
        problem_type: as config.json names it; None where it does not.
    """

    folder: Path
    model: PreTrainedModel
    dtype: str
    id2label: Any = None
    problem_type: Any = None


def is_checkpoint(folder: Path) -> bool:
    """Returns whether `read_checkpoint` has something to read in `folder`."""
    return any((folder / name).is_file() for name in (ADAPTER_CONFIG, MODEL_CONFIG))


def read_checkpoint(base: BaseModel, folder: Path) -> Checkpoint:
    """Load a fine-tuned model, or put an adapter's changes into a copy of `base`.

    Raises:
        DeltaError: the folder has neither, or one that is damaged, incomplete, or has no head that is known.
        BaseMismatchError: a model of another architecture than `base`.
    """
    if (folder / ADAPTER_CONFIG).is_file():
        return Checkpoint(folder, apply_adapter(base, folder), "float32")
    config = _read_config(base, folder)
    model, dtype = _from_pretrained(folder, config)
    return Checkpoint(folder, model, dtype, config.get("id2label"), config.get("problem_type"))


def _read_config(base: BaseModel, folder: Path) -> dict[str, Any]:
    """Returns config.json of a checkpoint of the architecture of `base`."""
    path = folder / MODEL_CONFIG
    try:
        config: dict[str, Any] = json.loads(path.read_text(encoding="utf-8"))
        model_type, architecture = str(config["model_type"]), str(config["architectures"][0])
    except OSError as error:
        raise DeltaError(
            f"{path} cannot be read: {error.strerror}", hint="expected a checkpoint's folder, or a PEFT adapter's"
        ) from error
    except (IndexError, KeyError, TypeError, ValueError, RecursionError) as error:
        raise DeltaError(
            f"{path} is not a complete configuration with model_type and architectures",
            hint="save the fine-tuned model again with save_pretrained",
        ) from error
    expected = base.module.config.model_type
    if model_type != expected:
        raise BaseMismatchError(
            f"{folder} is a model of type {model_type}, but {base.source.name} is one of type {expected}",
            hint="name the base model that it was fine-tuned from",
        )
    check_architecture(folder, architecture)
    if not any((folder / name).is_file() for name in _WEIGHT_FILES) or config.get("transformers_weights") is not None:
        raise DeltaError(
            f"{folder} has no {_WEIGHT_FILES[0]} that config.json lets transformers load, expected the weights as "
            "safetensors",
            hint="load the model with transformers and save it again with save_pretrained",
        )
    return config


def _from_pretrained(folder: Path, settings: dict[str, Any]) -> tuple[PreTrainedModel, str]:
    """Returns the model in float32 and eval mode, and the dtype of its file."""
    import transformers

    architecture = settings["architectures"][0]
    loader: Any = getattr(transformers, architecture)
    try:
        stored = stored_tensors(weight_files(str(folder), local_only=True))
        dtype = narrowest_dtype(stored)
        model, info = loader.from_pretrained(
            str(folder),
            config=_model_config(loader, settings, stored),
            output_loading_info=True,
            dtype="float32",
            use_safetensors=True,
            local_files_only=True,
            trust_remote_code=False,
        )
    except Exception as error:  # whatever transformers and safetensors raise for a damaged file
        raise DeltaError(
            f"the checkpoint in {folder} cannot be loaded: {first_line(error)}", hint="copy it or save it again"
        ) from error
    _check_names(folder, architecture, info["missing_keys"], info["unexpected_keys"])
    return model.float().eval().requires_grad_(False), dtype


def _model_config(loader: Any, settings: dict[str, Any], stored: dict[str, StoredTensor]) -> Any:
    """Returns the settings as transformers takes them, with as many labels as the head has outputs."""
    known = {name: value for name, value in settings.items() if name not in _TASK_SETTINGS}
    body = f"{loader.base_model_prefix}."
    outputs = [each.shape[0] for name, each in stored.items() if is_classifier(name) and not name.startswith(body)]
    config = loader.config_class.from_dict(known | ({"num_labels": outputs[0]} if outputs else {}))
    # The name of a repository there would make transformers fetch and run its code.
    config._attn_implementation = None
    return config


def _check_names(folder: Path, architecture: str, missing: set[str], unread: set[str]) -> None:
    if missing:
        wrapper, hint = explain_missing(missing, unread, "copy it or save it again with save_pretrained")
        raise DeltaError(
            f"{folder} lacks {_shown(missing)} of {architecture}, expected all its tensors{wrapper}", hint=hint
        )
    # A pooler that the class leaves out came with the base model's file; any other tensor was meant to be used.
    others = [name for name in unread if ".pooler." not in name]
    if others:
        raise DeltaError(f"{folder} has {_shown(others)}, which {architecture} does not read")


def _shown(names: Any) -> str:
    ordered = sorted(names)
    return ", ".join(ordered[:3]) + (f" and {len(ordered) - 3} more tensors" if len(ordered) > 3 else "")
