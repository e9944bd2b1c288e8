"""Where trials leave what they gave, as they end: one JSON file a trial, and the delta of each that made one.

<folder>/trials/<trial>.json    what `TrialResult` has
<folder>/deltas/<trial>/        the task delta, for trials that made one
<folder>/failed/<trial>.txt     why a trial failed, until it succeeds
<folder>/work/<trial>/          checkpoints of a trial that is under way, or was killed
"""

from __future__ import annotations

import json
import shutil
from pathlib import Path

from bitfit_export.delta import TaskDelta
from bitfit_export.errors import BitfitError, DataError, OutputError
from bitfit_export.experiments.trial import Trial, TrialResult
from bitfit_export.files import canonical_json, write_bytes

__all__ = ["TrialStore"]


class TrialStore:
    """The trials of one base model, in one folder."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder

    def result_file(self, trial: Trial) -> Path:
        return self.folder / "trials" / f"{trial.name}.json"

    def delta_folder(self, trial: Trial) -> Path:
        return self.folder / "deltas" / trial.name

    def work_folder(self, trial: Trial) -> Path:
        return self.folder / "work" / trial.name

    def failure_file(self, trial: Trial) -> Path:
        return self.folder / "failed" / f"{trial.name}.txt"

    def load(self, trial: Trial, base_digest: str | None = None) -> TrialResult | None:
        """The trial's result, or None where it has none yet.

        Raises:
            DataError: the file is not a trial's result, or that of another trial or another base model.
        """
        path = self.result_file(trial)
        if not path.is_file():
            return None
        try:
            result = TrialResult.from_json(json.loads(path.read_bytes()))
        except (ValueError, RecursionError, TypeError, KeyError, BitfitError) as error:
            raise DataError(
                f"{path} is not a trial's result: {error}", hint="remove it, and the trial is trained again"
            ) from error
        if result.trial != trial:
            raise DataError(f"{path} has the result of another trial", hint="choose another --output")
        if base_digest is not None and result.base_digest != base_digest:
            raise DataError(
                f"{path} was trained on {result.base_model} with digest {result.base_digest[:12]}, "
                f"expected {base_digest[:12]}",
                hint="choose another --output for another base model",
            )
        return result

    def save(self, result: TrialResult, delta: TaskDelta | None, card: str) -> None:
        """Keep what a trial gave; the result is written last, so that a trial with a result has its delta too."""
        if delta is not None:
            delta.save(self.delta_folder(result.trial), card=card, overwrite=True)
        path = self.result_file(result.trial)
        _make_folder(path.parent)
        write_bytes(path, canonical_json(result.as_json()))
        self.forget_failure(result.trial)
        self.forget_work(result.trial)

    def forget_work(self, trial: Trial) -> None:
        """Remove the checkpoints of a trial that has a result."""
        shutil.rmtree(self.work_folder(trial), ignore_errors=True)

    def save_failure(self, trial: Trial, account: str) -> None:
        """Keep why a trial failed, with the traceback, for whoever looks for the cause."""
        path = self.failure_file(trial)
        _make_folder(path.parent)
        write_bytes(path, account.encode())

    def forget_failure(self, trial: Trial) -> None:
        """Remove the account of an earlier failure, since the trial is tried anew."""
        self.failure_file(trial).unlink(missing_ok=True)

    def failure(self, trial: Trial) -> str | None:
        """Why the trial failed when it was last tried, in one line; None where it did not."""
        path = self.failure_file(trial)
        return path.read_text().split("\n", 1)[0] if path.is_file() else None


def _make_folder(folder: Path) -> None:
    try:
        folder.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise OutputError(f"{folder} cannot be made: {error.strerror}", hint="choose another --output") from error
