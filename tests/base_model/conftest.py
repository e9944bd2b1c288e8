"""What several tests do to a checkpoint."""

from __future__ import annotations

import json
from pathlib import Path


def declare(folder: Path, **settings: object) -> None:
    """Change config.json and nothing else."""
    path = folder / "config.json"
    path.write_text(json.dumps(json.loads(path.read_text()) | settings))
