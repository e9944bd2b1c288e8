"""A session of a bundle that can learn, and examples that are easy to learn from."""

from __future__ import annotations

from pathlib import Path

import pytest

from bitfit_export.runtime import BiasSession
from bitfit_export.runtime.learning import BiasTrainer, LabelledTexts

GOOD = ("good fine lovely", "a lovely day", "fine and good", "good food", "what a fine film", "lovely people")
BAD = ("bad awful", "an awful day", "bad and poor", "poor food", "what a bad film", "awful people")


@pytest.fixture(scope="session")
def session(trainable_bundle: Path) -> BiasSession:
    return BiasSession(trainable_bundle, engine="onnxruntime", threads=1)


@pytest.fixture(scope="session")
def trainer(session: BiasSession) -> BiasTrainer:
    return BiasTrainer(session)


@pytest.fixture
def examples() -> LabelledTexts:
    """Twelve texts of two classes."""
    return LabelledTexts([(text,) for text in (*GOOD, *BAD)], [1] * len(GOOD) + [0] * len(BAD))
