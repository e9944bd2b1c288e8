"""Adapters (Houlsby et al., 2019): small bottleneck networks inside each layer of a frozen model."""

from __future__ import annotations

import itertools

import torch
from torch import nn

from bitfit_export.errors import BaseModelError
from bitfit_export.reference.task_model import TaskModel
from bitfit_export.training.methods.base import Method, readable_parameters

__all__ = ["Adapter", "Adapters", "residual_outputs"]

#: Of a truncated normal distribution, so that an adapter starts close to the identity (section 3.6 of the paper).
_INITIAL_STD = 0.01


class Adapter(nn.Module):
    """`x + up(gelu(down(x)))` on the last dimension, which is `width`; nearly `x` at first."""

    def __init__(self, width: int, size: int) -> None:
        super().__init__()
        self.down = nn.Linear(width, size)
        self.up = nn.Linear(size, width)
        for layer in (self.down, self.up):
            nn.init.trunc_normal_(layer.weight, std=_INITIAL_STD, a=-2 * _INITIAL_STD, b=2 * _INITIAL_STD)
            nn.init.zeros_(layer.bias)

    def forward(self, values: torch.Tensor) -> torch.Tensor:
        change: torch.Tensor = self.up(nn.functional.gelu(self.down(values)))
        return values + change


class Adapters(Method):
    """Two adapters a layer, on what attention and feed-forward network add to the residual stream.

    They and the model's normalisations are trained. An adapter is a child `adapter` of the linear layer whose output
    it works on, so no parameter of the base changes its name. (In the paper dropout comes before the adapter, not
    after it.)
    """

    def prepare(self, model: TaskModel) -> None:
        base = model.base.requires_grad_(False)
        for name, width in residual_outputs(base).items():
            layer = base.get_submodule(name)
            layer.add_module("adapter", Adapter(width, self.settings.adapter_size))
            layer.register_forward_hook(_adapt)
        readable = readable_parameters(model)
        for name, part in base.named_modules():
            if _is_norm(part):
                for leaf, parameter in part.named_parameters(prefix=name):
                    parameter.requires_grad_(leaf in readable)


def _adapt(layer: nn.Module, inputs: object, output: torch.Tensor) -> torch.Tensor:
    adapter = layer.get_submodule("adapter")
    return adapter(output)  # type: ignore[no-any-return]


def residual_outputs(base: nn.Module) -> dict[str, int]:
    """The linear layers whose output joins the residual stream, and how wide that is.

    These are the ones that are followed by a normalisation when the model runs, whether the family normalises after
    the sum, as BERT, or before the next block, as GPT-2. So they are found by running the model once.

    Raises:
        BaseModelError: there is none.
    """
    ran: list[tuple[str, nn.Module, int]] = []

    def note(name: str, part: nn.Module) -> torch.utils.hooks.RemovableHandle:
        return part.register_forward_hook(lambda _, __, output: ran.append((name, part, output.shape[-1])))

    hooks = [note(name, part) for name, part in base.named_modules() if _is_linear(part) or _is_norm(part)]
    was_training = base.training
    device = next(base.parameters()).device
    try:
        with torch.no_grad():
            base.eval()(torch.zeros((1, 4), dtype=torch.long, device=device))
    finally:
        base.train(was_training)
        for hook in hooks:
            hook.remove()
    found = {
        name: width
        for (name, part, width), (_, after, _) in itertools.pairwise(ran)
        if _is_linear(part) and _is_norm(after)
    }
    if not found:
        raise BaseModelError("the base model has no linear layer before a normalisation, so no place for an adapter")
    return found


def _is_norm(part: nn.Module) -> bool:
    """A normalisation is what has a weight of one dimension, whatever its class is called."""
    weight = getattr(part, "weight", None)
    return isinstance(weight, nn.Parameter) and weight.ndim == 1


def _is_linear(part: nn.Module) -> bool:
    """A linear layer, or GPT-2's transposed one."""
    weight = getattr(part, "weight", None)
    return isinstance(weight, nn.Parameter) and weight.ndim == 2 and not isinstance(part, nn.Embedding)
