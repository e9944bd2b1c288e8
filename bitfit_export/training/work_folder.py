"""The folder of one training run's checkpoints: one process at a time, and only the run that began them."""

from __future__ import annotations

import shutil
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import asdict
from pathlib import Path

from bitfit_export.base_models import BaseModel
from bitfit_export.errors import OutputError
from bitfit_export.files import canonical_json, write_bytes
from bitfit_export.training.data import TaskData
from bitfit_export.training.processes import is_first_process, wait_for_all
from bitfit_export.training.settings import TrainingSettings

__all__ = ["claimed_work_folder"]


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
        OutputError: the folder can't be made, another process is at work in it, or it holds an interrupted run with
            other settings, another base model or other data.
    """
    if not is_first_process():
        wait_for_all()
        yield
        return
    from filelock import FileLock, Timeout

    try:
        folder.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise OutputError(f"{folder} can't be made: {error.strerror}", hint="choose another --output") from error
    # The lock goes with the process, however it ends.
    lock = FileLock(folder / "lock", timeout=0)
    try:
        lock.acquire()
    except Timeout as error:
        raise OutputError(
            f"another bitfit-train is at work in {folder}", hint="wait for it, or choose another --output"
        ) from error
    try:
        _claim(folder, canonical_json(asdict(settings) | {"base": base.digest, "data": data.digest}), restart=restart)
        wait_for_all()
        yield
    finally:
        lock.release()


def _claim(folder: Path, identity: bytes, *, restart: bool) -> None:
    """Record whose checkpoints these are."""
    record = folder / "run.json"
    if restart:
        for checkpoint in folder.glob("checkpoint-*"):
            shutil.rmtree(checkpoint)
    elif record.exists() and record.read_bytes() != identity:
        raise OutputError(
            f"{folder} holds an interrupted run with other settings or data",
            hint="repeat the earlier command to finish it, or pass --restart to forget it",
        )
    write_bytes(record, identity)
