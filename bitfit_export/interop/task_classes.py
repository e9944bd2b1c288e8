"""The wiring of transformers' task classes, and the names of their tensors in a delta.

A head in a delta is `classifier(pooled)` or `classifier(activation(dense(pooled)))`. What a class reads, and what it
applies, its tensors do not say; that goes by the family, `task_model.default_head`. Nothing rests on it alone: an
import and a merge compare the logits of both models.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from bitfit_export.base_model.loading import BaseModel
from bitfit_export.delta import ACTIVATIONS, TOKENS
from bitfit_export.errors import DeltaError, UsageError

if TYPE_CHECKING:
    import torch
    from transformers import PreTrainedModel

__all__ = [
    "Wiring",
    "check_architecture",
    "head_names",
    "is_classifier",
    "labels_of",
    "new_task_model",
    "problem_type_of",
    "split_state",
    "wiring",
]

#: The ends of the names of transformers' task classes, and the kind of task that each does.
_KINDS = {
    "ForSequenceClassification": "sentence",
    "ForImageClassification": "sentence",
    "ForAudioClassification": "sentence",
    "ForTokenClassification": "token",
    "ForQuestionAnswering": "span",
}


@dataclass(frozen=True)
class Wiring:
    """A head's pooling and the activation between its layers, in the words of `DeltaConfig`."""

    pooling: str
    activation: str | None = None

    def __str__(self) -> str:
        layers = "one linear layer" if self.activation is None else f"a dense layer with {self.activation}"
        return f"pooling {self.pooling} and {layers}"


#: How many ids an error lists.
_SHOWN_IDS = 8

#: What transformers calls the last layer of a head.
_LAST_LAYERS = frozenset({"classifier", "out_proj", "score", "qa_outputs"})

#: Problem type in transformers -> in a delta.
_PROBLEM_TYPES = {
    "regression": "regression",
    "single_label_classification": "single_label",
    "multi_label_classification": "multi_label",
}

#: The families whose config names the activation of the head's dense layer, and the setting that does.
_ACTIVATION_SETTINGS = {
    "deberta": "pooler_hidden_act",
    "deberta-v2": "pooler_hidden_act",
    "convbert": "hidden_act",
    "nystromformer": "hidden_act",
}

#: The last module in a head tensor's name -> the layer of a delta's head.
_LAYERS = {
    "dense": "dense",
    "pre_classifier": "dense",
    "projector": "dense",
    "pooler": "dense",  # ALBERT's, where the base model has none
    "classifier": "classifier",
    "out_proj": "classifier",
    "score": "classifier",
    "qa_outputs": "classifier",
}


def check_architecture(folder: Path, architecture: str) -> None:
    """Refuse a class that transformers does not have, or that has no head for a task.

    Raises:
        DeltaError: with the name of the class.
    """
    import transformers

    if _kind(architecture) is None or not hasattr(transformers, architecture):
        raise DeltaError(
            f"{folder} is a {architecture}, expected a class of transformers with a head: "
            f"{', '.join('...' + end for end in _KINDS)}",
            hint="only a fine-tuned classifier, regression, token classifier or span model is a task",
        )


def wiring(model: PreTrainedModel, base: BaseModel) -> Wiring:
    """What the head of `model` reads and applies: what transformers gives the family, and its config.

    Raises:
        DeltaError: an activation that is not known, or tensors that such a head does not have.
    """
    from bitfit_export.reference.task_model import default_head

    if _kind(type(model).__name__) != "sentence":
        return Wiring(TOKENS)
    config: Any = model.config
    pooling, activation = default_head(base.module)
    if config.model_type in _ACTIVATION_SETTINGS:
        activation = getattr(config, _ACTIVATION_SETTINGS[config.model_type])
    tensors = split_state(model, base)[1]
    has_dense = "dense.weight" in head_names(tensors).values()
    if has_dense != (activation is not None) or activation not in (None, *ACTIVATIONS):
        raise DeltaError(
            f"the head of {type(model).__name__} with the tensors {', '.join(tensors)} and the activation {activation} "
            "is not known",
            hint=f"expected one linear layer, or a dense layer with {', '.join(ACTIVATIONS)} and a linear one",
        )
    return Wiring(pooling, activation)


def split_state(model: PreTrainedModel, base: BaseModel) -> tuple[dict[str, torch.Tensor], dict[str, torch.Tensor]]:
    """The tensors of `model` that the base model has, under the base's names, and all others: the head."""
    prefix = f"{model.base_model_prefix}."
    known = base.module.state_dict().keys()
    body: dict[str, torch.Tensor] = {}
    head: dict[str, torch.Tensor] = {}
    for name, value in model.state_dict().items():
        inner = name.removeprefix(prefix)
        if name.startswith(prefix) and inner in known:
            body[inner] = value
        else:
            head[name] = value
    return body, head


def head_names(names: Iterable[str]) -> dict[str, str]:
    """Tensor name in transformers -> name in a delta's head.

    Raises:
        DeltaError: not the tensors of one linear layer, or of a dense layer and a linear one.
    """
    found = list(names)
    renamed: dict[str, str] = {}
    for name in found:
        module, _, kind = name.rpartition(".")
        layer = _LAYERS.get(module.rpartition(".")[2])
        if layer is not None and kind in ("weight", "bias"):
            renamed[name] = f"{layer}.{kind}"
    ours = sorted(renamed.values())
    plain, dense = ["classifier.bias", "classifier.weight"], ["dense.bias", "dense.weight"]
    # GPT-2's score has no bias.
    if len(renamed) != len(found) or ours not in (plain, plain[1:], plain + dense):
        raise DeltaError(
            f"a head with the tensors {', '.join(found)} is not known",
            hint="expected one linear layer, or a dense layer and a linear one",
        )
    return renamed


def is_classifier(name: str) -> bool:
    """Returns whether this is the weight of a head's last layer: its first dimension is the number of outputs."""
    module, _, kind = name.rpartition(".")
    return kind == "weight" and module.rpartition(".")[2] in _LAST_LAYERS


def problem_type_of(model: PreTrainedModel, named: Any, wanted: str | None = None) -> str:
    """Returns the problem type in a delta's words. Where nothing names one, one output is a regression.

    Args:
        named: the `problem_type` of the checkpoint's config.json, if it has one.
        wanted: the one to use instead.

    Raises:
        DeltaError: one that is not known, or that does not go with the number of outputs.
        UsageError: `wanted` for a token or span task, or one that does not go with the number of outputs.
    """
    kind = _kind(type(model).__name__)
    if kind in ("token", "span"):
        if wanted is not None:
            raise UsageError(f"--problem-type is {wanted}, but {type(model).__name__} does a {kind} task")
        return str(kind)
    outputs = int(model.config.num_labels)
    problem = wanted or _PROBLEM_TYPES.get(str(named))
    if problem is None and named is not None:
        raise DeltaError(
            f"problem_type is {str(named)[:100]!r} in config.json, expected one of {', '.join(_PROBLEM_TYPES)}",
            hint="name it: bitfit diff ... --problem-type multi_label",
        )
    problem = problem or ("regression" if outputs == 1 else "single_label")
    error = DeltaError if wanted is None else UsageError
    if problem == "regression" and outputs != 1:
        raise error(f"a regression with {outputs} outputs, expected one")
    if problem == "single_label" and outputs == 1:
        raise error(
            "a classification into one of several labels with one output, expected two or more",
            hint="--problem-type multi_label makes its score a sigmoid, regression takes the output as it is",
        )
    return problem


def labels_of(model: PreTrainedModel, named: Any) -> tuple[str, ...]:
    """Returns label names in the order of the outputs.

    Args:
        named: the `id2label` of the checkpoint's config.json, if it has one.

    Raises:
        DeltaError: it does not name each output.
    """
    if _kind(type(model).__name__) == "span":
        return ("start", "end")
    outputs = int(model.config.num_labels)
    if named is None:
        return tuple(f"LABEL_{number}" for number in range(outputs))
    names = {str(number): str(name) for number, name in named.items()} if isinstance(named, dict) else {}
    wanted = [str(number) for number in range(outputs)]
    if set(names) != set(wanted):
        found = ", ".join(list(names)[:_SHOWN_IDS]) + (", ..." if len(names) > _SHOWN_IDS else "")
        raise DeltaError(
            f"id2label in config.json names the ids {found[:100]!r}, but the head has {outputs} outputs, expected "
            f"the ids 0 to {outputs - 1}",
            hint="name the labels in the order of the outputs: bitfit diff ... --labels A,B,...",
        )
    return tuple(names[number] for number in wanted)


def new_task_model(base: BaseModel, kind: str, config: Any) -> PreTrainedModel:
    """A model of the task class that transformers has for this family, in eval mode; its weights mean nothing yet.

    Args:
        kind: `sentence`, `token` or `span`.
        config: the base model's, with the task's labels.

    Raises:
        DeltaError: transformers has no such class.
    """
    import transformers

    loaders = {
        ("text", "sentence"): transformers.AutoModelForSequenceClassification,
        ("text", "token"): transformers.AutoModelForTokenClassification,
        ("text", "span"): transformers.AutoModelForQuestionAnswering,
        ("image", "sentence"): transformers.AutoModelForImageClassification,
        ("audio", "sentence"): transformers.AutoModelForAudioClassification,
    }
    try:
        model: PreTrainedModel = loaders[base.modality, kind].from_config(config, trust_remote_code=False)
    except (KeyError, ValueError) as error:
        raise DeltaError(f"transformers has no class for a {kind} task on {config.model_type}") from error
    return model.float().eval().requires_grad_(False)


def _kind(architecture: str) -> str | None:
    return next((kind for end, kind in _KINDS.items() if architecture.endswith(end)), None)
