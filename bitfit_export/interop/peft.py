"""PEFT adapters that change biases alone: BEFT, and LoRA and its like trained with `bias="all"`.

PEFT is not needed to read one: `adapter_config.json` says what it is, `adapter_model.safetensors` has the tensors,
under `base_model.model.<name in the model>`. A `beft_bias` [1, out] is added to a layer's bias; a `bias` is the bias,
whole.
"""

from __future__ import annotations

import copy
import json
from pathlib import Path
from typing import TYPE_CHECKING, Any

from bitfit_export.base_model.loading import BaseModel
from bitfit_export.base_model.weight_files import wrapper_in
from bitfit_export.errors import BaseMismatchError, DeltaError
from bitfit_export.interop.task_classes import check_architecture, is_classifier, new_task_model, split_state

if TYPE_CHECKING:
    import torch
    from transformers import PreTrainedModel

__all__ = ["ADAPTER_CONFIG", "ADAPTER_WEIGHTS", "apply_adapter"]

ADAPTER_CONFIG = "adapter_config.json"
ADAPTER_WEIGHTS = "adapter_model.safetensors"

_PREFIX = "base_model.model."
_TASK_KINDS = {"SEQ_CLS": "sentence", "TOKEN_CLS": "token", "QUESTION_ANS": "span"}
#: What PEFT puts between a layer's name and its tensor's when it wraps the layer.
_WRAPPERS = frozenset({"base_layer", "modules_to_save"})
#: LoRA's two matrices. Training starts with one of them at zero: B, but A where the layer is an embedding.
_LORA_PAIRS = (frozenset({"lora_A", "lora_B"}), frozenset({"lora_embedding_A", "lora_embedding_B"}))
#: A head as it was before training, which bias="all" stores besides the trained one.
_UNTRAINED = "original_module"


def apply_adapter(base: BaseModel, folder: Path) -> PreTrainedModel:
    """A copy of `base` with the adapter's head and the biases as the adapter has them, in float32 and eval mode.

    Raises:
        DeltaError: a file that is damaged, an adapter that changes more than biases, or one without its head.
        BaseMismatchError: an adapter of another base model, as far as its config says.
    """
    config = _read_config(folder / ADAPTER_CONFIG)
    _check_base_name(base, config.get("base_model_name_or_path"))
    tensors = _read_tensors(folder)
    model = _model_of(base, folder, config, tensors)
    body, head = split_state(model, base)
    for name, value in base.module.state_dict().items():
        if name in body:
            body[name].copy_(value)
    _apply(folder, model, tensors)
    _check_biases(folder, config, model, tensors)
    missing = sorted(head.keys() - tensors.keys())
    if missing:
        raise DeltaError(
            f"the adapter in {folder} lacks {missing[0]} of the head, which was made up at random in training",
            hint="train again with the head's modules in modules_to_save",
        )
    return model


def _read_config(path: Path) -> dict[str, Any]:
    try:
        config = json.loads(path.read_text(encoding="utf-8"))
    except OSError as error:
        raise DeltaError(f"{path} cannot be read: {error.strerror}") from error
    except (ValueError, RecursionError) as error:
        raise DeltaError(f"{path} is not valid JSON: {error}", hint="copy the adapter again") from error
    if not isinstance(config, dict) or "peft_type" not in config:
        raise DeltaError(f"{path} has no peft_type, expected the configuration of a PEFT adapter")
    return config


def _check_base_name(base: BaseModel, recorded: Any) -> None:
    """Compare Hub ids; a local folder's name says nothing, and the owner has not always been part of an id."""
    ours = base.source.name
    if not isinstance(recorded, str) or "/" not in ours or recorded.count("/") > 1 or recorded.startswith((".", "/")):
        return
    if recorded.rpartition("/")[2].casefold() != ours.rpartition("/")[2].casefold():
        raise BaseMismatchError(
            f"the adapter was trained on {recorded}, but the base model is {ours}", hint=f"pass --model {recorded}"
        )


def _read_tensors(folder: Path) -> dict[str, torch.Tensor]:
    """The adapter's tensors under the names that they have in the model, without PEFT's wrappers."""
    from safetensors.torch import load

    path = folder / ADAPTER_WEIGHTS
    try:
        stored = load(path.read_bytes())
    except OSError as error:
        raise DeltaError(
            f"{path} cannot be read: {error.strerror}", hint="expected an adapter that PEFT saved as safetensors"
        ) from error
    except Exception as error:  # safetensors raises its own error type, or KeyError for an unknown dtype
        raise DeltaError(f"{path} is not a valid safetensors file: {error}", hint="copy the adapter again") from error
    tensors = {}
    wrapper = wrapper_in(stored)
    if wrapper is not None:
        raise DeltaError(
            f"the adapter in {folder} has {wrapper}, expected the names of the model itself",
            hint="take the model out of its wrapper, and save the adapter again",
        )
    for name, value in stored.items():
        components = name.removeprefix(_PREFIX).split(".")
        if _UNTRAINED not in components:
            tensors[".".join(each for each in components if each not in _WRAPPERS)] = value.float()
    return tensors


def _model_of(
    base: BaseModel, folder: Path, config: dict[str, Any], tensors: dict[str, torch.Tensor]
) -> PreTrainedModel:
    """A model of the class that the adapter was trained on, with as many labels as its head has."""
    import transformers

    model_config: Any = copy.deepcopy(base.module.config)
    outputs = [value.shape[0] for name, value in tensors.items() if is_classifier(name)]
    if not outputs:
        raise DeltaError(
            f"the adapter in {folder} has no head, expected a classifier among its tensors",
            hint="train it with a task_type such as SEQ_CLS, or with modules_to_save",
        )
    model_config.num_labels = outputs[0]
    named = config.get("auto_mapping")
    if isinstance(named, dict):
        architecture = str(named.get("base_model_class"))
        check_architecture(folder, architecture)
        made: Any = getattr(transformers, architecture)
        if made.config_class is not type(model_config):
            raise BaseMismatchError(
                f"the adapter in {folder} is for a {architecture}, but {base.source.name} is of type "
                f"{model_config.model_type}",
                hint="name the base model that it was trained on",
            )
        model: PreTrainedModel = made(model_config)
        return model.float().eval().requires_grad_(False)
    if config.get("task_type") not in _TASK_KINDS:
        raise DeltaError(
            f"the adapter in {folder} has the task_type {config.get('task_type')}, expected one of "
            f"{', '.join(_TASK_KINDS)}"
        )
    return new_task_model(base, _TASK_KINDS[config["task_type"]], model_config)


def _apply(folder: Path, model: PreTrainedModel, tensors: dict[str, torch.Tensor]) -> None:
    state = model.state_dict()
    for name, value in tensors.items():
        module, _, kind = name.rpartition(".")
        if kind == "beft_bias":
            if f"{module}.bias" not in state:
                raise DeltaError(f"the adapter in {folder} adds a bias to {module}, which has none")
            state[f"{module}.bias"].add_(_fitting(folder, name, value.reshape(-1), state[f"{module}.bias"]))
        elif name in state:
            state[name].copy_(_fitting(folder, name, value, state[name]))
        elif not _does_nothing(name, tensors):
            raise DeltaError(
                f"the adapter in {folder} changes weights through {name}, expected only biases and the head",
                hint="train with PEFT's BEFT, or with bitfit-train",
            )


def _check_biases(
    folder: Path, config: dict[str, Any], model: PreTrainedModel, tensors: dict[str, torch.Tensor]
) -> None:
    """Refuse an adapter without the biases that its config says were trained; some releases of PEFT left them out."""
    if config["peft_type"] == "BEFT":
        if not any(name.endswith(".beft_bias") for name in tensors):
            raise DeltaError(
                f"the adapter in {folder} is of the type BEFT, but has no beft_bias, expected one per trained layer",
                hint="copy the adapter again, or train it again",
            )
        return
    trained = str(config.get("bias") or "none")
    if trained == "none":
        return
    prefix = f"{model.base_model_prefix}."
    expected = [name for name in model.state_dict() if name.startswith(prefix) and name.endswith(".bias")]
    if trained != "all":  # the biases of the layers that the adapter wraps: "lora_only", "boft_only" and so on
        wrapped = {f"{layer}.bias" for name in tensors for layer in _modules_around(name)}
        expected = [name for name in expected if name in wrapped]
    lost = [name for name in expected if name not in tensors]
    if lost or not expected:
        found = f"lacks {len(lost)} of their {len(expected)} biases, the first is {lost[0]}" if lost else "has none"
        raise DeltaError(
            f"the config of the adapter in {folder} says that biases were trained (bias is {trained[:100]!r}), but its "
            f"file {found}",
            hint="some releases of PEFT do not save them with lora_only; train again with bias='all', or with BEFT",
        )


def _modules_around(name: str) -> list[str]:
    """Returns the modules in which a tensor is, the innermost first."""
    parts = name.split(".")[:-1]
    return [".".join(parts[:end]) for end in range(len(parts), 0, -1)]


def _fitting(folder: Path, name: str, value: torch.Tensor, target: torch.Tensor) -> torch.Tensor:
    if value.shape != target.shape:
        raise DeltaError(
            f"the adapter in {folder} has {name} of shape {tuple(value.shape)}, expected {tuple(target.shape)}",
            hint="name the base model that it was trained on",
        )
    return value


def _does_nothing(name: str, tensors: dict[str, torch.Tensor]) -> bool:
    """Returns whether this is one of LoRA's matrices A and B, and their product is zero because one of them is."""
    components = name.split(".")
    for pair in _LORA_PAIRS:
        if pair & set(components):
            both = [".".join(matrix if each in pair else each for each in components) for matrix in pair]
            return all(each in tensors for each in both) and not all(tensors[each].any() for each in both)
    return False
