"""One prediction under way: its texts, the rows that it reads, and what is known of each text so far."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np
from numpy.typing import NDArray

from bitfit_export.runtime.predict.chunks import Chunk, Result, join_results, read_chunk
from bitfit_export.runtime.tasks.task_store import Feeds, Lease, LoadedTask
from bitfit_export.runtime.text.tokenizer import Text

__all__ = ["Job"]


@dataclass(eq=False)
class Job:
    """Texts, and the tasks that answer them.

    Attributes:
        texts: at least one.
        tasks: one for each text.
        lease: of the tasks. Whoever made the job gives it back when no chunk runs any more.
        one_task: whether the lease has one name, which serves all texts.
        chunks: the sequences to run, in any order and any batches.
        top_k: how many labels or answers to give for each text; None for the best one alone.
        max_answer_tokens: the longest answer of a span task.
    """

    texts: Sequence[Text]
    tasks: Sequence[LoadedTask]
    lease: Lease
    one_task: bool
    chunks: Sequence[Chunk]
    top_k: int | None
    max_answer_tokens: int
    _found: list[list[Result]] = field(init=False)

    def __post_init__(self) -> None:
        self._found = [[] for _ in self.texts]

    def feeds(self, chunks: Sequence[Chunk]) -> Feeds:
        """The graph inputs that bring these chunks their biases and heads."""
        return self.lease.feeds(None if self.one_task else [chunk.item for chunk in chunks])

    def output(self, chunk: Chunk) -> str:
        """The graph output that the chunk's answers are in."""
        return self.tasks[chunk.item].output

    def read(self, chunk: Chunk, values: NDArray[np.float32]) -> None:
        """Take what the model gave for a chunk.

        Args:
            values: of its output, [labels] or [tokens and padding, labels].

        Raises:
            InputError: logits that are not numbers.
        """
        item = chunk.item
        self._found[item].append(
            read_chunk(
                self.tasks[item],
                chunk,
                self.texts[item],
                values,
                answers=self.top_k or 1,
                max_tokens=self.max_answer_tokens,
            )
        )

    def results(self) -> list[Any]:
        """One result for each text, as `BiasSession.predict` describes it, once every chunk is read."""
        results = [join_results(task, found) for task, found in zip(self.tasks, self._found, strict=True)]
        if self.top_k is not None:
            return [each[: self.top_k] for each in results]
        return [
            each if task.problem_type == "token" else each[0] for task, each in zip(self.tasks, results, strict=True)
        ]
