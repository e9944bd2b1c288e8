"""From `--model` to weights, and the digest by which a base model is known."""

from __future__ import annotations

import ast
import copy
import hashlib
import json
import os
import struct
import subprocess
import sys
from pathlib import Path

import pytest
import torch

from bitfit_export.base_model import loading as base_models
from bitfit_export.base_model.loading import BaseModel, load_base_model, state_digest
from bitfit_export.errors import BaseModelError
from tests import families
from tests.base_model.conftest import declare


def test_the_tokenizer_is_of_the_commit_that_the_weights_are_of(
    tiny_base: BaseModel, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A branch may move between the two downloads."""
    seen: list[str | None] = []

    def tokenizer_at(source: object, revision: str | None, module: object) -> object:
        seen.append(revision)
        return tiny_base.tokenizer

    weights = (copy.deepcopy(tiny_base.module), "c" * 40)
    monkeypatch.setattr(base_models, "_from_pretrained", lambda source, revision: weights)
    monkeypatch.setattr(base_models, "_load_tokenizer", tokenizer_at)
    assert load_base_model("org/name", revision="main").revision == "c" * 40
    assert seen == ["c" * 40]


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


def test_a_folder_with_an_adapter_is_no_base_model(tiny_base: BaseModel, tmp_path: Path) -> None:
    """transformers would load the base that the adapter names, and put the adapter into it."""
    tiny_base.module.save_pretrained(tmp_path)
    (tmp_path / "adapter_config.json").write_text("{}")
    with pytest.raises(BaseModelError, match=r"has an adapter \(adapter_config\.json\), expected a base model"):
        load_base_model(str(tmp_path))


OWN_MODEL = """open({mark!r}, "w")
from transformers import BertConfig, BertModel, BertTokenizer
class Config(BertConfig):
    model_type = "mine"
class Model(BertModel):
    config_class = Config
class Tokenizer(BertTokenizer):
    pass
"""
OWN_CLASSES = {"AutoConfig": "mine.Config", "AutoModel": "mine.Model", "AutoTokenizer": ["mine.Tokenizer", None]}


@pytest.mark.parametrize(
    ("config", "tokenizer"),
    [
        ({"model_type": "mine", "auto_map": OWN_CLASSES}, {}),
        ({"auto_map": OWN_CLASSES}, {}),  # its model_type is known, so its code is not needed
        ({}, {"tokenizer_class": "Tokenizer", "auto_map": OWN_CLASSES}),
        ({"model_type": "mine"}, {"tokenizer_class": "Tokenizer", "auto_map": OWN_CLASSES}),
        ({"attn_implementation": "somebody/attention"}, {}),
        ({"_attn_implementation": "somebody/attention"}, {}),
    ],
)
def test_the_code_of_a_model_is_never_run_and_nobody_is_asked(
    tiny_base: BaseModel,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    config: dict[str, object],
    tokenizer: dict[str, object],
) -> None:
    asked: list[object] = []

    def say_yes(*words: object) -> str:
        asked.append(words)
        return "y"

    monkeypatch.setattr("builtins.input", say_yes)
    tiny_base.module.save_pretrained(tmp_path)
    tiny_base.tokenizer.save_pretrained(tmp_path)
    mark = tmp_path / "ran"
    (tmp_path / "mine.py").write_text(OWN_MODEL.format(mark=str(mark)))
    declare(tmp_path, **config)
    settings = tmp_path / "tokenizer_config.json"
    settings.write_text(json.dumps(json.loads(settings.read_text()) | tokenizer))
    if config.get("model_type") == "mine":
        with pytest.raises(BaseModelError) as caught:
            load_base_model(str(tmp_path))
        if "auto_map" in config:
            assert "brings Python code of its own (auto_map), which is never run" in caught.value.message
            assert caught.value.hint == "take a model whose class and tokenizer are part of transformers"
    else:
        assert load_base_model(str(tmp_path)).digest == tiny_base.digest
    assert not asked
    assert not mark.exists()


def test_no_call_of_transformers_leaves_trust_to_its_default() -> None:
    """Every call that loads something from a folder or from the Hub says no."""
    package = Path(__file__).parent.parent / "bitfit_export"
    for path in package.rglob("*.py"):
        for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
            called = node.func.attr if isinstance(node, ast.Call) and isinstance(node.func, ast.Attribute) else ""
            if called in ("from_pretrained", "from_config"):
                named = [each for each in node.keywords if each.arg == "trust_remote_code" or each.arg is None]
                assert named, f"{path.name}:{node.lineno}"


def test_the_digest_of_the_packaged_model(minilm_folder: Path) -> None:
    """Every shipped delta of it has this one."""
    digest = "9d578e8ce88fb51037aae33c65794140706825d835637f041554a18424b6e026"
    assert load_base_model("minilm-l6").digest == digest


@pytest.mark.parametrize("family", ["bert", "roberta", "mpnet", "distilbert", "electra", "deberta", "gpt2"])
def test_a_text_of_max_positions_runs_and_one_more_token_does_not(family: str) -> None:
    extra = {"position_biased_input": True} if family == "deberta" else {}
    base = families.tiny_base(family, **extra)
    assert base.max_positions == 64
    longest = torch.full((1, 64), 200)
    base.module(input_ids=longest, attention_mask=torch.ones_like(longest))
    longer = torch.full((1, 65), 200)
    with pytest.raises((IndexError, RuntimeError)):
        base.module(input_ids=longer, attention_mask=torch.ones_like(longer))


def test_positions_that_start_after_the_padding_id_are_fewer_than_the_config_says() -> None:
    # As in roberta-base: a table of 514 positions for texts of 512 tokens.
    base = families.tiny_base("roberta", max_position_embeddings=514, pad_token_id=1)
    base.tokenizer.model_max_length = 10_000
    assert base.max_positions == 512


def test_where_positions_are_relative_the_tokenizer_or_a_default_sets_the_limit() -> None:
    base = families.tiny_base("bloom", hidden_size=32, n_layer=1, n_head=4)
    base.tokenizer.model_max_length = int(1e30)  # what transformers says where a tokenizer has no limit
    assert base.max_positions == 512
    base.tokenizer.model_max_length = 100
    assert base.max_positions == 100


@pytest.mark.parametrize(
    ("family", "names"),
    [
        ("bert", ("input_ids", "attention_mask", "token_type_ids")),
        ("albert", ("input_ids", "attention_mask", "token_type_ids")),
        ("distilbert", ("input_ids", "attention_mask")),  # no token types
        ("mpnet", ("input_ids", "attention_mask")),
        ("roberta", ("input_ids", "attention_mask")),  # one token type
        ("deberta-v2/v3", ("input_ids", "attention_mask")),
        ("gpt2", ("input_ids", "attention_mask")),  # its tokenizer gives none
        ("vit", ("pixel_values",)),
        ("wav2vec2", ("input_values",)),
    ],
)
def test_a_model_is_fed_what_it_takes(family: str, names: tuple[str, ...]) -> None:
    base = families.tiny_base(family)
    assert base.input_names == names
    if base.tokenizer is not None:
        # The tokenizer gives exactly that.
        assert set(base.tokenizer("A text", "and another")) == set(names)


@pytest.mark.parametrize(("family", "modality"), [("bert", "text"), ("vit", "image"), ("wav2vec2", "audio")])
def test_the_modality_follows_from_the_model(family: str, modality: str) -> None:
    base = families.tiny_base(family)
    assert base.modality == modality
    assert (base.tokenizer is None) == (modality != "text")


def test_what_reads_no_text_has_no_longest_text() -> None:
    with pytest.raises(BaseModelError, match="tiny-vit reads image"):
        _ = families.tiny_base("vit").max_positions


def test_a_model_without_biases_is_refused_with_the_way_out() -> None:
    with pytest.raises(BaseModelError, match="has no bias terms") as caught:
        families.tiny_base("llama", **families.FAMILIES["bert"])
    assert "hint: --add-biases" in str(caught.value)


def test_added_biases_are_zero_and_change_neither_outputs_nor_the_digest() -> None:
    config = families.FAMILIES["bert"] | {"num_key_value_heads": 2}  # Qwen2 has biases at query, key and value only
    plain, added = (families.tiny_base("qwen2", add_biases=add, **config) for add in (False, True))
    assert plain.added_biases == ()
    assert added.added_biases[:2] == ("layers.0.self_attn.o_proj.bias", "layers.0.mlp.gate_proj.bias")
    assert added.biases.keys() == plain.biases.keys() | set(added.added_biases)
    assert not any(added.biases[name].any() for name in added.added_biases)
    assert added.digest == plain.digest
    ids = torch.arange(200, 210).reshape(2, 5)
    expected, got = (base.module(input_ids=ids).last_hidden_state for base in (plain, added))
    assert torch.equal(expected, got)


def test_an_encoder_with_a_decoder_is_refused() -> None:
    with pytest.raises(BaseModelError, match=r"\(t5\) is an encoder with a decoder"):
        families.tiny_base("t5", d_model=32, d_kv=8, d_ff=64, num_layers=1, num_heads=4)


def test_a_decoder_gives_no_cache_and_its_tokenizer_can_pad() -> None:
    base = families.tiny_base("gpt2")
    assert base.module(input_ids=torch.tensor([[200]])).past_key_values is None
    folder = Path(base.source.location)
    tokenizer = base.tokenizer
    tokenizer.eos_token = "[SEP]"
    tokenizer.pad_token = None
    tokenizer.save_pretrained(folder)
    assert load_base_model(str(folder)).tokenizer.pad_token == "[SEP]"


def test_a_hub_that_cannot_be_reached_is_one_clear_error(tmp_path: Path) -> None:
    script = "from bitfit_export.base_model.loading import load_base_model; load_base_model('bert-base')"
    environment = {"HF_HUB_OFFLINE": "1", "HF_HOME": str(tmp_path), "PATH": "/usr/bin"}
    done = subprocess.run([sys.executable, "-c", script], env=environment, capture_output=True, text=True, check=False)
    assert "BaseModelError: the base model google-bert/bert-base-cased cannot be loaded from the Hugging" in done.stderr
    assert "hint: check the name and the network" in done.stderr


@pytest.mark.slow
@pytest.mark.parametrize("shards", ["5GB", "100KB"])
def test_a_model_of_the_hub_is_loaded_from_its_cache_with_its_revision(
    tiny_base: BaseModel, tmp_path: Path, shards: str
) -> None:
    repository, commit = tmp_path / "hub/models--somebody--tiny", "0123456789abcdef0123456789abcdef01234567"
    snapshot = repository / "snapshots" / commit
    tiny_base.module.save_pretrained(snapshot, max_shard_size=shards)
    tiny_base.tokenizer.save_pretrained(snapshot)
    declare(snapshot, dtype="bfloat16")
    (repository / "refs").mkdir()
    (repository / "refs/main").write_text(commit)
    script = (
        "from bitfit_export.base_model.loading import load_base_model; base = load_base_model('somebody/tiny'); "
        "print(base.digest, base.revision)"
    )
    environment = os.environ | {"HF_HUB_OFFLINE": "1", "HF_HOME": str(tmp_path)}
    done = subprocess.run([sys.executable, "-c", script], env=environment, capture_output=True, text=True, check=False)
    assert done.stdout.split() == [tiny_base.digest, commit], done.stderr
