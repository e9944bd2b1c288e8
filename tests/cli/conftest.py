"""A working folder as a user has it: a base model, its deltas, and the commands."""

from __future__ import annotations

import json
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TypeAlias

import pytest

from bitfit_export.base_model.loading import BaseModel
from bitfit_export.cli import main
from bitfit_export.delta import TaskDelta


@dataclass(frozen=True)
class Done:
    """A finished command."""

    status: int
    out: str
    err: str


Bitfit: TypeAlias = Callable[..., Done]


@pytest.fixture
def bitfit(capsys: pytest.CaptureFixture[str]) -> Bitfit:
    """Run `bitfit ...` in this process."""

    def run(*words: object) -> Done:
        capsys.readouterr()
        status = main([str(word) for word in words])
        captured = capsys.readouterr()
        return Done(status, captured.out, captured.err)

    return run


@pytest.fixture(scope="session")
def deltas_folder(tmp_path_factory: pytest.TempPathFactory, tiny_deltas: dict[str, TaskDelta]) -> Path:
    """`--deltas` with the three tasks of `tiny_deltas`."""
    folder = tmp_path_factory.mktemp("deltas")
    for name, delta in tiny_deltas.items():
        delta.save(folder / name, card="# card\n")
    return folder


@pytest.fixture(scope="session")
def model_folder(tiny_base: BaseModel) -> str:
    return tiny_base.source.location


@pytest.fixture
def workplace(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """An empty current folder."""
    monkeypatch.chdir(tmp_path)
    return tmp_path


def write_lines(path: Path, values: Sequence[object]) -> Path:
    path.write_text("".join(f"{json.dumps(value)}\n" for value in values))
    return path
