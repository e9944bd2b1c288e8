"""A body that is frozen whole reads each text once: what the head reads of it is kept, and only the head is computed
in each step.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch

from bitfit_export.delta import TOKENS
from bitfit_export.reference.task_model import pad_features
from bitfit_export.training.trainable import TrainableModel

__all__ = ["POOLED", "can_read_once", "read_once"]

#: The feature that takes the place of a model's inputs.
POOLED = "pooled"
_ITEMS = 64


def can_read_once(model: TrainableModel) -> bool:
    """Returns whether every step reads the same vector of a text: the body learns nothing, and so has no dropout.

    A head that reads every token is left out, for all hidden states of a data set are too many to keep; and so are
    bfloat16, whose rounding belongs to the steps, and a GPU.
    """
    frozen = not any(parameter.requires_grad for parameter in model.base.parameters())
    return frozen and not torch.accelerator.is_available() and model.pooling != TOKENS and not model.autocast


def read_once(model: TrainableModel, tokenizer: Any, features: Sequence[dict[str, Any]]) -> list[dict[str, Any]]:
    """Returns features with what the head reads, float32 [hidden], under `POOLED`, instead of the model's inputs.

    `input_ids` and `labels` stay: batches are made by length. Texts are read in the same batches whenever the same
    features are given, so a run that resumes gets the same vectors to the bit.
    """
    order = sorted(range(len(features)), key=lambda index: len(features[index]["input_ids"]))
    found: list[dict[str, Any]] = [{}] * len(features)
    model.eval()
    for start in range(0, len(order), _ITEMS):
        chosen = order[start : start + _ITEMS]
        with torch.no_grad():
            vectors = model.read(pad_features(tokenizer, [features[index] for index in chosen])).float()
        for index, vector in zip(chosen, vectors, strict=True):
            kept = {name: features[index][name] for name in ("input_ids", "labels")}
            # A copy, for a view would keep the whole batch.
            found[index] = kept | {POOLED: vector.clone()}
    return found
