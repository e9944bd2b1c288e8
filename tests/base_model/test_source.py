"""From `--model` to where the model is."""

from __future__ import annotations

from pathlib import Path

import pytest

from bitfit_export.base_model.loading import BaseModel
from bitfit_export.base_model.source import resolve_model
from bitfit_export.errors import BaseModelError


def test_an_alias_and_its_hub_id_are_the_same_model() -> None:
    assert resolve_model("bert-base") == resolve_model("google-bert/bert-base-cased")
    assert resolve_model("bert-base").short_name == "bert-base"


def test_a_local_folder_is_known_by_its_name(tiny_base: BaseModel) -> None:
    source = resolve_model(tiny_base.source.location)
    assert (source.short_name, source.name) == ("tiny-bert", "tiny-bert")


@pytest.mark.parametrize("model", ["no-such-model", "./missing", "/missing", "a/b/c"])
def test_what_is_neither_folder_nor_hub_id_is_refused(model: str) -> None:
    with pytest.raises(BaseModelError, match="is neither a folder nor a Hub id"):
        resolve_model(model)


def test_a_folder_without_a_checkpoint_is_refused(tmp_path: Path) -> None:
    with pytest.raises(BaseModelError, match=r"has no config\.json"):
        resolve_model(str(tmp_path))
