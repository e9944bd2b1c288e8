"""A folder of good and bad files with an index: for each file the kind of fault that a reader must find, and why.

`make_manifests.py` and `make_jsonl.py` make one each, by the rules of `docs/files.md`. Nothing of bitfit_export is
imported, so these files judge the product's readers and not the other way round. A bad file is wrong in one way only.
Files near a limit of megabytes are not here: each reader's own tests make them.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

#: The kinds of fault.
FAULTS = {
    "json": "the bytes are not JSON as docs/files.md has it",
    "missing": "something that must be there is not",
    "type": "a value of another JSON type",
    "range": "a number that is out of range, or too many of something",
    "value": "a word or a digest that is not one of those that may stand there",
    "name": "a name or a path that breaks its rule",
    "twice": "two of the same name",
    "disagreement": "two parts of the file that do not fit each other",
}

LIMIT = 64  # levels of nesting
INT64_MAX = 2**63 - 1


class Collection:
    """Files by name, and the index of them."""

    def __init__(self, ending: str) -> None:
        self.ending = ending
        self.files: dict[str, bytes] = {}
        self.index: dict[str, dict[str, Any]] = {}

    def add(self, name: str, fault: str | None, why: str, data: bytes, **more: Any) -> None:
        name = f"{'good' if fault is None else 'bad'}_{name}.{self.ending}"
        assert name not in self.files
        assert fault is None or fault in FAULTS
        self.files[name] = data
        self.index[name] = {"fault": fault, "why": why, **more}

    def build(self, **more: Any) -> dict[str, bytes]:
        """Every file of the folder, by name."""
        index = {"faults": FAULTS, "files": self.index, **more}
        return self.files | {"index.json": json.dumps(index, indent=1, sort_keys=True).encode() + b"\n"}


def write(folder: str, files: Mapping[str, bytes]) -> None:
    """Write the files of a folder beside this module."""
    place = Path(__file__).parent / folder
    place.mkdir(exist_ok=True)
    for name, data in files.items():
        (place / name).write_bytes(data)


def nested(levels: int) -> str:
    """Lists in lists; the manifest's own object is a level, too."""
    return "[" * (levels - 1) + "]" * (levels - 1)
