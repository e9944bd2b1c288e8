"""Fine-tuned models as transformers makes and saves them, from the tiny base models of every family."""

from __future__ import annotations

import functools
import json
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import pytest

from tests.families import tiny_base

if TYPE_CHECKING:
    from bitfit_export.base_model.loading import BaseModel

pytest.importorskip("torch", reason="needs bitfit-export[export]")

#: Loading one takes a second, and no test changes one.
base_of = functools.cache(tiny_base)


def new_classifier(base: BaseModel, architecture: str, **settings: Any) -> Any:
    """What a fine-tuning starts from: the base model's weights and a head. All that is new is random."""
    import torch
    import transformers

    model, info = getattr(transformers, architecture).from_pretrained(
        base.source.location, output_loading_info=True, **settings
    )
    generator = torch.Generator().manual_seed(7)
    with torch.no_grad():
        for name, parameter in model.named_parameters():
            if name in info["missing_keys"]:
                parameter.copy_(torch.randn(parameter.shape, generator=generator) * 0.3)
    return model.eval()


def train_biases(model: Any, seed: int = 1) -> Any:
    """Change every bias term at random, as a BitFit training does."""
    import torch

    generator = torch.Generator().manual_seed(seed)
    with torch.no_grad():
        for name, parameter in model.named_parameters():
            if name.endswith(("bias", "q_bias", "v_bias")):
                parameter.add_(torch.randn(parameter.shape, generator=generator) * 0.2)
    return model


def fine_tuned(base: BaseModel, architecture: str, **settings: Any) -> Any:
    return train_biases(new_classifier(base, architecture, **settings))


def saved(model: Any, folder: Path) -> Path:
    model.save_pretrained(folder)
    return folder


def inputs_of(base: BaseModel, rows: int = 4) -> dict[str, Any]:
    """A padded batch of random ids, or images, or sound."""
    import torch

    random = np.random.default_rng(5)
    config: Any = base.module.config
    if base.modality == "image":
        shape = (rows, config.num_channels, config.image_size, config.image_size)
        return {"pixel_values": torch.from_numpy(random.normal(size=shape).astype(np.float32))}
    if base.modality == "audio":
        return {"input_values": torch.from_numpy(random.normal(size=(rows, 3000)).astype(np.float32))}
    mask = np.arange(9) < random.integers(2, 10, (rows, 1))
    ids = np.where(mask, random.integers(1000, config.vocab_size, mask.shape), base.tokenizer.pad_token_id)
    inputs = {"input_ids": ids, "attention_mask": mask.astype(np.int64)}
    if "token_type_ids" in base.input_names:
        inputs["token_type_ids"] = random.integers(0, config.type_vocab_size, ids.shape) * mask
    return {name: torch.from_numpy(value) for name, value in inputs.items()}


def own_logits(model: Any, base: BaseModel) -> np.ndarray:
    """Logits of a model of transformers; of a span model [batch, sequence, 2]."""
    import torch

    with torch.inference_mode():
        output = model(**inputs_of(base))
    if hasattr(output, "start_logits"):
        return np.stack([output.start_logits.numpy(), output.end_logits.numpy()], axis=-1)
    return np.asarray(output.logits.numpy())


def delta_logits(base: BaseModel, delta: Any) -> np.ndarray:
    """Logits of the base model with a delta."""
    import torch

    from bitfit_export.reference.task_model import merged_model

    with torch.inference_mode():
        return np.asarray(merged_model(base, delta)(**inputs_of(base))["logits"].numpy())


def assert_same_logits(found: np.ndarray, expected: np.ndarray, base: BaseModel, *, tokens: bool = False) -> None:
    """The same logits, of each token that is no padding where there is one logit per token."""
    if tokens:
        keep = inputs_of(base)["attention_mask"].numpy().astype(bool)
        found, expected = found[keep], expected[keep]
    assert np.abs(expected).max() > 0.05
    np.testing.assert_allclose(found, expected, atol=1e-5, rtol=0)


#: Settings of a family that `tests.families` does not have.
SMALL: dict[str, Any] = {
    "hidden_size": 32,
    "num_hidden_layers": 1,
    "num_attention_heads": 4,
    "intermediate_size": 64,
    "max_position_embeddings": 64,
}
BERT = "BertForSequenceClassification"


@pytest.fixture
def base() -> BaseModel:
    """The tiny BERT."""
    return base_of("bert")


def bert(**settings: Any) -> Any:
    """A fine-tuned classifier of it."""
    return fine_tuned(base_of("bert"), BERT, **settings)


def edit_config(folder: Path, **changes: Any) -> None:
    path = folder / "config.json"
    path.write_text(json.dumps(json.loads(path.read_text()) | changes))


def edit_tensors(folder: Path, changes: dict[str, np.ndarray | None]) -> None:
    from safetensors.numpy import load_file, save_file

    path = folder / "model.safetensors"
    tensors = load_file(path) | changes
    save_file({name: value for name, value in tensors.items() if value is not None}, path, metadata={"format": "pt"})
