"""The pooling that a model names: in its folder, on the Hub, by its name; and the reason where it is not supported."""

from __future__ import annotations

import dataclasses
import json
from pathlib import Path
from typing import Any

import huggingface_hub
import pytest
from huggingface_hub import constants

from bitfit_export.base_model.loading import BaseModel, load_base_model
from bitfit_export.base_model.own_pooling import OwnPooling, find_own_pooling
from bitfit_export.base_model.source import ModelSource, resolve_model
from bitfit_export.errors import BaseModelError
from bitfit_export.training import TrainingSettings
from bitfit_export.training.heads import choose_head, describe_head

NONE = OwnPooling(None, "the model names none of its own")
COMMIT = "c" * 40


def flags(*modes: str) -> dict[str, Any]:
    """A pooling's config as sentence-transformers wrote it up to release 5."""
    known = ("cls_token", "mean_tokens", "max_tokens", "mean_sqrt_len_tokens", "weightedmean_tokens", "lasttoken")
    return {"word_embedding_dimension": 32} | {f"pooling_mode_{mode}": mode in modes for mode in known}


def modules(folder: str = "1_Pooling", kind: str = "sentence_transformers.models.Pooling") -> list[dict[str, Any]]:
    return [
        {"idx": 0, "name": "0", "path": "", "type": "sentence_transformers.models.Transformer"},
        {"idx": 1, "name": "1", "path": folder, "type": kind},
    ]


def write(folder: Path, files: dict[str, Any]) -> Path:
    for name, value in files.items():
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        (folder / name).write_text(value if isinstance(value, str) else json.dumps(value))
    return folder


def of_folder(folder: Path, files: dict[str, Any]) -> OwnPooling:
    return find_own_pooling(ModelSource("mine", "mine", str(write(folder, files))), None)


@pytest.mark.parametrize(
    ("config", "pooling"),
    [
        (flags("mean_tokens"), "mean"),
        (flags("cls_token"), "cls"),
        (flags("lasttoken"), "last"),
        ({"embedding_dimension": 32, "pooling_mode": "mean", "include_prompt": True}, "mean"),
        ({"embedding_dimension": 32, "pooling_mode": "cls"}, "cls"),
        ({"embedding_dimension": 32, "pooling_mode": ["lasttoken"]}, "last"),
    ],
)
def test_a_folder_names_its_pooling(tmp_path: Path, config: dict[str, Any], pooling: str) -> None:
    found = of_folder(tmp_path, {"modules.json": modules(), "1_Pooling/config.json": config})
    assert found == OwnPooling(pooling, "the model's own, by its pooling's config.json")


def test_the_list_of_modules_says_which_folder(tmp_path: Path) -> None:
    kind = "sentence_transformers.sentence_transformer.modules.pooling.Pooling"
    files = {
        "modules.json": modules("2_Pool", kind),
        "2_Pool/config.json": flags("cls_token"),
        "1_Pooling/config.json": flags("mean_tokens"),
    }
    assert of_folder(tmp_path, files).pooling == "cls"


def test_without_a_list_of_modules_it_is_the_usual_folder(tmp_path: Path) -> None:
    assert of_folder(tmp_path, {"1_Pooling/config.json": flags("mean_tokens")}).pooling == "mean"


@pytest.mark.parametrize(
    "files",
    [
        {},
        {"modules.json": modules()},
        {"modules.json": modules("1_Normalize", "sentence_transformers.models.Normalize")},
        {"modules.json": [], "1_Pooling/config.json": flags("mean_tokens")},
    ],
)
def test_a_folder_without_one_is_no_error(tmp_path: Path, files: dict[str, Any]) -> None:
    assert of_folder(tmp_path, files) == NONE


@pytest.mark.parametrize(
    ("config", "modes"),
    [
        (flags("max_tokens"), "max"),
        (flags("weightedmean_tokens"), "weightedmean"),
        (flags("mean_sqrt_len_tokens"), "mean_sqrt_len"),
        (flags("cls_token", "mean_tokens"), "cls with mean"),
        ({"pooling_mode": ["mean", "max"]}, "mean with max"),
        ({"pooling_mode": "max"}, "max"),
        (flags(), "without a mode"),
        ({"pooling_mode": "\x1b[2Jmax"}, r"\x1b[2Jmax"),
        ({"pooling_mode": "m" * 1000}, "m" * 100),
    ],
)
def test_a_pooling_that_is_not_supported_is_named(tmp_path: Path, config: dict[str, Any], modes: str) -> None:
    found = of_folder(tmp_path, {"1_Pooling/config.json": config})
    assert found == OwnPooling(None, f"the model's own, {modes}, is not supported")


@pytest.mark.parametrize(
    ("files", "message"),
    [
        ({"modules.json": "{"}, r"modules\.json of mine is not valid JSON"),
        ({"modules.json": "[" * 100_000}, r"modules\.json of mine is not valid JSON"),
        ({"modules.json": {"a": 1}}, "is not a list of modules"),
        ({"modules.json": [1]}, "is not a list of modules"),
        ({"modules.json": modules("../elsewhere")}, "names a folder outside the model's"),
        ({"modules.json": modules("/etc")}, "names a folder outside the model's"),
        ({"1_Pooling/config.json": "mean"}, "is not valid JSON"),
        ({"1_Pooling/config.json": '"mean"'}, "is not a JSON object"),
    ],
)
def test_damaged_files_are_one_error(tmp_path: Path, files: dict[str, Any], message: str) -> None:
    with pytest.raises(BaseModelError, match=message) as caught:
        of_folder(tmp_path, files)
    assert "--pooling" in (caught.value.hint or "")


@pytest.mark.parametrize("model", ["minilm-l6", "mpnet-base", "sentence-transformers/all-mpnet-base-v2"])
def test_the_aliases_poolings_are_known_without_their_files(model: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(huggingface_hub, "hf_hub_download", None)
    assert find_own_pooling(resolve_model(model), COMMIT).pooling == "mean"


# --- the Hub


@pytest.fixture
def cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """The Hub's cache of one model at one commit, without a network."""
    monkeypatch.setattr(constants, "HF_HUB_OFFLINE", True)
    monkeypatch.setattr(constants, "HF_HUB_CACHE", str(tmp_path))
    return tmp_path / "models--org--name"


def of_hub() -> OwnPooling:
    return find_own_pooling(ModelSource("org--name", "org/name", "org/name"), COMMIT)


def test_a_model_in_the_cache_names_its_pooling_offline(cache: Path) -> None:
    files = {"modules.json": modules(), "1_Pooling/config.json": flags("cls_token")}
    write(cache / "snapshots" / COMMIT, files)
    assert of_hub().pooling == "cls"


def test_a_model_that_is_known_to_lack_the_files_has_none_offline(cache: Path) -> None:
    write(cache / ".no_exist" / COMMIT, {"modules.json": "", "1_Pooling/config.json": ""})
    write(cache / "snapshots" / COMMIT, {"config.json": "{}"})
    assert of_hub() == NONE


def test_a_cache_that_does_not_know_is_no_error_offline_but_said(cache: Path) -> None:
    write(cache / "snapshots" / COMMIT, {"config.json": "{}"})
    found = of_hub()
    assert found.pooling is None
    assert found.reason.startswith("the model's own could not be looked up: the Hugging Face Hub cannot be reached")


def test_the_hub_is_asked_at_the_model_s_revision(cache: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    files = write(cache / "elsewhere", {"modules.json": modules(), "1_Pooling/config.json": flags("mean_tokens")})
    calls: list[tuple[str, str, str]] = []

    def download(repository: str, name: str, *, revision: str) -> str:
        calls.append((repository, name, revision))
        return str(files / name)

    monkeypatch.setattr(huggingface_hub, "hf_hub_download", download)
    assert of_hub().pooling == "mean"
    assert calls == [("org/name", name, COMMIT) for name in ("modules.json", "1_Pooling/config.json")]


# --- what training makes of it


@pytest.fixture
def pooled_base(tiny_base: BaseModel, tmp_path: Path) -> BaseModel:
    """The tiny BERT in a folder that names the mean."""
    return dataclasses.replace(
        tiny_base,
        source=ModelSource("mine", "mine", str(write(tmp_path, {"1_Pooling/config.json": flags("mean_tokens")}))),
    )


@pytest.mark.parametrize(
    ("problem_type", "settings", "head"),
    [
        ("single_label", {}, ("mean", None)),
        ("regression", {"activation": "tanh"}, ("mean", "tanh")),
        ("single_label", {"pooling": "pooler"}, ("pooler", None)),
        ("token", {}, ("tokens", None)),
        ("span", {}, ("tokens", None)),
    ],
)
def test_auto_follows_the_model_s_own_pooling(
    pooled_base: BaseModel, problem_type: str, settings: dict[str, str], head: tuple[str, str | None]
) -> None:
    assert choose_head(pooled_base, problem_type, TrainingSettings(**settings)) == head


def test_the_packaged_model_reads_the_mean() -> None:
    """Its class's own head reads a pooler that it never trained."""
    base = load_base_model("minilm-l6")
    assert choose_head(base, "single_label", TrainingSettings()) == ("mean", None)


def test_the_choice_is_explained(pooled_base: BaseModel, tiny_base: BaseModel, tmp_path: Path) -> None:
    def explained(base: BaseModel, problem_type: str = "single_label", **settings: str) -> str:
        return describe_head(base, problem_type, TrainingSettings(**settings))

    assert explained(pooled_base) == "pooling mean (the model's own, by its pooling's config.json), one linear layer"
    assert explained(pooled_base, pooling="cls", activation="tanh") == (
        "pooling cls (as asked for), a dense layer with tanh, then a linear one"
    )
    assert explained(pooled_base, "token") == "pooling tokens (as every token task), one linear layer"
    assert explained(tiny_base) == (
        "pooling pooler (that of transformers' class; the model names none of its own), one linear layer"
    )
    write(tmp_path, {"1_Pooling/config.json": flags("max_tokens")})
    other = dataclasses.replace(pooled_base)
    assert "transformers' class; the model's own, max, is not supported" in explained(other)


def test_a_pooling_that_is_asked_for_reads_no_file(pooled_base: BaseModel, tmp_path: Path) -> None:
    write(tmp_path, {"1_Pooling/config.json": "damaged"})
    assert choose_head(pooled_base, "single_label", TrainingSettings(pooling="mean")) == ("mean", None)
    with pytest.raises(BaseModelError, match="is not valid JSON"):
        choose_head(dataclasses.replace(pooled_base), "single_label", TrainingSettings())
