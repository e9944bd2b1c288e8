"""The BitFit paper's question whether biases are special: as many parameters as BitFit has, but chosen at random."""

from __future__ import annotations

from abc import abstractmethod

import numpy as np
import torch
from torch import nn

from bitfit_export.errors import BaseModelError
from bitfit_export.reference.task_model import TaskModel
from bitfit_export.training.methods.base import Method, bake, put_over, readable_parameters
from bitfit_export.training.methods.subsets import bias_budget

__all__ = ["RandRowCol", "RandUniform"]


class _Entries(nn.Module):
    """Some entries of a frozen tensor as parameters of their own.

    Attributes:
        indices: [entries], of the flattened tensor, all different.
        values: [entries].
    """

    indices: torch.Tensor

    def __init__(self, original: torch.Tensor, indices: np.ndarray) -> None:
        super().__init__()
        self.register_buffer("indices", torch.from_numpy(indices))
        self.values = nn.Parameter(original.detach().flatten()[self.indices])

    def forward(self, original: torch.Tensor) -> torch.Tensor:
        return original.flatten().index_put((self.indices,), self.values).view_as(original)


class _RandomEntries(Method):
    """Trains entries of the base's parameters. Which ones depends on the seed alone."""

    def prepare(self, model: TaskModel) -> None:
        model.base.requires_grad_(False)
        self._put_over: list[str] = []
        chosen = self._choose(model, np.random.default_rng(self.settings.seed))
        for name, indices in chosen.items():
            parameter = model.base.get_parameter(name)
            if len(indices) == parameter.numel():
                parameter.requires_grad_(True)
            elif len(indices):
                put_over(model.base, name, _Entries(parameter, np.sort(indices)))
                self._put_over.append(name)

    @abstractmethod
    def _choose(self, model: TaskModel, random: np.random.Generator) -> dict[str, np.ndarray]:
        """Indices into each flattened parameter, as many in all as BitFit trains values."""

    def finish(self, model: TaskModel) -> int:
        trained = super().finish(model)
        for name in self._put_over:
            bake(model.base, name)
        return trained


class RandUniform(_RandomEntries):
    """Entries drawn from the whole base model, each with the same chance ("rand uniform")."""

    def _choose(self, model: TaskModel, random: np.random.Generator) -> dict[str, np.ndarray]:
        parameters = readable_parameters(model)
        ends = np.cumsum([parameter.numel() for parameter in parameters.values()])
        chosen = np.sort(random.choice(ends[-1], sum(bias_budget(model).values()), replace=False, shuffle=False))
        parts = np.split(chosen, np.searchsorted(chosen, ends[:-1]))
        starts = (0, *ends[:-1])
        return {name: part - start for name, part, start in zip(parameters, parts, starts, strict=True)}


class RandRowCol(_RandomEntries):
    """Whole rows or columns of the weight beside each bias term, as many values as the bias has ("rand row/col").

    As in the paper's own code: of a matrix [out, in] one column, or `out / in` rows where that comes out even; of a
    LayerNorm the whole weight. A bias term that has no weight beside it (DeBERTa's `q_bias`) takes its share of a
    matrix below it that has no bias.
    """

    def _choose(self, model: TaskModel, random: np.random.Generator) -> dict[str, np.ndarray]:
        parameters = readable_parameters(model)
        budget = bias_budget(model)
        shares: dict[str, int] = {}
        for bias, size in budget.items():
            weight = _weight_of(bias, parameters)
            shares[weight] = shares.get(weight, 0) + size
        return {name: _lines(name, parameters[name].shape, size, random) for name, size in shares.items()}


def _weight_of(bias: str, parameters: dict[str, nn.Parameter]) -> str:
    owner = bias.rpartition(".")[0]
    weight = f"{owner}.weight"
    if weight in parameters:
        return weight
    for name, parameter in parameters.items():
        if name.startswith(f"{owner}.") and parameter.ndim == 2 and f"{name.rpartition('.')[0]}.bias" not in parameters:
            return name
    raise BaseModelError(f"the bias term {bias} has no weight beside it whose rows or columns could be trained")


def _lines(name: str, shape: torch.Size, size: int, random: np.random.Generator) -> np.ndarray:
    """Indices into the flattened weight: some whole rows or columns that have `size` values together."""
    indices = np.arange(shape.numel()).reshape(shape[0], -1)
    if size == indices.size:
        return indices.flatten()
    ways = [lines for lines in (indices, indices.T) if size % lines.shape[1] == 0 and size <= lines.size]
    if not ways:
        raise BaseModelError(f"no rows or columns of {name} [{'x'.join(map(str, shape))}] have {size} values together")
    lines = ways[random.integers(len(ways))]
    return lines[random.choice(len(lines), size // lines.shape[1], replace=False)].flatten()
