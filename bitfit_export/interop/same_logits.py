"""The proof of an import and of a merge: transformers' model and the delta's give the same logits."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from bitfit_export.base_model.loading import BaseModel
from bitfit_export.delta import TaskDelta
from bitfit_export.errors import DeltaError
from bitfit_export.verification.comparison import FP32_TOLERANCE

if TYPE_CHECKING:
    import torch
    from transformers import PreTrainedModel

__all__ = ["check_same_logits"]

_SEED = 0
_LENGTHS = (1, 5, 12)
_AUDIO_SAMPLES = 4000


def check_same_logits(model: PreTrainedModel, base: BaseModel, delta: TaskDelta) -> None:
    """Compare the logits of a task class of transformers with those of base and delta, on random inputs.

    Each input is a batch of one, as GPT-2's head takes no larger one without a padding id.

    Raises:
        DeltaError: they differ by more than the tolerance of `verify`.
    """
    import torch

    from bitfit_export.reference.task_model import merged_model

    merged = merged_model(base, delta)
    generator = torch.Generator().manual_seed(_SEED)
    for length in _LENGTHS:
        inputs = _random_inputs(base, length, generator)
        with torch.inference_mode():
            expected, found = _logits(model(**inputs)), merged(**inputs)["logits"]
        # Written so that a NaN does not pass.
        if found.shape != expected.shape or not bool((found - expected).abs().max() <= FP32_TOLERANCE):
            raise DeltaError(
                f"{type(model).__name__} gives other logits than {base.source.name} with the biases and the head of "
                f"{delta.config.task}, so the head or a setting of the model is not what its class usually has",
                hint="compare the two models' config.json; the settings must be the same",
            )


def _logits(output: Any) -> torch.Tensor:
    """Logits [batch, labels]; of tokens, [batch, sequence, labels]; of spans, the same with start and end."""
    import torch

    if hasattr(output, "start_logits"):
        return torch.stack([output.start_logits, output.end_logits], dim=-1)
    logits: torch.Tensor = output.logits
    return logits


def _random_inputs(base: BaseModel, length: int, generator: torch.Generator) -> dict[str, torch.Tensor]:
    import torch

    config: Any = base.module.config
    if base.modality == "image":
        size = (1, config.num_channels, config.image_size, config.image_size)
        return {"pixel_values": torch.randn(size, generator=generator)}
    if base.modality == "audio":
        return {"input_values": torch.randn((1, _AUDIO_SAMPLES * length), generator=generator)}
    # Ids from the end of the vocabulary, clear of the padding id, which some models mask by its number.
    ids = torch.randint(config.vocab_size // 2, config.vocab_size, (1, length), generator=generator)
    inputs = {"input_ids": ids, "attention_mask": torch.ones_like(ids)}
    if "token_type_ids" in base.input_names:
        inputs["token_type_ids"] = torch.randint(0, config.type_vocab_size, (1, length), generator=generator)
    return inputs
