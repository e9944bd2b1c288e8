"""Texts to answers: chunks of texts, batches of chunks, runs of the model, and what its outputs mean."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, TypeAlias

import numpy as np
from numpy.typing import NDArray

from bitfit_export.errors import UsageError
from bitfit_export.runtime.arguments import as_names
from bitfit_export.runtime.frozen_model import FrozenModel
from bitfit_export.runtime.inputs import InputLimits
from bitfit_export.runtime.predict.batches import plan_batches
from bitfit_export.runtime.predict.chunks import Chunk, Result, cut_chunks, join_results, numbered, read_chunk
from bitfit_export.runtime.tasks.task_store import Lease, LoadedTask, TaskStore
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

    def predict(
        self,
        items: Sequence[Text],
        task: str | Sequence[str],
        *,
        truncate: bool,
        max_length: int | None,
        top_k: int | None,
        max_answer_tokens: int,
        batch_size: int,
        batch_tokens: int,
    ) -> list[Any]:
        """Returns one result per text, as `BiasSession.predict` describes it."""
        with self._store.lease(as_names(task, items=len(items))) as lease:
            tasks = lease.tasks * len(items) if isinstance(task, str) else lease.tasks
            _check_top_k(tasks, top_k)
            chunks = cut_chunks(self._encoder, items, tasks, truncate=truncate, max_length=max_length)
            found: list[list[Result]] = [[] for _ in items]
            lengths = [len(chunk.tokens.ids) for chunk in chunks]
            # Where a run serves one task, batches are of one task.
            groups = ["" if self._store.mixes_tasks else tasks[chunk.item].name for chunk in chunks]
            for places in plan_batches(lengths, groups, batch_size=batch_size, batch_tokens=batch_tokens):
                batch = [chunks[place] for place in places]
                outputs = self._run_chunks(batch, tasks, lease, one_task=isinstance(task, str))
                for chunk, values in zip(batch, outputs, strict=True):
                    text, info = items[chunk.item], tasks[chunk.item]
                    read = read_chunk(info, chunk, text, values, answers=top_k or 1, max_tokens=max_answer_tokens)
                    found[chunk.item].append(read)
        results = [join_results(info, each) for info, each in zip(tasks, found, strict=True)]
        if top_k is not None:
            return [each[:top_k] for each in results]
        return [each if info.problem_type == "token" else each[0] for info, each in zip(tasks, results, strict=True)]

    def _run_chunks(
        self, chunks: Sequence[Chunk], tasks: Sequence[LoadedTask], lease: Lease, *, one_task: bool
    ) -> list[Float32Array]:
        """For each chunk the output that its task's answers are in."""
        with numbered([chunk.item for chunk in chunks]):
            text = self._limits.check(**self.pad([chunk.tokens for chunk in chunks]))
        feeds = lease.feeds(None if one_task else [chunk.item for chunk in chunks])
        names = [tasks[chunk.item].output for chunk in chunks]
        wanted = sorted(set(names))
        outputs = dict(zip(wanted, self._model.run(text, feeds, wanted), strict=True))
        return [outputs[name][place] for place, name in enumerate(names)]


def _check_top_k(tasks: Sequence[LoadedTask], top_k: int | None) -> None:
    token_task = next((task.name for task in tasks if task.problem_type == "token"), None)
    if top_k is not None and token_task is not None:
        raise UsageError(f"top_k is {top_k}, expected none for the token task {token_task}")
