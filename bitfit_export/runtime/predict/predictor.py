"""Texts to answers: chunks of texts, batches of chunks, runs of the model, and what its outputs mean."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from typing import Any, TypeAlias

import numpy as np
from numpy.typing import NDArray

from bitfit_export.errors import UsageError
from bitfit_export.runtime.arguments import as_names
from bitfit_export.runtime.frozen_model import FrozenModel
from bitfit_export.runtime.inputs import InputLimits
from bitfit_export.runtime.predict.batches import plan_batches
from bitfit_export.runtime.predict.chunks import Chunk, cut_chunks, numbered
from bitfit_export.runtime.predict.jobs import Job
from bitfit_export.runtime.tasks.task_store import Feeds, LoadedTask, TaskStore
from bitfit_export.runtime.text.alignment import AlignedTokens
from bitfit_export.runtime.text.tokenizer import Text, TextEncoder, TokenIds

__all__ = ["Predictor"]

Float32Array: TypeAlias = NDArray[np.float32]
IntArray: TypeAlias = NDArray[np.int64]


class Predictor:
    """What `BiasSession.predict` does, from arguments that it has checked. Any number of threads may use it."""

    def __init__(self, encoder: TextEncoder, limits: InputLimits, model: FrozenModel, store: TaskStore[Any]) -> None:
        self._encoder = encoder
        self._limits = limits
        self._model = model
        self._store = store

    def pad(self, items: Sequence[TokenIds | AlignedTokens]) -> dict[str, IntArray]:
        """Returns the text inputs that the graph has, int64 [batch, sequence], padded to the longest item."""
        padded = self._encoder.pad(items)
        return {name: padded[name] for name in self._model.text_inputs}

    @contextmanager
    def open(
        self,
        texts: Sequence[Text],
        task: str | Sequence[str],
        *,
        truncate: bool,
        max_length: int | None,
        top_k: int | None,
        max_answer_tokens: int,
    ) -> Iterator[Job]:
        """A prediction that is ready to run, with the rows that it reads until the block ends.

        Raises:
            InputError, UsageError: as `BiasSession.predict`.
        """
        with self._store.lease(as_names(task, items=len(texts))) as lease:
            one_task = isinstance(task, str)
            tasks = lease.tasks * len(texts) if one_task else lease.tasks
            _check_top_k(tasks, top_k)
            chunks = cut_chunks(self._encoder, texts, tasks, truncate=truncate, max_length=max_length)
            yield Job(texts, tasks, lease, one_task, chunks, top_k, max_answer_tokens)

    def predict(
        self,
        texts: Sequence[Text],
        task: str | Sequence[str],
        *,
        batch_size: int,
        batch_tokens: int,
        **settings: Any,
    ) -> list[Any]:
        """Returns one result per text, as `BiasSession.predict` describes it; the settings are those of `open`."""
        with self.open(texts, task, **settings) as job:
            lengths = [len(chunk.tokens.ids) for chunk in job.chunks]
            # Where a run serves one task, batches are of one task.
            groups = ["" if self._store.mixes_tasks else job.tasks[chunk.item].name for chunk in job.chunks]
            for places in plan_batches(lengths, groups, batch_size=batch_size, batch_tokens=batch_tokens):
                chunks = [job.chunks[place] for place in places]
                outputs = self.run(chunks, job.feeds(chunks), [job.output(chunk) for chunk in chunks])
                for chunk, values in zip(chunks, outputs, strict=True):
                    job.read(chunk, values)
            return job.results()

    def run(self, chunks: Sequence[Chunk], feeds: Feeds, outputs: Sequence[str]) -> list[Float32Array]:
        """Run chunks as one batch.

        Args:
            feeds: the biases and heads of the chunks.
            outputs: for each chunk the graph output that is wanted.

        Returns:
            That output's values for each chunk.

        Raises:
            InputError: ids that the model can't take.
            BundleError: the engine failed.
        """
        with numbered([chunk.item for chunk in chunks]):
            text = self._limits.check(**self.pad([chunk.tokens for chunk in chunks]))
        wanted = sorted(set(outputs))
        found = dict(zip(wanted, self._model.run(text, feeds, wanted), strict=True))
        return [found[name][place] for place, name in enumerate(outputs)]


def _check_top_k(tasks: Sequence[LoadedTask], top_k: int | None) -> None:
    token_task = next((task.name for task in tasks if task.problem_type == "token"), None)
    if top_k is not None and token_task is not None:
        raise UsageError(f"top_k is {top_k}, expected none for the token task {token_task}")
