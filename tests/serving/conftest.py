"""A service on the tiny bundle, and a folder of rows that others write."""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any, TypeAlias

import numpy as np
import pytest

from bitfit_export.bundle import BiasRow, read_manifest, read_row, write_row
from bitfit_export.runtime import BiasSession
from bitfit_export.serving.service import Service

WriteRow: TypeAlias = Callable[..., Path]
OpenService: TypeAlias = Callable[..., Service]


@pytest.fixture(scope="session")
def model_row(tiny_bundle: Path) -> BiasRow:
    """A row of the tiny bundle, to make others of."""
    return read_row(tiny_bundle / "tasks" / "two_way.bias", layout=read_manifest(tiny_bundle).layout)


@pytest.fixture
def rows(tmp_path: Path) -> Path:
    """An empty folder of rows."""
    folder = tmp_path / "rows"
    folder.mkdir()
    return folder


@pytest.fixture
def add_row(rows: Path, model_row: BiasRow) -> WriteRow:
    """Writes a row whose answers do not depend on the text: the logit of its second label is `lead` ahead."""

    def add(task: str, *, lead: float = 0.0, name: str | None = None, version: int = 1) -> Path:
        *others, weight, bias = model_row.head
        head = (*others, np.zeros_like(weight), np.array([0.0, lead], bias.dtype))
        row = replace(model_row, task=task, task_version=version, head=head)
        path = rows / f"{name or task}.bias"
        write_row(path, row)
        return path

    return add


@pytest.fixture
def session(tiny_bundle: Path) -> BiasSession:
    return BiasSession(tiny_bundle, threads=1)


@pytest.fixture
def open_service(session: BiasSession, monkeypatch: pytest.MonkeyPatch) -> Iterator[OpenService]:
    """Opens services that look at their folder when a test says so."""
    monkeypatch.setattr("bitfit_export.serving.service.LOOK_EVERY", threading.TIMEOUT_MAX)
    opened: list[Service] = []

    def open_one(**options: Any) -> Service:
        opened.append(Service(session, **options))
        return opened[-1]

    yield open_one
    for each in opened:
        each.close()
