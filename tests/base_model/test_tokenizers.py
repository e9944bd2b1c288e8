"""The tokenizer of a base model is one that its embedding and a bundle can follow."""

from __future__ import annotations

import copy
import json
from pathlib import Path

import pytest
import transformers

from bitfit_export.base_model.loading import BaseModel, load_base_model
from bitfit_export.errors import BaseModelError


def test_a_tokenizer_with_more_ids_than_the_embedding_is_one_clear_error(tiny_base: BaseModel, tmp_path: Path) -> None:
    tokenizer = copy.deepcopy(tiny_base.tokenizer)
    tokenizer.add_tokens(["<user>", "<url>"])
    module = copy.deepcopy(tiny_base.module)
    module.save_pretrained(tmp_path)
    tokenizer.save_pretrained(tmp_path)
    entries = tiny_base.module.config.vocab_size
    message = rf"has ids up to {entries + 1} \(the token '<url>'\), but the model's embedding has {entries} entries, "
    with pytest.raises(BaseModelError, match=message) as caught:
        load_base_model(str(tmp_path))
    assert "hint: call model.resize_token_embeddings(len(tokenizer)), and save the model again" in str(caught.value)
    module.resize_token_embeddings(len(tokenizer), mean_resizing=False)
    module.save_pretrained(tmp_path)
    assert load_base_model(str(tmp_path)).tokenizer.convert_tokens_to_ids("<url>") == entries + 1


def test_a_tokenizer_does_not_split_special_tokens_as_a_bundle_cannot(tiny_base: BaseModel, tmp_path: Path) -> None:
    tiny_base.module.save_pretrained(tmp_path)
    tokenizer = copy.deepcopy(tiny_base.tokenizer)
    tokenizer.split_special_tokens = True
    tokenizer.save_pretrained(tmp_path)
    settings = tmp_path / "tokenizer_config.json"
    settings.write_text(json.dumps(json.loads(settings.read_text()) | {"split_special_tokens": True}))
    loaded = load_base_model(str(tmp_path)).tokenizer
    assert loaded("a [SEP] b")["input_ids"] == loaded.backend_tokenizer.encode("a [SEP] b").ids
    assert loaded("a [SEP] b")["input_ids"] == tiny_base.tokenizer("a [SEP] b")["input_ids"]


def test_a_folder_without_a_tokenizer_is_refused(tiny_base: BaseModel, tmp_path: Path) -> None:
    """transformers would make one that knows no word."""
    tiny_base.module.save_pretrained(tmp_path)
    with pytest.raises(BaseModelError, match=r"has no tokenizer, expected tokenizer\.json"):
        load_base_model(str(tmp_path))


def test_a_tokenizer_that_can_not_pad_is_refused(
    tiny_base: BaseModel, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    tiny_base.module.save_pretrained(tmp_path)
    tiny_base.tokenizer.save_pretrained(tmp_path)
    bare = copy.deepcopy(tiny_base.tokenizer)
    bare.pad_token = bare.eos_token = None
    monkeypatch.setattr(transformers.AutoTokenizer, "from_pretrained", lambda *words, **options: bare)
    with pytest.raises(BaseModelError, match="has neither a padding token nor one that ends a text"):
        load_base_model(str(tmp_path))


def test_a_tokenizer_that_pads_and_cuts_on_the_left_is_made_to_do_so_on_the_right(
    tiny_base: BaseModel, tmp_path: Path
) -> None:
    tiny_base.module.save_pretrained(tmp_path)
    tokenizer = copy.deepcopy(tiny_base.tokenizer)
    tokenizer.padding_side = tokenizer.truncation_side = "left"
    tokenizer.save_pretrained(tmp_path)
    loaded = load_base_model(str(tmp_path)).tokenizer
    assert (loaded.padding_side, loaded.truncation_side) == ("right", "right")
