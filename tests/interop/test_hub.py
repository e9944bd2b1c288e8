"""Deltas on the Hugging Face Hub: the real client's errors, and a Hub that is a folder on this machine."""

from __future__ import annotations

import shutil
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import httpx2
import pytest
from huggingface_hub import HfApi, errors

from bitfit_export.base_model.loading import BaseModel
from bitfit_export.cli import main
from bitfit_export.delta import CONFIG_FILE, TENSOR_FILE, TaskDelta
from bitfit_export.errors import DeltaError, HubError, UsageError
from bitfit_export.interop import hub
from bitfit_export.interop.delta_lookup import find_deltas, load_deltas
from bitfit_export.training.model_card import render_card


class FolderHub:
    """What of `HfApi` is used, with its signatures, over folders."""

    def __init__(self, root: Path) -> None:
        self.root = root
        self.private: dict[str, bool] = {}

    def whoami(self) -> dict[str, str]:
        return {"name": "someone"}

    def create_repo(self, repo_id: str, *, private: bool, exist_ok: bool) -> None:
        (self.root / repo_id).mkdir(parents=True, exist_ok=exist_ok)
        self.private[repo_id] = private

    def upload_folder(self, *, repo_id: str, folder_path: str, allow_patterns: list[str], commit_message: str) -> None:
        for path in Path(folder_path).iterdir():
            assert path.name in allow_patterns
            shutil.copy(path, self.root / repo_id)

    def snapshot_download(self, repo_id: str, *, revision: str | None, allow_patterns: list[str]) -> str:
        if not (self.root / repo_id).is_dir():
            raise _answer(errors.RepositoryNotFoundError, 404)
        if revision is not None:
            raise _answer(errors.RevisionNotFoundError, 404)
        return str(self.root / repo_id)


def _answer(kind: type[Exception], status: int) -> Exception:
    return kind("a long\nstory", response=httpx2.Response(status, request=httpx2.Request("GET", "https://hub")))


@pytest.fixture
def folder_hub(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> FolderHub:
    made = FolderHub(tmp_path / "hub")
    monkeypatch.setattr(hub, "client", lambda: made)
    return made


@pytest.fixture
def delta_folder(tmp_path: Path, tiny_deltas: dict[str, TaskDelta]) -> Path:
    delta = tiny_deltas["two_way"]
    delta.save(tmp_path / "delta", card=render_card(delta, "tiny-bert"))
    return tmp_path / "delta"


def test_a_delta_comes_back_from_the_hub(
    folder_hub: FolderHub, delta_folder: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    (delta_folder / "notes.txt").write_text("mine")
    assert main(["push", str(delta_folder), "org/two-way", "--private"]) == 0
    assert capsys.readouterr().out == "https://huggingface.co/org/two-way\n"
    assert folder_hub.private == {"org/two-way": True}
    found = find_deltas("tiny-bert", ["hub:org/two-way", "again=hub:org/two-way"])
    assert list(found) == ["two_way", "again"]
    for name in (TENSOR_FILE, CONFIG_FILE):
        assert (found["two_way"] / name).read_bytes() == (delta_folder / name).read_bytes()
    assert load_deltas(found)["again"].config.task == "two_way"
    assert not (found["two_way"] / "notes.txt").exists()


def test_the_card_says_how_to_compile_from_the_hub(folder_hub: FolderHub, delta_folder: Path) -> None:
    hub.push_delta(delta_folder, "org/two-way")
    card = (folder_hub.root / "org/two-way/README.md").read_text()
    assert "bitfit-export --model tiny-bert --tasks two_way=hub:org/two-way\n" in card
    assert "base_model: tiny-bert\n" in card
    assert "| accuracy | 0.5000 |" in card


@pytest.mark.slow
@pytest.mark.usefixtures("shared_trace")
def test_a_task_from_the_hub_is_compiled(
    folder_hub: FolderHub, delta_folder: Path, tiny_base: BaseModel, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    hub.push_delta(delta_folder, "org/two-way")
    words = ["--model", tiny_base.source.location, "--tasks", "hub:org/two-way", "--output", str(tmp_path / "bundle")]
    assert main(["export", *words]) == 0, capsys.readouterr().err
    assert (tmp_path / "bundle/tasks/two_way.bias").is_file()


@pytest.mark.parametrize(
    "name",
    [
        "org",
        "org/",
        "/name",
        "a/b/c",
        "../x/y",
        "org/na me",
        "-x/y",
        "a/b--c",
        "a/b..c",
        "a/b.",
        "a/é",
        f"a/{'b' * 97}",
    ],
)
def test_a_repository_has_a_name_of_one_form(folder_hub: FolderHub, delta_folder: Path, name: str) -> None:
    for ask in (lambda: hub.push_delta(delta_folder, name), lambda: hub.pull_delta(name), lambda: hub.check_push(name)):
        with pytest.raises(UsageError, match="expected the form org/name"):
            ask()


def test_what_is_no_delta_is_not_uploaded(folder_hub: FolderHub, delta_folder: Path) -> None:
    data = (delta_folder / TENSOR_FILE).read_bytes()
    (delta_folder / TENSOR_FILE).write_bytes(data[:-1])
    with pytest.raises(DeltaError, match="is not a valid safetensors file"):
        hub.push_delta(delta_folder, "org/two-way")
    assert not folder_hub.root.exists()


def test_a_repository_without_a_whole_delta_is_refused(folder_hub: FolderHub, delta_folder: Path) -> None:
    (folder_hub.root / "org/model").mkdir(parents=True)
    with pytest.raises(DeltaError, match=f"org/model on the Hub holds no delta: it has no {CONFIG_FILE}"):
        find_deltas("tiny-bert", ["hub:org/model"])
    hub.push_delta(delta_folder, "org/model")
    (folder_hub.root / "org/model" / TENSOR_FILE).write_bytes(b"x")
    with pytest.raises(DeltaError, match="is not a valid safetensors file"):
        find_deltas("tiny-bert", ["hub:org/model"])


def test_a_repository_or_revision_that_is_not_there(folder_hub: FolderHub, delta_folder: Path) -> None:
    with pytest.raises(HubError, match="there is no org/nothing on the Hub"):
        find_deltas("tiny-bert", ["x=hub:org/nothing"])
    hub.push_delta(delta_folder, "org/two-way")
    with pytest.raises(HubError, match="org/two-way on the Hub has no such revision"):
        find_deltas("tiny-bert", ["x=hub:org/two-way@v9"])


@pytest.mark.parametrize(
    ("raised", "message"),
    [
        (_answer(errors.HfHubHTTPError, 401), "refuses org/name to the token of this machine (401)"),
        (_answer(errors.HfHubHTTPError, 403), "refuses org/name to the token of this machine (403)"),
        (_answer(errors.HfHubHTTPError, 500), "the Hub answered 500 about org/name: a long"),
        (_answer(errors.GatedRepoError, 403), "asks for its terms to be accepted"),
        (errors.LocalTokenNotFoundError("a long\nstory"), "wants a token, and there is none on this machine"),
        (httpx2.ConnectTimeout("timed out"), "cannot be reached for org/name: timed out"),
    ],
)
def test_what_the_client_raises_is_said_in_one_line(
    folder_hub: FolderHub, delta_folder: Path, monkeypatch: pytest.MonkeyPatch, raised: Exception, message: str
) -> None:
    def fail(*words: Any, **options: Any) -> None:
        raise raised

    monkeypatch.setattr(folder_hub, "create_repo", fail)
    with pytest.raises(HubError) as caught:
        hub.push_delta(delta_folder, "org/name")
    assert message in caught.value.message
    assert "\n" not in caught.value.message


def test_the_real_client_without_a_network_and_without_a_token(
    delta_folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Port 9 of this machine: nobody listens."""
    api = HfApi(endpoint="http://127.0.0.1:9")
    monkeypatch.setattr(hub, "client", lambda: api)
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_CACHE", str(tmp_path))
    monkeypatch.setattr("huggingface_hub.utils._auth.get_token", lambda: None)
    cases: Sequence[tuple[Callable[[], object], str]] = (
        (lambda: hub.pull_delta("org/name"), "cannot be reached for org/name"),
        (lambda: hub.push_delta(delta_folder, "org/name"), "cannot be reached for org/name"),
        (lambda: hub.check_push("org/name"), "wants a token|cannot be reached"),
    )
    for ask, message in cases:
        with pytest.raises(HubError, match=message):
            ask()


def test_training_asks_the_hub_first(
    folder_hub: FolderHub, tiny_base: BaseModel, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: Any
) -> None:
    from tests.experiments.conftest import write_task

    write_task(tmp_path / "mood", train=4)
    monkeypatch.chdir(tmp_path)
    words = ["train", "--model", tiny_base.source.location, "--task", "mood", "--data", "mood", "--epochs", "1"]
    words += ["--max-length", "16", "--threads", "1", "--push-to-hub", "org/mood"]
    assert main(words) == 0
    assert capsys.readouterr().out == "deltas/tiny-bert/mood\nhttps://huggingface.co/org/mood\n"
    assert hub.pull_delta("org/mood").is_dir()

    def refuse() -> None:
        raise errors.LocalTokenNotFoundError("no token")

    monkeypatch.setattr(folder_hub, "whoami", refuse)
    assert main([*words, "--overwrite"]) == 2
    said = capsys.readouterr().err
    assert "wants a token" in said
    assert "epoch" not in said
    assert main([*words, "--method", "full"]) == 2
    assert "makes no delta" in capsys.readouterr().err
