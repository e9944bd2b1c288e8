"""What `tests.conftest.shipped_bundle` was compiled from."""

from __future__ import annotations

from pathlib import Path

import pytest

from bitfit_export.base_model.loading import BaseModel, load_base_model
from bitfit_export.delta import TaskDelta
from bitfit_export.interop.delta_lookup import find_deltas, load_deltas
from tests.conftest import SHIPPED


@pytest.fixture(scope="session")
def minilm(minilm_folder: Path) -> BaseModel:
    return load_base_model("minilm-l6")


@pytest.fixture(scope="session")
def deltas() -> dict[str, TaskDelta]:
    return load_deltas(find_deltas("minilm-l6", SHIPPED))
