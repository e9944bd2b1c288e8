"""The training methods that the papers compare, each in the words of one interface, `Method`."""

from __future__ import annotations

from bitfit_export.training.methods.adapters import Adapters
from bitfit_export.training.methods.base import Method
from bitfit_export.training.methods.diff_pruning import DiffPruning
from bitfit_export.training.methods.random_entries import RandRowCol, RandUniform
from bitfit_export.training.methods.subsets import BitFit, Frozen, Full
from bitfit_export.training.settings import TrainingSettings

__all__ = ["Method", "create_method"]

_METHODS: dict[str, type[Method]] = {
    "bitfit": BitFit,
    "frozen": Frozen,
    "full": Full,
    "rand-uniform": RandUniform,
    "rand-row-col": RandRowCol,
    "adapters": Adapters,
    "diff-pruning": DiffPruning,
}


def create_method(settings: TrainingSettings) -> Method:
    """The method that the settings name."""
    return _METHODS[settings.method](settings)
