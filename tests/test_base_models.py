"""From `--model` to weights, and the digest by which a base model is known."""

from __future__ import annotations

import hashlib
import struct
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
import torch

from bitfit_export.base_models import BaseModel, load_base_model, resolve_model, state_digest
from bitfit_export.errors import BaseModelError


def test_an_alias_and_its_hub_id_are_the_same_model() -> None:
    assert resolve_model("bert-base") == resolve_model("google-bert/bert-base-cased")
    assert resolve_model("bert-base").short_name == "bert-base"


def test_a_local_folder_is_known_by_its_name(tiny_base: BaseModel) -> None:
    source = resolve_model(tiny_base.source.location)
    assert (source.short_name, source.name) == ("tiny-bert", "tiny-bert")


@pytest.mark.parametrize("model", ["no-such-model", "./missing", "/missing", "a/b/c"])
def test_what_is_neither_folder_nor_hub_id_is_refused(model: str) -> None:
    with pytest.raises(BaseModelError, match="no folder and no Hub id"):
        resolve_model(model)


def test_a_folder_without_a_checkpoint_is_refused(tmp_path: Path) -> None:
    with pytest.raises(BaseModelError, match=r"has no config\.json"):
        resolve_model(str(tmp_path))


def test_the_digest_follows_its_definition() -> None:
    state = {"b": torch.tensor([[1.0, 2.0], [3.0, 4.0]]), "a.bias": torch.tensor([0.5], dtype=torch.float16)}
    by_hand = hashlib.sha256()
    by_hand.update(b"a.bias\0F16\x001\0" + struct.pack("<e", 0.5))
    by_hand.update(b"b\0F32\x002,2\0" + struct.pack("<4f", 1, 2, 3, 4))
    assert state_digest(state) == by_hand.hexdigest()


def test_one_bit_of_one_weight_changes_the_digest(tiny_base: BaseModel) -> None:
    state = {name: value.clone() for name, value in tiny_base.module.state_dict().items()}
    assert state_digest(state) == tiny_base.digest
    state["encoder.layer.1.output.dense.weight"].view(torch.int32)[0, 0] ^= 1
    assert state_digest(state) != tiny_base.digest


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16])
def test_a_half_precision_checkpoint_is_loaded_as_float32_and_known_by_its_own_bytes(
    tiny_base: BaseModel, tmp_path: Path, dtype: torch.dtype
) -> None:
    import copy

    half = copy.deepcopy(tiny_base.module).to(dtype)
    half.save_pretrained(tmp_path)
    tiny_base.tokenizer.save_pretrained(tmp_path)
    loaded = load_base_model(str(tmp_path))
    assert loaded.module.dtype == torch.float32
    assert loaded.digest == state_digest(half.state_dict()) != tiny_base.digest
    assert all(value.dtype == np.float32 for value in loaded.biases.values())


def test_a_truncated_checkpoint_is_one_clear_error(tiny_base: BaseModel, tmp_path: Path) -> None:
    tiny_base.module.save_pretrained(tmp_path)
    tiny_base.tokenizer.save_pretrained(tmp_path)
    weights = tmp_path / "model.safetensors"
    weights.write_bytes(weights.read_bytes()[:1000])
    with pytest.raises(BaseModelError, match="can't be loaded") as caught:
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


def test_a_hub_that_cannot_be_reached_is_one_clear_error(tmp_path: Path) -> None:
    script = "from bitfit_export.base_models import load_base_model; load_base_model('bert-base')"
    environment = {"HF_HUB_OFFLINE": "1", "HF_HOME": str(tmp_path), "PATH": "/usr/bin"}
    done = subprocess.run([sys.executable, "-c", script], env=environment, capture_output=True, text=True, check=False)
    assert "BaseModelError: the base model google-bert/bert-base-cased is neither on the Hugging Face" in done.stderr
    assert "hint: check the name and the network" in done.stderr
