"""The PyTorch model of one task: base model, pooling, head. Bundles are compared with it; training trains it."""

from __future__ import annotations

import copy
from collections.abc import Callable, Mapping, Sequence
from typing import Any

import numpy as np
import torch
from torch import nn

from bitfit_export.base_model.loading import BaseModel
from bitfit_export.delta import TOKENS, TaskDelta
from bitfit_export.errors import BaseModelError

__all__ = [
    "TaskModel",
    "default_head",
    "merged_model",
    "pad_features",
    "pool",
    "predict_features",
    "predict_logits",
]

#: The sentence heads that transformers gives its families, by `model_type`: pooling, and the dense layer's activation.
_FAMILY_HEADS: dict[str, tuple[str, str | None]] = {
    "bert": ("pooler", None),
    "albert": ("pooler", None),
    "roberta": ("cls", "tanh"),
    "xlm-roberta": ("cls", "tanh"),
    "camembert": ("cls", "tanh"),
    "mpnet": ("cls", "tanh"),
    "electra": ("cls", "gelu"),
    "distilbert": ("cls", "relu"),
    "deberta": ("cls", "gelu"),
    "deberta-v2": ("cls", "gelu"),
    "vit": ("cls", None),
    "wav2vec2": ("mean", "identity"),
    "gpt2": ("last", None),
}
#: The names that families have for the dropout before a classifier, the more special ones first.
_DROPOUTS = (
    "classifier_dropout",
    "classifier_dropout_prob",
    "cls_dropout",
    "seq_classif_dropout",
    "hidden_dropout_prob",
    "dropout",
)
_ACTIVATION_FUNCTIONS: dict[str, Callable[[torch.Tensor], torch.Tensor]] = {
    "tanh": torch.tanh,
    "relu": torch.relu,
    "gelu": nn.functional.gelu,
    "identity": lambda values: values,
}


def default_head(base: nn.Module) -> tuple[str, str | None]:
    """Pooling and activation of the head that transformers gives a sentence task on this base model.

    A family that is not known reads its pooler, or where it has none the first token, with one linear layer.
    """
    config: Any = base.config
    has_pooler = getattr(base, "pooler", None) is not None
    pooling, activation = _FAMILY_HEADS.get(config.model_type, ("pooler", None) if has_pooler else ("cls", None))
    if pooling == "pooler" and not has_pooler:
        # A pooler is a dense layer with tanh on the first token; where the base has none, it belongs to the head.
        return "cls", "tanh"
    return pooling, activation


def pool(
    pooling: str, hidden: torch.Tensor, pooler_output: torch.Tensor | None, mask: torch.Tensor | None
) -> torch.Tensor:
    """Returns what the head reads of the hidden states [batch, sequence, hidden]: one vector [batch, hidden], or all.

    `pooler` is the base model's own (BERT: tanh(W h_[CLS] + b)), `cls` is h_[CLS], `mean` averages over the tokens
    that the attention mask [batch, sequence] keeps (Reimers and Gurevych, 2019), `last` is the last of those tokens,
    and `tokens` is every hidden state as it is. Without a mask every token is kept.
    """
    if pooling == "pooler":
        if pooler_output is None:
            raise BaseModelError("the base model has no pooler", hint="train with --pooling cls or --pooling mean")
        return pooler_output
    if pooling == TOKENS:
        return hidden
    if pooling == "cls":
        return hidden[:, 0]
    if mask is None:
        return hidden.mean(1) if pooling == "mean" else hidden[:, -1]
    if pooling == "last":
        positions = torch.arange(hidden.shape[1], device=hidden.device)
        last = (positions * mask).argmax(-1)
        return hidden[torch.arange(hidden.shape[0], device=hidden.device), last]
    weights = mask.unsqueeze(-1).to(hidden.dtype)
    return (hidden * weights).sum(1) / weights.sum(1).clamp(min=1e-9)


class TaskModel(nn.Module):
    """`classifier(dropout(pool(base(inputs))))`, and with an activation a dense layer before it.

    With the pooling and activation of `default_head` this is transformers' own class for the family, such as
    BertForSequenceClassification; with `tokens`, BertForTokenClassification or BertForQuestionAnswering.

    Args:
        labels: the number of outputs.
        problem_type: decides the dropout, and the loss where the model is trained.
        activation: what is applied to the dense layer's output; None for a head without that layer.
        inner: the size of the dense layer's output; by default the hidden size.
    """

    def __init__(
        self,
        base: nn.Module,
        pooling: str,
        labels: int,
        *,
        problem_type: str = "single_label",
        activation: str | None = None,
        inner: int | None = None,
    ) -> None:
        super().__init__()
        config: Any = base.config
        self.base = base
        self.pooling = pooling
        self.problem_type = problem_type
        self.activation = activation
        self.dropout = nn.Dropout(_dropout(config, pooling, problem_type))
        width = config.hidden_size
        if activation is not None:
            width = inner or config.hidden_size
            self.dense_dropout = nn.Dropout(_dense_dropout(config, self.dropout.p))
            self.dense = _new_linear(config, config.hidden_size, width)
        self.classifier = _new_linear(config, width, labels)

    def forward(self, **inputs: torch.Tensor | None) -> dict[str, torch.Tensor]:
        """Returns `logits`, float32 [batch, labels], or with `tokens` [batch, sequence, labels].

        Args:
            inputs: the base model's: `input_ids`, `attention_mask`, `token_type_ids`, `pixel_values` or `input_values`.
        """
        return {"logits": self.score(self.read(inputs))}

    def read(self, inputs: Mapping[str, torch.Tensor | None]) -> torch.Tensor:
        """Returns what the head reads of the base model's hidden states."""
        output = self.base(**inputs)
        pooler_output = getattr(output, "pooler_output", None)
        return pool(self.pooling, output.last_hidden_state, pooler_output, inputs.get("attention_mask"))

    def score(self, pooled: torch.Tensor) -> torch.Tensor:
        """Returns the head's logits, computed in float32."""
        features = pooled.float()
        if self.activation is not None:
            features = _ACTIVATION_FUNCTIONS[self.activation](self.dense(self.dense_dropout(features)))
        logits: torch.Tensor = self.classifier(self.dropout(features))
        return logits


def _new_linear(config: Any, inputs: int, outputs: int) -> nn.Linear:
    """A layer as transformers initialises a new head's."""
    layer = nn.Linear(inputs, outputs)
    nn.init.normal_(layer.weight, std=getattr(config, "initializer_range", 0.02))
    nn.init.zeros_(layer.bias)
    return layer


def _dropout(config: Any, pooling: str, problem_type: str) -> float:
    """The dropout before the classifier: what the family's class for the problem has."""
    if problem_type == "span":
        return float(getattr(config, "qa_dropout", 0.0))
    if pooling == "last":
        return 0.0  # the heads of decoders have none
    rates = (getattr(config, name, None) for name in _DROPOUTS)
    return float(next((rate for rate in rates if rate is not None), 0.0))


def _dense_dropout(config: Any, dropout: float) -> float:
    """The dropout before the dense layer: DistilBERT has none there, DeBERTa has its own setting."""
    if hasattr(config, "seq_classif_dropout"):
        return 0.0
    return float(getattr(config, "pooler_dropout", dropout))


def merged_model(base: BaseModel, delta: TaskDelta) -> TaskModel:
    """The task's model with its biases and head put in, in eval mode. The base's own module is left as it is."""
    delta.check_base(base.source.name, base.digest, base.biases)
    config = delta.config
    model = TaskModel(
        copy.deepcopy(base.module),
        config.pooling,
        config.output_size,
        problem_type=config.problem_type,
        activation=config.activation,
        inner=delta.head["classifier.weight"].shape[1],
    )
    state = model.state_dict()
    for name, value in delta.merge(base.biases).items():
        state[f"base.{name}"].copy_(torch.from_numpy(value))
    for name, value in delta.head.items():
        state[name].copy_(torch.from_numpy(value))
    return model.eval().requires_grad_(False)


def predict_logits(
    model: TaskModel, tokenizer: Any, texts: Sequence[tuple[str, ...]], *, max_length: int, batch_size: int = 32
) -> np.ndarray | list[np.ndarray]:
    """Logits of texts or text pairs, truncated to `max_length` tokens, in the order of `texts`.

    Returns:
        Float32 [len(texts), labels]; of a token or span task a list of [tokens, labels], special tokens included.
    """
    columns = [list(column) for column in zip(*texts, strict=True)]
    encoded = tokenizer(*columns, truncation=True, max_length=max_length)
    features = [{name: encoded[name][index] for name in encoded} for index in range(len(texts))]
    sizes = [sum(map(len, text)) for text in texts]
    logits = predict_features(model, tokenizer, features, sizes=sizes, batch_size=batch_size)
    return logits if model.pooling == TOKENS else np.stack(logits)


def predict_features(
    model: TaskModel,
    tokenizer: Any,
    features: Sequence[dict[str, Any]],
    *,
    sizes: Sequence[int] | None = None,
    batch_size: int = 32,
) -> list[np.ndarray]:
    """Logits of what a tokenizer gave, not padded: for each text float32 [labels], or [tokens, labels].

    Texts of about one size, by default the number of tokens, are batched together, so little is padded.
    """
    order_by = [len(each["input_ids"]) for each in features] if sizes is None else sizes
    order = sorted(range(len(features)), key=lambda index: order_by[index])
    logits: list[np.ndarray] = [np.empty(0)] * len(features)
    model.eval()
    for start in range(0, len(order), batch_size):
        chosen = order[start : start + batch_size]
        batch = pad_features(tokenizer, [features[index] for index in chosen])
        with torch.inference_mode():
            output = model(**batch)["logits"].float().numpy()
        for index, values in zip(chosen, output, strict=True):
            logits[index] = values[: len(features[index]["input_ids"])] if model.pooling == TOKENS else values
    return logits


def pad_features(tokenizer: Any, features: Sequence[dict[str, Any]]) -> dict[str, torch.Tensor]:
    """The model's inputs [batch, sequence], padded on the right, whatever side the tokenizer prefers."""
    names = [name for name in tokenizer.model_input_names if name in features[0]]
    inputs = [{name: each[name] for name in names} for each in features]
    return dict(tokenizer.pad(inputs, padding=True, padding_side="right", return_tensors="pt"))
