"""Weights as they are stored: every dtype without a loss, and what is no weights is refused."""

from __future__ import annotations

import copy
from pathlib import Path

import numpy as np
import pytest
import torch
from safetensors.torch import save_file

from bitfit_export.base_model.loading import BaseModel, load_base_model, state_digest
from bitfit_export.errors import BaseModelError
from tests.base_model.conftest import declare


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16])
def test_a_half_precision_checkpoint_is_loaded_as_float32_and_known_by_its_own_bytes(
    tiny_base: BaseModel, tmp_path: Path, dtype: torch.dtype
) -> None:
    half = copy.deepcopy(tiny_base.module).to(dtype)
    half.save_pretrained(tmp_path)
    tiny_base.tokenizer.save_pretrained(tmp_path)
    loaded = load_base_model(str(tmp_path))
    assert loaded.module.dtype == torch.float32
    assert loaded.digest == state_digest(half.state_dict()) != tiny_base.digest
    assert all(value.dtype == np.float32 for value in loaded.biases.values())


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16, torch.float16, torch.float64])
@pytest.mark.parametrize("declared", ["float32", "bfloat16", "float16", None])
def test_the_files_dtype_decides_whatever_the_config_says(
    tiny_base: BaseModel, tmp_path: Path, dtype: torch.dtype, declared: str | None
) -> None:
    module = copy.deepcopy(tiny_base.module).to(dtype)
    module.save_pretrained(tmp_path)
    tiny_base.tokenizer.save_pretrained(tmp_path)
    declare(tmp_path, dtype=declared)
    loaded = load_base_model(str(tmp_path))
    assert loaded.digest == state_digest(module.state_dict())
    for name, value in module.state_dict().items():
        assert torch.equal(loaded.module.state_dict()[name], value.float())


@pytest.mark.parametrize("declared", ["float32", "float16", None])
def test_of_files_that_mix_dtypes_no_weight_is_rounded(
    tiny_base: BaseModel, tmp_path: Path, declared: str | None
) -> None:
    """In one file or in several, whichever dtype comes first in them."""
    half = {name: value.half() for name, value in tiny_base.module.state_dict().items()}
    exact = {name: value for name, value in tiny_base.module.state_dict().items() if "LayerNorm" in name}
    for number, shards in enumerate(("5GB", "100KB")):
        folder = tmp_path / str(number)
        tiny_base.module.save_pretrained(folder, state_dict=half | exact, max_shard_size=shards)
        tiny_base.tokenizer.save_pretrained(folder)
        declare(folder, dtype=declared)
        loaded = load_base_model(str(folder))
        for name, value in (half | exact).items():
            assert torch.equal(loaded.module.state_dict()[name], value.float())
        assert loaded.digest == state_digest({name: value.float() for name, value in (half | exact).items()})


def test_the_dtype_of_a_head_that_is_not_read_has_no_part_in_the_digest(tiny_base: BaseModel, tmp_path: Path) -> None:
    half = copy.deepcopy(tiny_base.module).half()
    head = {"cls.predictions.bias": torch.zeros(3)}
    half.save_pretrained(tmp_path, state_dict=half.state_dict() | head)
    tiny_base.tokenizer.save_pretrained(tmp_path)
    assert load_base_model(str(tmp_path)).digest == state_digest(half.state_dict())


@pytest.mark.parametrize("dtype", [torch.int8, torch.float8_e4m3fn])
def test_weights_of_another_dtype_are_refused(tiny_base: BaseModel, tmp_path: Path, dtype: torch.dtype) -> None:
    state = {name: value.to(dtype) for name, value in tiny_base.module.state_dict().items()}
    tiny_base.module.save_pretrained(tmp_path, state_dict=state)
    tiny_base.tokenizer.save_pretrained(tmp_path)
    with pytest.raises(BaseModelError, match=r"is stored as (I8|F8_E4M3), expected float64, float32"):
        load_base_model(str(tmp_path))


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"quantization_config": {"quant_method": "bitsandbytes", "load_in_8bit": True}}, "is quantised"),
        ({"transformers_weights": "adapter_model.bin"}, "has its weights in 'adapter_model.bin', expected them in mod"),
        ({"transformers_weights": "other.safetensors"}, "has its weights in 'other.safetensors'"),
    ],
)
def test_weights_in_another_form_are_refused(
    tiny_base: BaseModel, tmp_path: Path, settings: dict[str, object], message: str
) -> None:
    tiny_base.module.save_pretrained(tmp_path)
    tiny_base.tokenizer.save_pretrained(tmp_path)
    declare(tmp_path, **settings)
    with pytest.raises(BaseModelError, match=message):
        load_base_model(str(tmp_path))


def test_a_pickle_is_not_read(tiny_base: BaseModel, tmp_path: Path) -> None:
    tiny_base.module.save_pretrained(tmp_path)
    tiny_base.tokenizer.save_pretrained(tmp_path)
    torch.save(tiny_base.module.state_dict(), tmp_path / "pytorch_model.bin")
    (tmp_path / "model.safetensors").unlink()
    with pytest.raises(
        BaseModelError, match=r"has no model\.safetensors.*\nhint: load the model with transformers and"
    ):
        load_base_model(str(tmp_path))


def test_the_prefix_of_a_wrapper_is_named(tiny_base: BaseModel, tmp_path: Path) -> None:
    state = {f"_orig_mod.{name}": value for name, value in tiny_base.module.state_dict().items()}
    tiny_base.module.save_pretrained(tmp_path)
    save_file(state, tmp_path / "model.safetensors", metadata={"format": "pt"})
    tiny_base.tokenizer.save_pretrained(tmp_path)
    with pytest.raises(
        BaseModelError, match=r"its file has '_orig_mod\.' in its names, which torch\.compile puts there"
    ):
        load_base_model(str(tmp_path))


def test_a_truncated_checkpoint_is_one_clear_error(tiny_base: BaseModel, tmp_path: Path) -> None:
    tiny_base.module.save_pretrained(tmp_path)
    tiny_base.tokenizer.save_pretrained(tmp_path)
    weights = tmp_path / "model.safetensors"
    weights.write_bytes(weights.read_bytes()[:1000])
    with pytest.raises(BaseModelError, match="cannot be loaded") as caught:
        load_base_model(str(tmp_path))
    assert len(str(caught.value).splitlines()) == 2


def test_a_checkpoint_that_lacks_weights_is_refused(tiny_base: BaseModel, tmp_path: Path) -> None:
    state = tiny_base.module.state_dict()
    del state["encoder.layer.0.output.dense.bias"]
    tiny_base.module.save_pretrained(tmp_path, state_dict=state)
    tiny_base.tokenizer.save_pretrained(tmp_path)
    with pytest.raises(BaseModelError, match=r"lacks 1 parameters .* encoder\.layer\.0\.output\.dense\.bias"):
        load_base_model(str(tmp_path))


def test_a_checkpoint_without_a_pooler_is_loaded_without_one(tiny_base: BaseModel, tmp_path: Path) -> None:
    state = {name: value for name, value in tiny_base.module.state_dict().items() if not name.startswith("pooler.")}
    tiny_base.module.save_pretrained(tmp_path, state_dict=state)
    tiny_base.tokenizer.save_pretrained(tmp_path)
    loaded = load_base_model(str(tmp_path))
    assert "pooler.dense.bias" not in loaded.biases
    assert loaded.digest == load_base_model(str(tmp_path)).digest
