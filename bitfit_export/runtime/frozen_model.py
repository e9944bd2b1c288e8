"""The frozen model: the program `infer` of a bundle, on whichever engine."""

from __future__ import annotations

import threading
from collections.abc import Iterator, Mapping, Sequence
from typing import TypeAlias

import numpy as np
from numpy.typing import NDArray

from bitfit_export.bundle import CheckedFiles, Manifest, check_files
from bitfit_export.bundle.interface import INFER, INPUT_IDS, TEXT_INPUTS, TOKEN_LOGITS
from bitfit_export.runtime.engines.base import (
    NO_OPTIONS,
    Arrays,
    Bound,
    Engine,
    OptionValues,
    Program,
    ProgramFiles,
)
from bitfit_export.runtime.forks import hold_during_forks
from bitfit_export.runtime.graph_check import check_program
from bitfit_export.runtime.tasks.task_store import Feeds

__all__ = ["FrozenModel"]

Float32Array: TypeAlias = NDArray[np.float32]
TextArrays: TypeAlias = Mapping[str, NDArray[np.int64]]


class FrozenModel:
    """The program `infer` of a bundle. Any number of threads may run it.

    Args:
        files: the bundle's; the model is made of the bytes that were read. The others may be checked meanwhile.
        manifest: the bundle's.
        engine: what runs it.
        threads: for one run; by default the engine's choice.
        options: of the engine.

    Attributes:
        folder: the bundle's.
        engine, threads, options: what it is run by, as they were given.
        text_inputs: the names of the graph inputs that a text becomes.
        outputs: the names of the graph outputs.
        labels: the number of labels that the head inputs have, where it is fixed.
        max_positions: the longest sequence, in tokens.
        exact: whether it is computed in its own precision, as `Program.exact`.
        device, emulated: what runs it, as `Program.device` and `Program.emulated`.

    Raises:
        BundleError: the model cannot be loaded, or is not the one that the manifest describes; its weights changed
            after they were checked.
    """

    def __init__(
        self,
        files: CheckedFiles,
        manifest: Manifest,
        engine: Engine,
        *,
        threads: int | None = None,
        options: OptionValues = NO_OPTIONS,
    ) -> None:
        self.folder, self._manifest = files.folder.absolute(), manifest
        self.engine, self.threads, self.options = engine, threads, options
        self._program: Program | None = self._open(files)
        self._opening = threading.Lock()
        hold_during_forks(self, self._opening, in_child=FrozenModel._leave_program)
        self.labels = check_program(files.folder / manifest.infer.file, self._program, manifest)
        self.text_inputs = tuple(name for name in TEXT_INPUTS if name in manifest.infer.input_names)
        self.outputs = manifest.infer.output_names
        self.exact = self._program.exact
        self.device, self.emulated = self._program.device, self._program.emulated
        self.max_positions = manifest.longest_sequence
        self._static_shape = manifest.static_shape
        self._pad_token_id = manifest.pad_token_id

    def bind(self, arrays: Arrays) -> Bound:
        """Hold arrays of rows for many runs, as `Program.bind` does."""
        return self._own_program().bind(arrays)

    def run(self, text: TextArrays, feeds: Feeds, outputs: Sequence[str]) -> list[Float32Array]:
        """Run a batch of any size; a graph of static shape runs it in batches of its own size.

        Args:
            text: the text inputs of the graph, contiguous int64 [batch, sequence].
            feeds: all other inputs.
            outputs: the names of the wanted ones.

        Returns:
            For each wanted output an array: `logits` float32 [batch, labels of the feeds], `token_logits` float32
            [batch, sequence, labels of the feeds].

        Raises:
            InputError: an input that only the model itself can refuse, such as a token type that it lacks.
            BundleError: any other failure of the engine.
        """
        if self._static_shape is None:
            return self._run(text, feeds, outputs)
        items, length = text[INPUT_IDS].shape
        parts = [self._run(part, feeds, outputs) for part in self._fit(text, self._static_shape)]
        joined = (np.concatenate(each)[:items] for each in zip(*parts, strict=True))
        return [
            values[:, :length] if name == TOKEN_LOGITS else values for name, values in zip(outputs, joined, strict=True)
        ]

    def _run(self, text: TextArrays, feeds: Feeds, outputs: Sequence[str]) -> list[Float32Array]:
        program = self._program or self._own_program()
        return program.run({**text, **feeds.arrays}, feeds.bound, outputs)

    def _fit(self, text: TextArrays, shape: tuple[int, int]) -> Iterator[dict[str, NDArray[np.int64]]]:
        """Batches of exactly this shape: what a text lacks is padding, and so are items that the last batch lacks."""
        items, length = text[INPUT_IDS].shape
        for start in range(0, items, shape[0]):
            part = {}
            for name, values in text.items():
                part[name] = np.full(shape, self._pad_token_id if name == INPUT_IDS else 0, np.int64)
                chosen = values[start : start + shape[0]]
                part[name][: len(chosen), :length] = chosen
            yield part

    def _own_program(self) -> Program:
        """The program of this process, which a forked one opens when it first runs the model.

        Raises:
            BundleError: the bundle is no longer as it was.
        """
        program = self._program
        if program is not None:
            return program
        with self._opening:
            if self._program is None:
                self._program = self._open(check_files(self.folder, self._manifest, hash_files=True))
            return self._program

    def _open(self, files: CheckedFiles) -> Program:
        infer = self._manifest.infer
        path, accelerator = files.folder / infer.file, self._manifest.accelerator
        if accelerator is not None:
            files.check_others()  # first: the accelerator's library trusts what it loads
        program_files = ProgramFiles(path, files.programs[INFER], files.folder, infer.at_load, accelerator=accelerator)
        program = self.engine.open(program_files, threads=self.threads, options=self.options)
        files.refuse_changed()
        return program

    def _leave_program(self) -> None:
        """Give up the program that this process inherited: it lacks its threads, and may have a lock that one held."""
        if self._program is not None:
            self._program.abandon()
        self._program = None
