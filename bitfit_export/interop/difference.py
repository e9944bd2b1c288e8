"""The difference of a fine-tuned model to its base model: tensor by tensor, to the bit."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

from bitfit_export.base_model.bias_terms import is_bias_term
from bitfit_export.base_model.loading import BaseModel
from bitfit_export.errors import DeltaError
from bitfit_export.interop.reading import Checkpoint
from bitfit_export.interop.task_classes import split_state

if TYPE_CHECKING:
    import torch

__all__ = ["Difference", "TensorChange", "check_only_biases", "compare_with_base"]

BIAS_TERM = "bias term"
WEIGHT = "weight"
OTHER_SHAPE = "other shape"
MISSING = "missing"

_SHOWN = 3


@dataclass(frozen=True)
class TensorChange:
    """A tensor of the base model that is another one in the fine-tuned model.

    Attributes:
        name: in the base model's state dict.
        kind: `bias term`, `weight`, `other shape` or `missing`.
        shape: in the fine-tuned model; in the base model where it is missing.
        largest, mean: of the absolute difference; None where there is none to speak of: another shape, a NaN.
    """

    name: str
    kind: str
    shape: tuple[int, ...]
    largest: float | None = None
    mean: float | None = None


@dataclass(frozen=True)
class Difference:
    """All that distinguishes a fine-tuned model from its base.

    Attributes:
        changes: the tensors of the base model that changed, in its order.
        unchanged: how many did not.
        head: the shapes of the tensors that the base model does not have.
        rounded: the dtype of the file where every changed weight is the base's own, rounded to that dtype.
    """

    changes: tuple[TensorChange, ...]
    unchanged: int
    head: dict[str, tuple[int, ...]]
    rounded: str | None = None

    @property
    def weights(self) -> tuple[TensorChange, ...]:
        """The changes of anything but bias terms."""
        return tuple(change for change in self.changes if change.kind != BIAS_TERM)


def compare_with_base(base: BaseModel, checkpoint: Checkpoint) -> Difference:
    """Compare every tensor of `base` with the checkpoint's."""
    body, head = split_state(checkpoint.model, base)
    expected = base.module.state_dict()
    # A class that reads no pooler has none; a bias that `add_biases` made up is in no file.
    compared = [name for name in expected if name in body or not (_is_pooler(name) or name in base.added_biases)]
    found = {name: _change(name, expected[name], body.get(name)) for name in compared}
    changes = tuple(change for change in found.values() if change is not None)
    return Difference(
        changes,
        len(found) - len(changes),
        {name: tuple(value.shape) for name, value in head.items()},
        checkpoint.dtype if _is_rounding(changes, checkpoint.dtype, expected, body) else None,
    )


def check_only_biases(difference: Difference, checkpoint: Checkpoint) -> None:
    """Refuse a checkpoint in which anything but bias terms and the head changed.

    Raises:
        DeltaError: with the number of changed weights, the first names and how much they changed.
    """
    weights = difference.weights
    if not weights:
        return
    listed = "; ".join(_text(change) for change in weights[:_SHOWN])
    more = f"; and {len(weights) - _SHOWN} more" if len(weights) > _SHOWN else ""
    if difference.rounded:
        raise DeltaError(
            f"{checkpoint.folder} was saved in {difference.rounded}, which rounded {len(weights)} weights of the base "
            f"model, expected them to the bit: {listed}{more}",
            hint="fine-tune and save with dtype float32; training under bfloat16 autocast keeps float32 weights",
        )
    raise DeltaError(
        f"{len(weights)} tensors of {checkpoint.folder} ({checkpoint.dtype}) besides bias terms and the head differ "
        f"from the base model's, expected none: {listed}{more}",
        hint="only a fine-tuning of the biases becomes a row; bitfit diff BASE CHECKPOINT lists every tensor",
    )


def _text(change: TensorChange) -> str:
    if change.largest is not None:
        return f"{change.name} by up to {change.largest:.3g}"
    return f"{change.name} ({change.kind}{'' if change.kind == MISSING else f' {change.shape}'})"


def _is_pooler(name: str) -> bool:
    return name.startswith("pooler.")


def _change(name: str, ours: torch.Tensor, theirs: torch.Tensor | None) -> TensorChange | None:
    import torch

    if theirs is None:
        return TensorChange(name, MISSING, tuple(ours.shape))
    if ours.shape != theirs.shape:
        return TensorChange(name, OTHER_SHAPE, tuple(theirs.shape))
    # As bytes: -0.0 is another weight than 0.0, and a NaN the same one as itself.
    if torch.equal(ours.reshape(-1).view(torch.uint8), theirs.reshape(-1).view(torch.uint8)):
        return None
    kind = BIAS_TERM if is_bias_term(name) else WEIGHT
    difference = (theirs.double() - ours.double()).abs()
    if not difference.isfinite().all():
        return TensorChange(name, kind, tuple(ours.shape))
    return TensorChange(name, kind, tuple(ours.shape), float(difference.max()), float(difference.mean()))


def _is_rounding(
    changes: tuple[TensorChange, ...], dtype: str, expected: dict[str, torch.Tensor], body: dict[str, torch.Tensor]
) -> bool:
    """Whether every changed weight is what the base model's becomes in `dtype`."""
    import torch

    weights = [change for change in changes if change.kind != BIAS_TERM]
    if dtype == "float32" or not weights or any(change.largest is None for change in weights):
        return False
    rounded = getattr(torch, dtype)
    return all(torch.equal(expected[each.name].to(rounded).float(), body[each.name]) for each in weights)
