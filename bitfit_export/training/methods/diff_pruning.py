"""Diff pruning (Guo, Rush and Kim, 2021): a difference to every parameter, which learns to be sparse.

A parameter is `w_0 + z * z_g * d`. The gates `z`, one for each entry, and `z_g`, one for each tensor, are drawn from a
hard concrete distribution (Louizos et al., 2018) whose place `log_alpha` is learnt; their expected number of open
gates, the L0 norm, is added to the loss. In the second half of the epochs only the largest entries of the difference
are kept, as many as the settings say, and trained on without gates.
"""

from __future__ import annotations

import math
from typing import Any

import torch
from torch import nn

from bitfit_export.reference.task_model import TaskModel
from bitfit_export.training.methods.base import Method, bake, put_over, readable_parameters

__all__ = ["DiffPruning"]

# The values of the paper and of its code.
_LOWER, _UPPER = -1.5, 1.5
_INITIAL_LOG_ALPHA = 5.0
_GATE_LEARNING_RATE = 0.1


class _Difference(nn.Module):
    """The trained difference of one tensor.

    A gate whose `log_alpha` is infinite is open or closed for good, so which entries were kept is in the checkpoints.

    Attributes:
        settled: whether entries have been chosen; then the gates are not trained any more.
    """

    def __init__(self, original: torch.Tensor) -> None:
        super().__init__()
        self.difference = nn.Parameter(torch.zeros_like(original))
        self.log_alpha = nn.Parameter(torch.full_like(original, _INITIAL_LOG_ALPHA))
        self.group_log_alpha = nn.Parameter(torch.tensor(_INITIAL_LOG_ALPHA, device=original.device))
        self.settled = False

    def forward(self, original: torch.Tensor) -> torch.Tensor:
        return original + self.gated()

    def gated(self) -> torch.Tensor:
        """The difference behind its gates; in eval mode behind the middle of what is drawn."""
        if self.settled:
            return torch.where(self.log_alpha > 0, self.difference, 0.0)
        gates = _gates(self.log_alpha, draw=self.training) * _gates(self.group_log_alpha, draw=self.training)
        return gates * self.difference

    def expected_open(self) -> torch.Tensor:
        """Equation 8 of the paper, with the tensor's own gate as one more."""
        shift = math.log(-_LOWER / _UPPER)
        return torch.sigmoid(self.log_alpha - shift).sum() + torch.sigmoid(self.group_log_alpha - shift)

    @torch.no_grad()
    def settle(self, kept: torch.Tensor) -> None:
        """Keep the difference where `kept` [as the tensor] is true."""
        self.difference.copy_(torch.where(kept, self.gated(), 0.0))
        self.log_alpha.copy_(torch.where(kept, math.inf, -math.inf))
        self.group_log_alpha.fill_(math.inf)
        self.settled = True


def _gates(log_alpha: torch.Tensor, *, draw: bool) -> torch.Tensor:
    """Hard concrete gates, each from 0 to 1."""
    if draw:
        # The logit of a uniform number; without its ends, where that is infinite.
        noise = torch.empty_like(log_alpha).uniform_(1e-6, 1 - 1e-6).logit_()
        log_alpha = log_alpha + noise
    return (torch.sigmoid(log_alpha) * (_UPPER - _LOWER) + _LOWER).clamp(0.0, 1.0)


class DiffPruning(Method):
    """See the module's text. Epochs before the entries are chosen cannot be the result."""

    dense = True

    def prepare(self, model: TaskModel) -> None:
        model.base.requires_grad_(False)
        self._parts: dict[str, _Difference] = {}
        for name, parameter in readable_parameters(model).items():
            self._parts[name] = _Difference(parameter)
            put_over(model.base, name, self._parts[name])

    def parameter_groups(self, model: TaskModel) -> list[dict[str, Any]]:
        gates = [gate for part in self._parts.values() for gate in (part.log_alpha, part.group_log_alpha)]
        others = {id(gate) for gate in gates}
        trained = [each for each in model.parameters() if each.requires_grad and id(each) not in others]
        return [{"params": trained}, {"params": gates, "lr": _GATE_LEARNING_RATE}]

    def penalty(self) -> torch.Tensor | None:
        if self._settled:
            return None
        return self.settings.l0_penalty * torch.stack([part.expected_open() for part in self._parts.values()]).sum()

    @property
    def first_choice(self) -> int:
        return (self.settings.epochs + 1) // 2 + 1 if self.settings.epochs > 1 else 1

    def begin_epoch(self, epoch: int) -> None:
        if epoch == self.first_choice and self.settings.epochs > 1:
            self._choose()
        for part in self._parts.values():
            # Of a run that resumes after the choice, the checkpoint has it.
            part.settled = epoch >= self.first_choice and self.settings.epochs > 1

    def finish(self, model: TaskModel) -> int:
        # Again, for a run that resumes after its last epoch, or has one epoch only: a choice once made is made again.
        kept = self._choose()
        for name in self._parts:
            bake(model.base, name)
        return kept

    @property
    def _settled(self) -> bool:
        return all(part.settled for part in self._parts.values())

    @torch.no_grad()
    def _choose(self) -> int:
        """Keep the entries of the largest difference in all tensors together; return how many that are."""
        size = torch.cat([part.eval().gated().abs().flatten() for part in self._parts.values()])
        count = max(1, round(self.settings.sparsity * len(size)))
        kept = torch.zeros(len(size), dtype=torch.bool, device=size.device)
        kept[size.topk(count).indices] = True
        start = 0
        for part in self._parts.values():
            end = start + part.difference.numel()
            part.settle(kept[start:end].view_as(part.difference))
            start = end
        return count
