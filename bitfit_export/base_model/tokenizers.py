"""The tokenizer of a base model: how one is loaded, and how it is made to fit what the model takes."""

from __future__ import annotations

import inspect
from pathlib import Path
from typing import TYPE_CHECKING, Any

from bitfit_export.errors import BaseModelError, first_line

if TYPE_CHECKING:
    from transformers import PreTrainedModel, PreTrainedTokenizerBase

__all__ = ["OWN_CODE", "fit_tokenizer", "has_tokenizer_files", "has_vocabulary", "read_tokenizer", "text_inputs"]

#: What is said of a model or a tokenizer that would run code from its folder or from the Hub.
OWN_CODE = "brings Python code of its own (auto_map), which is never run (trust_remote_code=False)"
#: The files of which a tokenizer has one at least: its vocabulary.
_VOCABULARIES = ("tokenizer.json", "vocab.*", "*.model")
#: What a tokenizer may have besides.
_SETTINGS = ("tokenizer_config.json", "special_tokens_map.json", "added_tokens.json", "merges.txt")


def has_vocabulary(folder: Path) -> bool:
    """Returns whether `folder` has a tokenizer, as far as names of files tell."""
    return any(path for form in _VOCABULARIES for path in folder.glob(form))


def has_tokenizer_files(folder: Path) -> bool:
    """Returns whether `folder` has any file of a tokenizer, which need not be complete."""
    return has_vocabulary(folder) or any((folder / name).exists() for name in _SETTINGS)


def read_tokenizer(
    location: str, *, config: Any = None, revision: str | None = None, local_only: bool = False
) -> PreTrainedTokenizerBase:
    """Load a tokenizer from whichever files it has: tokenizer.json, or those that it is made from.

    Args:
        location: a folder or a Hub id.
        config: the model's, which names the kind of tokenizer where the folder does not; by default the folder's.

    Raises:
        Exception: whatever transformers raises for files that it cannot load.
    """
    from transformers import AutoTokenizer

    options: dict[str, Any] = {"trust_remote_code": False}
    options |= {"revision": revision} if revision else {}
    options |= {"config": config} if config is not None else {}
    options |= {"local_files_only": True} if local_only else {}
    try:
        tokenizer: PreTrainedTokenizerBase = AutoTokenizer.from_pretrained(location, **options)
    except BaseException as error:
        if "trust_remote_code" in str(error):
            raise ValueError(f"it {OWN_CODE}") from error
        # What the tokenizers library raises where it stops in the middle is no `Exception`.
        if type(error).__name__ == "PanicException":
            raise ValueError(f"its files stop the tokenizers library: {first_line(error)}") from error
        raise
    return tokenizer


def fit_tokenizer(tokenizer: PreTrainedTokenizerBase, module: PreTrainedModel, name: str) -> None:
    """Make a tokenizer give what the model takes and nothing else, and pad and cut on the right, as runtimes do.

    Args:
        name: the model's, for messages.

    Raises:
        BaseModelError: one that is not fast, that can't pad, or that has ids for which the model has no embedding.
    """
    if not getattr(tokenizer, "is_fast", False):
        raise BaseModelError(
            f"the tokenizer of {name} has no tokenizer.json, expected a fast tokenizer",
            hint="convert it with transformers and save it into the checkpoint's folder",
        )
    tokenizer.model_input_names = text_inputs(module, tokenizer)
    if tokenizer.pad_token is None:
        # Decoders have none, having never seen a batch. Any will do: the mask hides it.
        tokenizer.pad_token = tokenizer.eos_token
    if tokenizer.pad_token is None:
        raise BaseModelError(
            f"the tokenizer of {name} has neither a padding token nor one that ends a text, expected either",
            hint="set tokenizer.pad_token, and save the tokenizer into the checkpoint's folder",
        )
    tokenizer.padding_side = tokenizer.truncation_side = "right"
    # A bundle's tokenizer.json can't say that the text of a special token is to be split.
    tokenizer.split_special_tokens = False
    _check_ids(tokenizer, module, name)


def text_inputs(module: PreTrainedModel, tokenizer: PreTrainedTokenizerBase) -> list[str]:
    """Returns the names of what the tokenizer gives and the model takes."""
    accepted = inspect.signature(module.forward).parameters
    names = [name for name in tokenizer.model_input_names if name in accepted]
    # One token type is none: RoBERTa has a table of one entry, DeBERTa v3 has no table.
    one_type = getattr(module.config, "type_vocab_size", 2) < 2
    return [name for name in names if not (one_type and name == "token_type_ids")]


def _check_ids(tokenizer: PreTrainedTokenizerBase, module: PreTrainedModel, name: str) -> None:
    """Refuse a tokenizer to which tokens were added while the embedding stayed as it was."""
    entries = int(module.get_input_embeddings().weight.shape[0])
    token, largest = max(tokenizer.get_vocab().items(), key=lambda item: item[1])
    if largest >= entries:
        raise BaseModelError(
            f"the tokenizer of {name} has ids up to {largest} (the token {token[:100]!r}), but the model's embedding "
            f"has {entries} entries, expected at least {largest + 1}",
            hint="call model.resize_token_embeddings(len(tokenizer)), and save the model again",
        )
