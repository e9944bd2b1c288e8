"""The real GLUE tasks have as many examples as they should."""

from __future__ import annotations

import pytest

from bitfit_export.training.data import load_task_data
from tests.conftest import real_data


@pytest.mark.data
@pytest.mark.parametrize(
    ("task", "train", "validation"),
    [("rte", 2490, 277), ("mrpc", 3668, 408), ("stsb", 5749, 1500), ("cola", 8551, 1043), ("sst2", 67349, 872)],
)
def test_real_glue(task: str, train: int, validation: int) -> None:
    data = load_task_data(task, data=real_data(task))
    assert (len(data.train), len(data.validation)) == (train, validation)
    if task == "stsb":
        assert min(data.train.labels) == 0.0
        assert max(data.train.labels) == 5.0
    else:
        assert set(data.train.labels) == set(data.validation.labels) == set(range(len(data.spec.labels)))
    if task == "rte":
        assert data.train.labels.count(0) == 1249
