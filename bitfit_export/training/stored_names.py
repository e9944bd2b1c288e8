"""The settings that files have under another name than the code.

Every release reads the results of every other one, and a trial's name is partly a digest of its settings. So files keep
the names of the first release.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

__all__ = ["from_stored", "to_stored"]

_STORED = {
    "train_examples": "train_rows",
    "validation_examples": "validation_rows",
    "scored_train_examples": "scored_train_rows",
}
_NAMES = {stored: name for name, stored in _STORED.items()}


def to_stored(settings: Mapping[str, Any]) -> dict[str, Any]:
    """Returns settings by the names that files have for them."""
    return {_STORED.get(name, name): value for name, value in settings.items()}


def from_stored(settings: Mapping[str, Any]) -> dict[str, Any]:
    """Returns the settings of a file by their names in the code, which a file may have, too."""
    return {_NAMES.get(name, name): value for name, value in settings.items()}
