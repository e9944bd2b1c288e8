"""The PyTorch model of one task: base model, pooling, linear head. Training trains it, verify compares with it."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
import torch
from torch import nn

from bitfit_export.base_models import BaseModel
from bitfit_export.delta import TaskDelta
from bitfit_export.errors import BaseModelError

__all__ = ["TaskModel", "merged_model", "pool", "predict_logits"]


def pool(pooling: str, hidden: torch.Tensor, pooler_output: torch.Tensor | None, mask: torch.Tensor) -> torch.Tensor:
    """One vector [batch, hidden] from the hidden states [batch, sequence, hidden].

    `pooler` is the base model's own (BERT: tanh(W h_[CLS] + b)), `cls` is h_[CLS], `mean` averages over the
    tokens that the attention mask [batch, sequence] keeps (Reimers and Gurevych, 2019).
    """
    if pooling == "pooler":
        if pooler_output is None:
            raise BaseModelError("the base model has no pooler", hint="train with --pooling cls or --pooling mean")
        return pooler_output
    if pooling == "cls":
        return hidden[:, 0]
    weights = mask.unsqueeze(-1).to(hidden.dtype)
    return (hidden * weights).sum(1) / weights.sum(1).clamp(min=1e-9)


class TaskModel(nn.Module):
    """`classifier(dropout(pool(base(ids))))`; with `pooling="pooler"` this is BertForSequenceClassification.

    Args:
        labels: the number of outputs.
        regression: whether the loss is the mean squared error; else it is cross entropy.
        autocast: do training steps in bfloat16 where that is safe; evaluation is always float32.
    """

    def __init__(
        self, base: nn.Module, pooling: str, labels: int, *, regression: bool = False, autocast: bool = False
    ) -> None:
        super().__init__()
        config: Any = base.config
        dropout = getattr(config, "classifier_dropout", None)
        self.base = base
        self.pooling = pooling
        self.regression = regression
        self.autocast = autocast
        self.dropout = nn.Dropout(config.hidden_dropout_prob if dropout is None else dropout)
        self.classifier = nn.Linear(config.hidden_size, labels)
        # As transformers initialises a new classifier.
        nn.init.normal_(self.classifier.weight, std=config.initializer_range)
        nn.init.zeros_(self.classifier.bias)

    def train(self, mode: bool = True) -> TaskModel:
        """As every module's `train`; but a body that is frozen whole gets no dropout, which would only add noise."""
        super().train(mode)
        if mode and not any(parameter.requires_grad for parameter in self.base.parameters()):
            self.base.eval()
        return self

    def forward(
        self,
        input_ids: torch.Tensor,
        attention_mask: torch.Tensor,
        token_type_ids: torch.Tensor | None = None,
        labels: torch.Tensor | None = None,
    ) -> dict[str, torch.Tensor]:
        """Logits [batch, labels] float32 and, with `labels`, the loss."""
        inputs = {"input_ids": input_ids, "attention_mask": attention_mask}
        if token_type_ids is not None:
            inputs["token_type_ids"] = token_type_ids
        with torch.autocast(input_ids.device.type, torch.bfloat16, enabled=self.autocast and self.training):
            output = self.base(**inputs)
            pooled = pool(
                self.pooling, output.last_hidden_state, getattr(output, "pooler_output", None), attention_mask
            )
        logits: torch.Tensor = self.classifier(self.dropout(pooled.float()))
        if labels is None:
            return {"logits": logits}
        if self.regression:
            return {"loss": nn.functional.mse_loss(logits.squeeze(-1), labels.float()), "logits": logits}
        return {"loss": nn.functional.cross_entropy(logits, labels), "logits": logits}


def merged_model(base: BaseModel, delta: TaskDelta) -> TaskModel:
    """The task's model with its biases and head put in, in eval mode. The base's own module is left as it is."""
    import copy

    delta.check_base(base.source.name, base.digest, base.biases)
    config = delta.config
    model = TaskModel(
        copy.deepcopy(base.module), config.pooling, config.output_size, regression=config.problem_type == "regression"
    )
    state = model.state_dict()
    for name, value in delta.merge(base.biases).items():
        state[f"base.{name}"].copy_(torch.from_numpy(value))
    for name, value in delta.head.items():
        state[name].copy_(torch.from_numpy(value))
    return model.eval().requires_grad_(False)


def predict_logits(
    model: nn.Module, tokenizer: Any, texts: Sequence[tuple[str, ...]], *, max_length: int, batch_size: int = 32
) -> np.ndarray:
    """Logits float32 [len(texts), labels] of texts or text pairs, truncated to `max_length` tokens.

    Texts are batched by length, so little is padded; the results come back in the order of `texts`.
    """
    order = sorted(range(len(texts)), key=lambda index: sum(map(len, texts[index])))
    logits: list[np.ndarray | None] = [None] * len(texts)
    model.eval()
    for start in range(0, len(order), batch_size):
        chosen = order[start : start + batch_size]
        columns = [list(column) for column in zip(*(texts[index] for index in chosen), strict=True)]
        batch = tokenizer(*columns, truncation=True, max_length=max_length, padding=True, return_tensors="pt")
        with torch.inference_mode():
            output = model(**batch)["logits"].float().numpy()
        for index, row in zip(chosen, output, strict=True):
            logits[index] = row
    return np.stack([row for row in logits if row is not None])
