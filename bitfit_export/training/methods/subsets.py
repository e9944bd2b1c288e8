"""Methods that train some of the base model's parameters as they are: bias terms, none, all."""

from __future__ import annotations

from collections.abc import Iterable

from bitfit_export.base_model.bias_terms import select_bias_terms
from bitfit_export.errors import BaseModelError
from bitfit_export.reference.task_model import TaskModel
from bitfit_export.training.methods.base import Method, readable_parameters

__all__ = ["BitFit", "Frozen", "Full", "bias_budget"]


class BitFit(Method):
    """The bias terms, or those of them that the settings name (Ben Zaken et al., 2022)."""

    def prepare(self, model: TaskModel) -> None:
        _train(model, _bias_terms(model, self.settings.bias_terms))


class Frozen(Method):
    """Nothing but the head."""

    def prepare(self, model: TaskModel) -> None:
        _train(model, ())


class Full(Method):
    """Everything."""

    dense = True

    def prepare(self, model: TaskModel) -> None:
        _train(model, readable_parameters(model))


def bias_budget(model: TaskModel) -> dict[str, int]:
    """The size of each bias term that BitFit would train."""
    parameters = readable_parameters(model)
    return {name: parameters[name].numel() for name in _bias_terms(model, ())}


def _bias_terms(model: TaskModel, wanted: tuple[str, ...]) -> tuple[str, ...]:
    chosen = select_bias_terms(readable_parameters(model), wanted)
    if not chosen:
        raise BaseModelError(
            "the base model has no bias terms, so there is nothing for BitFit to train",
            hint="choose a model with biases, such as BERT",
        )
    return chosen


def _train(model: TaskModel, names: Iterable[str]) -> None:
    trained = set(names)
    for name, parameter in model.base.named_parameters():
        parameter.requires_grad_(name in trained)
