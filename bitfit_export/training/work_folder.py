"""The folder of one training run's checkpoints: one process at a time, and only the run that began them.

<folder>/lock                   held by the process that is at work
<folder>/run.json               which run began the checkpoints
<folder>/checkpoint-<step>/     what transformers' Trainer writes; `begun` until all of it is there, then `complete`

A checkpoint with neither mark is not this package's, and is left alone.
"""

from __future__ import annotations

import json
import os
import shutil
from collections.abc import Collection, Iterator
from contextlib import contextmanager
from dataclasses import asdict
from pathlib import Path
from typing import Any

from bitfit_export.base_model.loading import BaseModel
from bitfit_export.errors import OutputError
from bitfit_export.files import canonical_json, write_bytes
from bitfit_export.files.locks import locked
from bitfit_export.training.data import TaskData
from bitfit_export.training.heads import class_pooling, with_pooling
from bitfit_export.training.processes import is_first_process, wait_for_all
from bitfit_export.training.settings import ORIGINAL, TrainingSettings

__all__ = [
    "checkpoint_folder",
    "claimed_work_folder",
    "last_checkpoint",
    "mark_begun",
    "mark_complete",
    "remove_other_checkpoints",
]

_BEGUN_MARK = "begun"
_COMPLETE_MARK = "complete"


@contextmanager
def claimed_work_folder(
    folder: Path, base: BaseModel, data: TaskData, settings: TrainingSettings, *, restart: bool = False
) -> Iterator[None]:
    """Keep every other process out of `folder`, and every run but the one that began in it.

    Processes that train together count as one: the first of them claims the folder, and the others wait for it.

    The folder is made if it is not there, and stays: whoever has published the result removes it.

    Args:
        restart: forget an interrupted run instead of going on with it.

    Raises:
        OutputError: the folder cannot be made, or it holds an interrupted run with other settings, another base model
            or other data.
        BusyError: another process is at work in it.
    """
    if not is_first_process():
        wait_for_all()
        yield
        return
    try:
        folder.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise OutputError(f"{folder} cannot be made: {error.strerror}", hint="choose another --output") from error
    with locked(folder / "lock", f"another bitfit-train is at work in {folder}"):
        identity = _identity(base, data, settings)
        _claim(folder, identity, class_pooling(base, data.spec.problem_type), restart=restart)
        wait_for_all()
        yield


def _identity(base: BaseModel, data: TaskData, settings: TrainingSettings) -> dict[str, Any]:
    """Returns what must be the same for a run to resume; the pooling is the run's own, so never `auto`."""
    return {
        "settings": with_pooling(base, data.spec.problem_type, settings).unusual(),
        "base": base.digest,
        "added_biases": base.added_biases,
        "data": data.digest,
        "task": asdict(data.spec),
    }


def _claim(folder: Path, identity: dict[str, Any], usual_pooling: str, *, restart: bool) -> None:
    """Record whose checkpoints these are.

    Args:
        usual_pooling: that of a recorded run without a pooling, which an earlier release began: it knew no other.
    """
    record = folder / "run.json"
    if restart:
        remove_other_checkpoints(folder, ())
    elif last_checkpoint(folder) is not None and record.exists():
        difference = _difference(record.read_bytes(), canonical_json(identity), usual_pooling)
        if difference is not None:
            raise OutputError(
                f"{folder} holds an interrupted run with other settings or data{difference}",
                hint="repeat the earlier command with its settings to finish it; to forget it, remove the folder or "
                "pass --restart to bitfit-train",
            )
    write_bytes(record, canonical_json(identity))


def _difference(recorded: bytes, wanted: bytes, usual_pooling: str) -> str | None:
    """The settings in which a recorded run differs, in brackets; "" for another difference, None for none."""
    try:
        old, new = json.loads(recorded), json.loads(wanted)
        usual = asdict(ORIGINAL) | {"bias_terms": [], "pooling": usual_pooling}
        old["settings"], new["settings"] = usual | old["settings"], usual | new["settings"]
    except (ValueError, TypeError, KeyError):
        return ""
    if old == new:
        return None
    names = [name for name, value in new["settings"].items() if old["settings"].get(name) != value]
    found = (f"{name} {_shown(old['settings'].get(name))}, now {_shown(new['settings'][name])}" for name in names)
    return f" ({'; '.join(found)})" if names else ""


def _shown(value: Any) -> str:
    """A setting as its option takes it."""
    return ",".join(value) if isinstance(value, list) else str(value)


def checkpoint_folder(work_folder: Path, step: int | None) -> Path:
    """Returns the folder of the checkpoint that transformers' Trainer writes after this number of steps."""
    return work_folder / f"checkpoint-{step}"


def mark_begun(work_folder: Path, step: int) -> None:
    """Make the checkpoint's folder, and record that it is this package's and not complete.

    Raises:
        OutputError: somebody else's checkpoint of this step is there.
    """
    folder = checkpoint_folder(work_folder, step)
    if folder.exists() and not _is_own(folder):
        raise OutputError(
            f"{folder} is a checkpoint that this package did not write, expected a folder without any",
            hint="train in another folder, or remove it",
        )
    folder.mkdir(parents=True, exist_ok=True)
    (folder / _BEGUN_MARK).touch()


def mark_complete(work_folder: Path, step: int) -> None:
    """Record that all of the checkpoint is on the disk."""
    folder = checkpoint_folder(work_folder, step)
    with open(folder / _COMPLETE_MARK, "wb") as stream:
        os.fsync(stream.fileno())
    (folder / _BEGUN_MARK).unlink(missing_ok=True)


def remove_other_checkpoints(work_folder: Path, kept: Collection[int | None]) -> None:
    """Remove every checkpoint of this package but those of some steps."""
    names = {checkpoint_folder(work_folder, step).name for step in kept}
    for folder in work_folder.glob("checkpoint-*"):
        if folder.name not in names and _is_own(folder):
            # One that is half removed must not count as complete.
            (folder / _BEGUN_MARK).touch()
            (folder / _COMPLETE_MARK).unlink(missing_ok=True)
            shutil.rmtree(folder)


def last_checkpoint(work_folder: Path) -> Path | None:
    """The newest whole checkpoint; halves that a kill left behind are removed."""
    whole: list[tuple[int, Path]] = []
    for folder in work_folder.glob("checkpoint-*"):
        if (folder / _COMPLETE_MARK).is_file():
            whole.append((int(folder.name.rsplit("-", 1)[1]), folder))
        elif is_first_process() and _is_own(folder):
            shutil.rmtree(folder)
    return max(whole)[1] if whole else None


def _is_own(folder: Path) -> bool:
    return any((folder / mark).is_file() for mark in (_BEGUN_MARK, _COMPLETE_MARK))
