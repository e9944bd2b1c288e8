"""The proof that the tokenizer of a checkpoint gives every text the ids that the base model's gives.

A bundle has one tokenizer for all its tasks, so a task that was trained with another one would answer wrongly. The two
are compared as a whole, part by part, as the tokenizers library writes them. What may differ is what changes no id:

- truncation and padding, which bundles do by themselves;
- the decoder, which makes text of ids;
- what a byte-level part says of offsets;
- where there is no normaliser, whether a token is looked for before or after it.
"""

from __future__ import annotations

import itertools
import json
from typing import TYPE_CHECKING, Any

from bitfit_export.base_model.loading import BaseModel
from bitfit_export.base_model.tokenizers import has_tokenizer_files, has_vocabulary, read_tokenizer, text_inputs
from bitfit_export.errors import DeltaError, first_line
from bitfit_export.interop.reading import Checkpoint

if TYPE_CHECKING:
    from transformers import PreTrainedTokenizerBase

__all__ = ["check_tokenizer", "first_difference", "tokenizer_parts"]

#: What of a post-processor has a part in offsets alone.
_OFFSETS_OF_PROCESSORS = frozenset({"trim_offsets", "add_prefix_space", "use_regex"})
_LONGEST_VALUE = 100


def check_tokenizer(base: BaseModel, checkpoint: Checkpoint) -> None:
    """Refuse a checkpoint or adapter that brings a tokenizer which reads a text otherwise than the base model's.

    Raises:
        DeltaError: with the parts that differ and the first difference, or why the tokenizer cannot be loaded.
    """
    folder = checkpoint.folder
    if base.tokenizer is None or not has_tokenizer_files(folder):
        return
    remedy = f"if the base model's tokenizer was used in training, remove the tokenizer's files from {folder}"
    if not has_vocabulary(folder):
        raise DeltaError(
            f"{folder} has settings of a tokenizer, but no vocabulary, expected both or neither", hint=remedy
        )
    try:
        theirs = read_tokenizer(str(folder), config=checkpoint.model.config, local_only=True)
    except Exception as error:  # whatever transformers raises for a damaged file
        raise DeltaError(f"the tokenizer in {folder} cannot be loaded: {first_line(error)}", hint=remedy) from error
    if not getattr(theirs, "is_fast", False):
        raise DeltaError(f"the tokenizer in {folder} cannot be made a tokenizer.json, expected a fast one", hint=remedy)
    ours, found = tokenizer_parts(base.tokenizer, base), tokenizer_parts(theirs, base)
    different = [part for part in ours if ours[part] != found[part]]
    if different:
        raise DeltaError(
            f"the tokenizer in {folder} differs from {base.source.name}'s in its {', '.join(different)}: "
            f"{first_difference(ours[different[0]], found[different[0]])}",
            hint=f"name the base model that it was fine-tuned from; {remedy}",
        )


def tokenizer_parts(tokenizer: PreTrainedTokenizerBase, base: BaseModel) -> dict[str, Any]:
    """Returns all that decides which ids a text gets, by the names of the parts; equal parts, equal ids."""
    spec = json.loads(tokenizer.backend_tokenizer.to_str())
    model = spec["model"]
    return {
        "vocabulary": model.pop("vocab"),
        "merges": model.pop("merges", None),
        "added and special tokens": _added_tokens(spec),
        "normaliser": spec["normalizer"],
        "pre-tokeniser": _without(spec["pre_tokenizer"], {"trim_offsets"}),
        "post-processor": _without(spec["post_processor"], _OFFSETS_OF_PROCESSORS),
        "model settings": model,
        "splitting of special tokens": tokenizer.split_special_tokens,
        "inputs of the model": dict.fromkeys(text_inputs(base.module, tokenizer), True),
    }


def first_difference(ours: Any, theirs: Any) -> str:
    """Says in one line where two values of JSON differ first."""
    if isinstance(ours, list) and isinstance(theirs, list):
        ours, theirs = dict(enumerate(ours)), dict(enumerate(theirs))
    if isinstance(ours, dict) and isinstance(theirs, dict):
        for name in [*ours, *(name for name in theirs if name not in ours)]:
            if name not in ours or name not in theirs:
                lacking = "only the base model's" if name in ours else "only this one"
                return f"{lacking} has {_shown(name)}"
            if ours[name] != theirs[name]:
                inner = first_difference(ours[name], theirs[name])
                return f"{_shown(name)} {inner}" if inner.startswith("is ") else f"{_shown(name)}: {inner}"
    return f"is {_shown(theirs)}, expected {_shown(ours)}"


def _added_tokens(spec: dict[str, Any]) -> dict[str, Any]:
    tokens = {token.pop("content"): token for token in spec["added_tokens"]}
    if spec["normalizer"] is None and not _can_meet(tokens):
        # Each kind has a pass of its own over the text, which is the same text to both.
        for token in tokens.values():
            del token["normalized"]
    return tokens


def _can_meet(tokens: dict[str, Any]) -> bool:
    """Returns whether the order of tokens can matter: two may overlap, or claim a space or a word's end."""
    if any(token["single_word"] or name != name.strip() for name, token in tokens.items()):
        return True
    starts = {name[:end] for name in tokens for end in range(1, len(name))}
    overlapping = any(name[begin:] in starts for name in tokens for begin in range(1, len(name)))
    return overlapping or any(one in other for one, other in itertools.permutations(tokens, 2))


def _without(part: Any, names: frozenset[str] | set[str]) -> Any:
    """Returns a part of the pipeline without some settings of it and of the parts in it."""
    if isinstance(part, dict):
        return {name: _without(value, names) for name, value in part.items() if name not in names}
    return [_without(each, names) for each in part] if isinstance(part, list) else part


def _shown(value: Any) -> str:
    return repr(value)[:_LONGEST_VALUE]
