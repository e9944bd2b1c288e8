"""A bundle that answers requests of many callers: its session, its rows and its batcher, without any network."""

from __future__ import annotations

import threading
from collections.abc import Sequence
from concurrent.futures import Future
from contextlib import ExitStack
from pathlib import Path
from typing import Any

from bitfit_export.runtime import BiasSession
from bitfit_export.runtime.session import parts_of
from bitfit_export.runtime.tasks.task_store import LoadedTask
from bitfit_export.runtime.text.tokenizer import Text
from bitfit_export.serving.batcher import Batcher, BatchLimits
from bitfit_export.serving.events import Observer
from bitfit_export.serving.failures import ServiceError, TooLargeError
from bitfit_export.serving.row_cache import DEFAULT_LABELS, DEFAULT_MEMORY, RowCache
from bitfit_export.serving.row_folder import RowFolder

__all__ = ["Service"]

#: Seconds between two looks at the folder of rows.
LOOK_EVERY = 2.0
#: Texts of a request, at most.
MAX_TEXTS = 1024


class Service:
    """Answers texts for the tasks of a bundle and of a folder of rows. Any number of threads may use it.

    Args:
        session: of the bundle; no other may load tasks into it.
        tasks_dir: a folder of rows, `<task>.bias`, that is looked at every two seconds.
        memory: bytes for rows, at most.
        labels: the most labels that a row of the folder may have.
        limits: of batches, the queue and time.
        max_texts: of one request.
        observer: is told what happens.

    Raises:
        UsageError: the memory does not hold the bundle's own rows.
        ServiceError: the folder cannot be read.
    """

    def __init__(
        self,
        session: BiasSession,
        *,
        tasks_dir: Path | None = None,
        memory: int = DEFAULT_MEMORY,
        labels: int = DEFAULT_LABELS,
        limits: BatchLimits | None = None,
        max_texts: int = MAX_TEXTS,
        observer: Observer | None = None,
    ) -> None:
        self.session = session
        self.limits = limits or BatchLimits()
        self.max_texts = max_texts
        self._observer = observer or Observer()
        folder = None if tasks_dir is None else RowFolder(tasks_dir)
        self.rows = RowCache(session, folder, memory=memory, labels=labels, on_event=self._observer.row)
        self._predictor = parts_of(session).predictor
        self._store = parts_of(session).store
        self.batcher = Batcher(self._predictor.run, self.limits, observe=self._observer.batch)
        self._ending = threading.Event()
        self._looking: threading.Thread | None = None
        if folder is not None:
            self._looking = threading.Thread(target=self._look, name="rows", daemon=True)
            self._looking.start()

    @property
    def ready(self) -> bool:
        """Whether requests are answered."""
        return self.batcher.alive

    def ask(
        self,
        texts: Sequence[Text],
        tasks: Sequence[str],
        *,
        truncate: bool = False,
        top_k: int | None = None,
        max_answer_tokens: int = 30,
    ) -> tuple[Sequence[LoadedTask], Future[list[Any]]]:
        """Queue texts, after reading the rows that they need.

        Args:
            texts: as `BiasSession.predict` takes them.
            tasks: one for each text.

        Returns:
            The task of each text, and a future of one result for each, as `BiasSession.predict` gives them. All texts
            see their rows as they are now. To cancel the future is to ask no more.

        Raises:
            ServiceError: the service does not take the request; the class says why.
            InputError, UsageError: as `BiasSession.predict`.
        """
        if len(texts) > self.max_texts:
            raise TooLargeError(f"the request has {len(texts)} texts, expected at most {self.max_texts}")
        self.batcher.check_room()
        with ExitStack() as stack:
            stack.enter_context(self.rows.hold(tasks))
            opened = self._predictor.open(
                texts,
                tasks,
                truncate=truncate,
                max_length=None,
                top_k=top_k,
                max_answer_tokens=max_answer_tokens,
            )
            job = stack.enter_context(opened)
            held = stack.pop_all()  # the batcher's, unless it refuses
            try:
                return job.tasks, self.batcher.submit(job, held)
            except BaseException:
                held.close()
                raise

    def describe(self, task: str) -> LoadedTask:
        """What a task's row says of it.

        Raises:
            ServiceError: the service lacks the task, or its row cannot be used.
        """
        with self.rows.hold([task]):
            return self._store.get(task)

    def close(self) -> None:
        """Answer what waits, then end. New requests are refused."""
        self._ending.set()
        self.batcher.close()
        if self._looking is not None:
            self._looking.join()

    def _look(self) -> None:
        failed = ""
        while not self._ending.wait(LOOK_EVERY):
            try:
                self.rows.look()
                failed = ""
            except ServiceError as error:
                if str(error) != failed:
                    self._observer.row("refused", "", error.message)
                failed = str(error)
