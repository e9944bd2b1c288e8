"""The state of learning in one file, so that a run that was killed resumes where it was, to the bit."""

from __future__ import annotations

import io
import json
import zipfile
from dataclasses import dataclass, field
from pathlib import Path
from typing import TypeAlias

import numpy as np
from numpy.typing import NDArray

from bitfit_export.errors import InputError
from bitfit_export.files import write_bytes

__all__ = ["LearningState", "load_state", "save_state"]

Float32Array: TypeAlias = NDArray[np.float32]
_ARRAYS = ("values", "mean", "square", "best_values")


@dataclass
class LearningState:
    """Where learning is.

    Attributes:
        values, mean, square: the learnt values and the optimiser's state, float32 [n] each.
        best_values: those of the best epoch so far.
        step: the number of steps done.
        loss: the sum of the losses of the steps of this epoch.
        history: the scores of each epoch that is over, and its mean `loss`.
    """

    values: Float32Array
    mean: Float32Array
    square: Float32Array
    best_values: Float32Array
    step: int = 0
    loss: float = 0.0
    history: list[dict[str, float]] = field(default_factory=list)


def save_state(path: Path, run: str, state: LearningState) -> None:
    """Write the state; the file that was there stays until the new one is complete.

    Args:
        run: a digest of all that the run depends on.

    Raises:
        OutputError: it cannot be written.
    """
    about = {"run": run, "step": state.step, "loss": state.loss, "history": state.history}
    buffer = io.BytesIO()
    np.savez(buffer, about=np.array(json.dumps(about)), **{name: getattr(state, name) for name in _ARRAYS})
    write_bytes(path, buffer.getvalue())


def load_state(path: Path, run: str, size: int) -> LearningState | None:
    """Returns the state in a file; None where there is no file.

    Args:
        size: the number of learnt values.

    Raises:
        InputError: the file is damaged, or belongs to a run with other settings or data.
    """
    if not path.exists():
        return None
    hint = f"remove {path}, and learn from the start"
    try:
        # Opened here, for NumPy leaves a damaged file open.
        with path.open("rb") as file, np.load(file, allow_pickle=False) as found:
            about = json.loads(str(found["about"]))
            arrays = {name: found[name].astype(np.float32, copy=False) for name in _ARRAYS}
        state = LearningState(**arrays, step=about["step"], loss=about["loss"], history=about["history"])
    except (OSError, ValueError, KeyError, TypeError, EOFError, zipfile.BadZipFile) as error:
        raise InputError(f"the checkpoint {path} is damaged, or is not a checkpoint", hint=hint) from error
    if about["run"] != run or any(array.shape != (size,) for array in arrays.values()):
        raise InputError(f"the checkpoint {path} is of a run with other settings, data or model", hint=hint)
    return state
