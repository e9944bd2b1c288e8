"""The program `train_step` of a bundle, opened by the engine of a session."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import TypeAlias

import numpy as np
from numpy.typing import NDArray

from bitfit_export.bundle import Manifest, check_files
from bitfit_export.bundle.interface import (
    GRADIENT_PREFIX,
    ITEM_WEIGHTS,
    LABEL_COUNTS,
    LAYOUT_DIGEST_KEY,
    LOSS,
    PROBLEM_TYPE_IDS,
    TARGETS,
    TOKEN_TARGETS,
    TRAIN_STEP,
)
from bitfit_export.bundle.row_format import PROBLEM_CODES
from bitfit_export.errors import BundleError, UsageError
from bitfit_export.runtime.engines.base import Engine, OptionValues, ProgramFiles
from bitfit_export.runtime.learning.parameters import RowParameters

__all__ = ["TrainStep"]

Float32Array: TypeAlias = NDArray[np.float32]
TextArrays: TypeAlias = Mapping[str, NDArray[np.int64]]
_EXPORT_TRAINABLE = "export the bundle again with --trainable"


class TrainStep:
    """Computes losses and gradients of one row.

    Attributes:
        reads_tokens: whether it computes token and span tasks.

    Args:
        folder: the bundle's, whose files are compared with the manifest again.
        engine, threads, options: as a session has them.

    Raises:
        UsageError: the bundle has no such program.
        BundleError: a file is damaged, or the program is not the one that the manifest describes.
    """

    def __init__(
        self, folder: Path, manifest: Manifest, engine: Engine, threads: int | None, options: OptionValues
    ) -> None:
        record = manifest.programs.get(TRAIN_STEP)
        if record is None:
            raise UsageError(f"the bundle has no program {TRAIN_STEP}, expected one", hint=_EXPORT_TRAINABLE)
        files = check_files(folder, manifest, hash_files=False)
        path = folder / record.file
        opened = ProgramFiles(path, files.programs[TRAIN_STEP], files.folder, record.at_load, plans_memory=False)
        self._program = engine.open(opened, threads=threads, options=options)
        files.refuse_changed()
        if self._program.metadata.get(LAYOUT_DIGEST_KEY) != manifest.layout.digest or set(record.input_names) != set(
            self._program.inputs
        ):
            raise BundleError(f"the program {path} is not the one that the manifest describes", hint=_EXPORT_TRAINABLE)
        self.reads_tokens = TOKEN_TARGETS in record.input_names

    def run(
        self,
        row: RowParameters,
        text: TextArrays,
        targets: Float32Array,
        weights: Float32Array,
        problem_type: str,
    ) -> tuple[float, Float32Array]:
        """Returns the loss of a batch of one task, and its gradient by the row's values.

        Args:
            text: the text inputs, int64 [batch, sequence].
            targets: float32 [batch, labels] of a sentence task, [batch, sequence, labels] of a token or span task.
            weights: the factor of each item's loss, float32 [batch].
        """
        items, labels = len(targets), targets.shape[-1]
        by_token = targets.ndim == 3
        learning: dict[str, NDArray[np.generic]] = {
            TARGETS: np.zeros((items, labels), np.float32) if by_token else targets,
            PROBLEM_TYPE_IDS: np.full(items, PROBLEM_CODES[problem_type], np.int64),
            LABEL_COUNTS: np.full(items, labels, np.int64),
            ITEM_WEIGHTS: weights,
        }
        if self.reads_tokens:
            length = next(iter(text.values())).shape[1]
            learning[TOKEN_TARGETS] = targets if by_token else np.zeros((items, length, labels), np.float32)
        wanted = [LOSS, *(GRADIENT_PREFIX + name for name in row.names)]
        loss, *gradients = self._program.run({**text, **row.feeds, **learning}, {}, wanted)
        return float(loss[0]), row.gradient(dict(zip(row.names, gradients, strict=True)))
