"""The pooling that a base model was trained with, where its publisher says so.

sentence-transformers keeps it beside the weights: `modules.json` lists the modules of a model with their folders, and
the pooling's folder, mostly `1_Pooling`, has a `config.json` that names the modes. A head that reads the hidden states
in the same way learns at once; a pooler that such a model has but never trained hardly does.
"""

from __future__ import annotations

import json
from dataclasses import dataclass
from pathlib import Path, PurePosixPath
from typing import TYPE_CHECKING, Any

from bitfit_export.errors import BaseModelError, first_line

if TYPE_CHECKING:
    from bitfit_export.base_model.source import ModelSource

__all__ = ["OwnPooling", "find_own_pooling"]

#: Models whose pooling is known for their names: a copy of their weights may lack the files that say it.
_KNOWN = {
    "sentence-transformers/all-MiniLM-L6-v2": "mean",
    "sentence-transformers/all-mpnet-base-v2": "mean",
}
_MODULES_FILE = "modules.json"
#: Where the pooling is if nothing lists the modules.
_USUAL_FOLDER = "1_Pooling"
#: sentence-transformers' modes that are poolings here.
_MODES = {"cls": "cls", "mean": "mean", "lasttoken": "last"}
#: As much of the names of other modes is shown.
_SHOWN_CHARACTERS = 100
_FLAG = "pooling_mode_"


@dataclass(frozen=True)
class OwnPooling:
    """A model's own pooling.

    Attributes:
        pooling: one of `POOLINGS`; None where the model has none of its own, or one that is not supported.
        reason: for people, after a colon or a semicolon: where the pooling is from, or why there is none.
    """

    pooling: str | None
    reason: str


class _UnreachableError(Exception):
    """The Hub could not be asked, so nobody knows whether the file exists."""


def find_own_pooling(source: ModelSource, revision: str | None) -> OwnPooling:
    """Returns the pooling that the model names in its folder or, at the same revision, on the Hub.

    A model without these files has none of its own, and neither has one on a Hub that cannot be reached.

    Raises:
        BaseModelError: the files are there but do not have sentence-transformers' form.
    """
    if source.name in _KNOWN:
        return OwnPooling(_KNOWN[source.name], "the model's own")
    try:
        modules = _read(source, revision, _MODULES_FILE)
        folder = _USUAL_FOLDER if modules is None else _pooling_folder(source, modules)
        config = None if folder is None else _read(source, revision, f"{folder}/config.json")
    except _UnreachableError as error:
        return OwnPooling(None, f"the model's own could not be looked up: {error}")
    if config is None:
        return OwnPooling(None, "the model names none of its own")
    modes = _modes(source, config)
    pooling = _MODES.get(modes[0]) if len(modes) == 1 else None
    if pooling is None:
        named = ascii(" with ".join(modes))[1:-1][:_SHOWN_CHARACTERS] or "without a mode"
        return OwnPooling(None, f"the model's own, {named}, is not supported")
    return OwnPooling(pooling, "the model's own, by its pooling's config.json")


def _read(source: ModelSource, revision: str | None, name: str) -> Any:
    """The JSON of one of the model's files; None where there is no such file."""
    folder = Path(source.location)
    path = folder / name if folder.is_dir() else _from_hub(source.location, revision, name)
    if path is None or not path.is_file():
        return None
    try:
        return json.loads(path.read_bytes())
    except (ValueError, RecursionError) as error:
        raise _bad_file(source, name, "is not valid JSON (truncated or malformed)") from error


def _from_hub(repository: str, revision: str | None, name: str) -> Path | None:
    """A file in the Hub's cache, downloaded if need be; None where the repository has no such file.

    Raises:
        _UnreachableError: neither the cache nor the Hub says whether it has.
    """
    from huggingface_hub import _CACHED_NO_EXIST, hf_hub_download, try_to_load_from_cache
    from huggingface_hub.errors import EntryNotFoundError, LocalEntryNotFoundError

    cached = try_to_load_from_cache(repository, name, revision=revision)
    if cached is _CACHED_NO_EXIST:
        return None
    try:
        return Path(cached if isinstance(cached, str) else hf_hub_download(repository, name, revision=revision))
    except LocalEntryNotFoundError as error:
        raise _UnreachableError("the Hugging Face Hub cannot be reached, and its cache does not have it") from error
    except EntryNotFoundError:
        return None
    except Exception as error:  # the client's, those of the HTTP library below it, and the operating system's
        raise _UnreachableError(first_line(error)) from error


def _pooling_folder(source: ModelSource, modules: Any) -> str | None:
    """The folder of the pooling among a model's modules; None where it has no such module."""
    if not isinstance(modules, list) or not all(isinstance(each, dict) for each in modules):
        raise _bad_file(source, _MODULES_FILE, "is not a list of modules")
    for module in modules:
        if str(module.get("type")).rpartition(".")[2] == "Pooling":
            path = PurePosixPath(str(module.get("path")))
            if path.is_absolute() or ".." in path.parts:
                raise _bad_file(source, _MODULES_FILE, "names a folder outside the model's")
            return str(path)
    return None


def _modes(source: ModelSource, config: Any) -> tuple[str, ...]:
    """The modes that a pooling's config names: as a word or a list of words, or in older releases as flags."""
    if not isinstance(config, dict):
        raise _bad_file(source, "the pooling's config.json", "is not a JSON object")
    named = config.get("pooling_mode")
    if isinstance(named, str):
        return (named,)
    if isinstance(named, list):
        return tuple(map(str, named))
    flags = (name.removeprefix(_FLAG) for name, value in config.items() if name.startswith(_FLAG) and value is True)
    return tuple(flag.removesuffix("_tokens").removesuffix("_token") for flag in flags)


def _bad_file(source: ModelSource, name: str, problem: str) -> BaseModelError:
    return BaseModelError(
        f"{name} of {source.name} {problem}",
        hint="repair it, or pass --pooling and it is not read",
    )
