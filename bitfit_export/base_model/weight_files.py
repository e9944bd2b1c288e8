"""The tensors in a checkpoint's safetensors files, from their headers alone: names, dtypes and shapes."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path

__all__ = [
    "StoredTensor",
    "explain_missing",
    "find_wrapper",
    "narrowest_dtype",
    "stored_dtype",
    "stored_tensors",
    "weight_files",
    "wrapper_in",
]

#: The dtypes of weights that are read, as safetensors writes them, and their names in torch; the most exact first.
_FLOATS = {"F64": "float64", "F32": "float32", "F16": "float16", "BF16": "bfloat16"}
#: What is not a weight: masks and position ids.
_INTEGERS = frozenset({"I64", "I32", "U8", "BOOL"})

_FILE = "model.safetensors"
_INDEX = "model.safetensors.index.json"
#: The modules that tools put around a model or one of its layers, and the tools.
_WRAPPERS = {
    "_orig_mod": "torch.compile",
    "_fsdp_wrapped_module": "FullyShardedDataParallel",
    "_checkpoint_wrapped_module": "activation checkpointing",
    "module": "DistributedDataParallel",
}


@dataclass(frozen=True)
class StoredTensor:
    """A tensor as a file has it; `dtype` in the words of safetensors, such as `F32`."""

    dtype: str
    shape: tuple[int, ...]


def weight_files(location: str, *, revision: str | None = None, local_only: bool = False) -> list[Path]:
    """Returns the files that transformers loads from a folder or a Hub id; none where it has no safetensors.

    Raises:
        OSError, ValueError, KeyError: an index that is damaged, or files that the Hub does not hand out.
    """
    from transformers.utils.hub import cached_file, get_checkpoint_shard_files

    options = {"revision": revision, "local_files_only": local_only}
    found = cached_file(location, _FILE, _raise_exceptions_for_missing_entries=False, **options)
    if found is not None:
        return [Path(found)]
    index = cached_file(location, _INDEX, _raise_exceptions_for_missing_entries=False, **options)
    if index is None:
        return []
    shards, _ = get_checkpoint_shard_files(location, index, **options)
    return [Path(shard) for shard in shards]


def stored_tensors(paths: Iterable[Path]) -> dict[str, StoredTensor]:
    """Returns the tensors of safetensors files by name.

    Raises:
        OSError, safetensors.SafetensorError: a file that is missing or damaged.
    """
    from safetensors import safe_open

    tensors = {}
    for path in paths:
        with safe_open(path, framework="numpy") as file:
            for name in file.keys():  # noqa: SIM118 (it is not a mapping)
                view = file.get_slice(name)
                tensors[name] = StoredTensor(view.get_dtype(), tuple(view.get_shape()))
    return tensors


def stored_dtype(tensors: Mapping[str, StoredTensor]) -> str:
    """Returns the dtype, in torch's words, that holds every weight exactly: the files' own where they have one.

    Raises:
        ValueError: as `_weight_dtypes`.
    """
    found = _weight_dtypes(tensors)
    # Neither of the two holds all values of the other; float32 holds those of both.
    return "float32" if found == ["float16", "bfloat16"] else found[0]


def narrowest_dtype(tensors: Mapping[str, StoredTensor]) -> str:
    """Returns the dtype, in torch's words, of the weights that have the fewest digits.

    Raises:
        ValueError: as `_weight_dtypes`.
    """
    return _weight_dtypes(tensors)[-1]


def _weight_dtypes(tensors: Mapping[str, StoredTensor]) -> list[str]:
    """Returns the dtypes of all weights, the most exact first.

    Raises:
        ValueError: one that is none of float64, float32, float16 and bfloat16, such as those of quantised weights.
    """
    for name, tensor in tensors.items():
        if tensor.dtype not in _FLOATS and tensor.dtype not in _INTEGERS:
            raise ValueError(f"{name!r} is stored as {tensor.dtype}, expected {', '.join(_FLOATS.values())}")
    found = {tensor.dtype for tensor in tensors.values()}
    return [name for dtype, name in _FLOATS.items() if dtype in found] or ["float32"]


def explain_missing(missing: Iterable[str], unread: Iterable[str], otherwise: str) -> tuple[str, str]:
    """Returns how an error about missing tensors ends, and its hint: about a wrapper where there is one.

    Args:
        missing, unread: as `find_wrapper`.
        otherwise: the hint where no wrapper explains the difference.
    """
    wrapper = find_wrapper(missing, unread)
    if wrapper is None:
        return "", otherwise
    return f"; its file has {wrapper}", "take the model out of its wrapper, and save it again with save_pretrained"


def find_wrapper(missing: Iterable[str], unread: Iterable[str]) -> str | None:
    """Says what makes names of a file differ from a model's, where they are the same but for a wrapper's part.

    Args:
        missing: the names that the model has and the file has not.
        unread: the names that the file has and the model has not.
    """
    expected, found = sorted(missing), sorted(unread)
    wrapper = wrapper_in(found)
    if wrapper is not None:
        return wrapper
    for name in found:
        prefix = next((name.removesuffix(each) for each in expected if name.endswith(f".{each}")), None)
        if prefix is not None:
            return f"{prefix[:100]!r} in front of its names"
    return None


def wrapper_in(names: Iterable[str]) -> str | None:
    """Says which wrapper's part is in the names of tensors, if any is."""
    parts = {part for name in names for part in name.split(".")}
    return next(
        (f"'{part}.' in its names, which {tool} puts there" for part, tool in _WRAPPERS.items() if part in parts), None
    )
