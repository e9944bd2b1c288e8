"""BiasSession: load a bundle once, then run any of its tasks, or a batch in which every row is another task."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import TypeAlias, overload

import numpy as np
from numpy.typing import ArrayLike, NDArray

from bitfit_export.bundle import BiasRow, Manifest, TaskRecord, check_files, read_manifest, read_row
from bitfit_export.bundle.row import TASK_NAME
from bitfit_export.errors import BundleError, InputError, UsageError
from bitfit_export.files import sha256_of_file
from bitfit_export.runtime.inputs import TEXT_INPUTS, InputLimits
from bitfit_export.runtime.model import FrozenModel
from bitfit_export.runtime.predictions import Prediction, rank_labels
from bitfit_export.runtime.table import BiasTable, LoadedTask
from bitfit_export.runtime.tokenizer import Text, TextEncoder, TokenIds

__all__ = ["BiasSession"]

Float32Array: TypeAlias = NDArray[np.float32]
IntArray: TypeAlias = NDArray[np.int64]

_SENTENCE_TASKS = ("single_label", "multi_label", "regression")


class BiasSession:
    """A bundle that is ready to run. Any number of threads may use one session, also to load and unload tasks.

    Args:
        bundle: the bundle's folder.
        threads: threads for one run; by default ONNX Runtime's choice, one a core.
        tasks: the tasks to load; by default all of the bundle's.
        check_hashes: compare SHA-256 of every file with the manifest, which reads all of them. Sizes, and everything
            about rows, are compared always.

    Raises:
        BundleError: a file that is missing or damaged, or does not belong to the others; RowError, if it is a row.
        InputError: a task that the bundle lacks.
        UsageError: a number of threads below 1.
    """

    def __init__(
        self,
        bundle: str | Path,
        *,
        threads: int | None = None,
        tasks: Sequence[str] | None = None,
        check_hashes: bool = False,
    ) -> None:
        if threads is not None:
            _check_positive("threads", threads)
        folder = Path(bundle)
        self._manifest = read_manifest(folder)
        records = _choose_records(self._manifest, tasks)
        check_files(folder, self._manifest, hash_files=check_hashes)
        self._model = FrozenModel(folder, self._manifest, threads=threads)
        self._limits = InputLimits(
            self._manifest.vocab_size, self._manifest.max_positions, "token_type_ids" in self._model.inputs
        )
        self._encoder = TextEncoder(
            folder, max_positions=self._manifest.max_positions, pad_token_id=self._manifest.pad_token_id
        )
        # One slot more than tasks: a row is replaced by writing the new one elsewhere.
        self._table = BiasTable(
            self._manifest.layout,
            rows=len(records) + 1,
            labels=max((record.label_count for record in records), default=1),
        )
        for record in records:
            self._table.add(_read_recorded_row(folder, self._manifest, record), labels=record.labels)

    @property
    def manifest(self) -> Manifest:
        """The bundle's manifest. Tasks that were loaded later are not in it."""
        return self._manifest

    @property
    def tasks(self) -> tuple[str, ...]:
        """The names of the loaded tasks."""
        return tuple(task.name for task in self._table.tasks)

    def labels(self, task: str) -> tuple[str, ...]:
        """The task's label names in id order; empty for a regression.

        Raises:
            InputError: the task is not loaded.
        """
        return self._table.get(_check_name(task)).labels

    def load_task(self, path: str | Path, *, name: str | None = None, labels: Sequence[str] | None = None) -> str:
        """Load a row file, or replace the loaded task of the same name. Runs under way keep the old row.

        A task with more labels than any before makes every task's head wider inside the model, which can change the
        last bit of the others' logits.

        Args:
            path: a row that was exported for this model.
            name: the name to load it under; by default its own.
            labels: label names in id order. By default those of the loaded task that it replaces, or of the bundle's
                task of this name, if they are of the same type and number; else LABEL_0, LABEL_1, ...

        Returns:
            The task's name.

        Raises:
            BundleError: the file can't be read; RowError, if it is damaged or was made for another model.
            InputError: a name or labels that can't be used, or a row that is older than the loaded one. Whatever is
                refused leaves the session as it was.
        """
        row = read_row(Path(path), layout=self._manifest.layout)
        name = row.task if name is None else _check_name(name)
        names = self._default_labels(name, row) if labels is None else _check_labels(name, row, labels)
        return self._table.add(row, name=name, labels=names).name

    def unload_task(self, name: str) -> None:
        """Forget a task. Runs under way finish with it.

        Raises:
            InputError: the task is not loaded.
        """
        self._table.remove(_check_name(name))

    def encode(
        self, texts: Text | Sequence[Text], *, truncate: bool = False, max_length: int | None = None
    ) -> dict[str, IntArray]:
        """The text inputs of `run`, int64 [batch, sequence], padded to the longest text.

        Args:
            texts: a string or a tuple of two is one text; a list holds several, of either kind.
            truncate: cut a text that is longer than `max_length` tokens instead of refusing it.
            max_length: by default what the model takes.

        Raises:
            InputError: no text, one that is neither a string nor a pair, or one that is too long.
            UsageError: a `max_length` that the model does not take.
        """
        return self._pad(self._encoder.tokenize(texts, truncate=truncate, max_length=max_length))

    def run(
        self,
        task: str | Sequence[str],
        *,
        input_ids: ArrayLike,
        attention_mask: ArrayLike,
        token_type_ids: ArrayLike | None = None,
    ) -> Float32Array:
        """Run the model on ids.

        Args:
            task: the task of all rows, or a list with one for each row.
            input_ids: integers [batch, sequence], from 0 to the vocabulary's size.
            attention_mask: 1 for a token, 0 for padding, [batch, sequence].
            token_type_ids: by default zeros.

        Returns:
            Logits float32 [batch, labels]. With a list of tasks, labels is the largest number among them, and what
            lies beyond a row's own labels is -inf.

        Raises:
            InputError: a task that is not loaded or not one of sentences, or arrays that the model can't take.
        """
        text = self._limits.check(input_ids, attention_mask, token_type_ids)
        names = _as_names(task, rows=len(text["input_ids"]))
        with self._table.lease(names) as lease:
            _check_sentence_tasks(lease.tasks)
            logits = self._model.run(text, lease.slots, lease.values)
        return _own_labels(logits, lease.tasks)

    @overload
    def predict(
        self,
        texts: Text | Sequence[Text],
        task: str | Sequence[str],
        *,
        truncate: bool = False,
        max_length: int | None = None,
        top_k: None = None,
        batch_size: int = 32,
    ) -> list[Prediction]: ...

    @overload
    def predict(
        self,
        texts: Text | Sequence[Text],
        task: str | Sequence[str],
        *,
        truncate: bool = False,
        max_length: int | None = None,
        top_k: int,
        batch_size: int = 32,
    ) -> list[list[Prediction]]: ...

    def predict(
        self,
        texts: Text | Sequence[Text],
        task: str | Sequence[str],
        *,
        truncate: bool = False,
        max_length: int | None = None,
        top_k: int | None = None,
        batch_size: int = 32,
    ) -> list[Prediction] | list[list[Prediction]]:
        """Classify texts, as a Hugging Face text-classification pipeline does. All texts see the same rows.

        Args:
            texts, truncate, max_length: as for `encode`.
            task: the task of all texts, or a list with one for each.
            top_k: give a list of this many labels for each text, best first, instead of the best one.
            batch_size: how many texts of similar length to run at once.

        Returns:
            One `{"label": ..., "score": ...}` a text, in the order of the texts. The score is the softmax probability
            for `single_label` and the sigmoid for `multi_label`; a regression gives `{"score": ...}`, the value itself.

        Raises:
            InputError, UsageError: as `encode` and `run`; nothing has been run then.
        """
        _check_positive("batch_size", batch_size)
        if top_k is not None:
            _check_positive("top_k", top_k)
        rows = self._encoder.tokenize(texts, truncate=truncate, max_length=max_length)
        names = _as_names(task, rows=len(rows))
        order = sorted(range(len(rows)), key=lambda row: len(rows[row].ids))
        single = isinstance(task, str)
        ranked: list[list[Prediction]] = [[] for _ in rows]
        with self._table.lease(names) as lease:
            _check_sentence_tasks(lease.tasks)
            for start in range(0, len(order), batch_size):
                chosen = order[start : start + batch_size]
                text = self._limits.check(**self._pad([rows[row] for row in chosen]))
                logits = self._model.run(text, lease.slots if single else lease.slots[chosen], lease.values)
                for row, values in zip(chosen, logits, strict=True):
                    info = lease.tasks[0 if single else row]
                    ranked[row] = rank_labels(info, values[: info.label_count])
        return [each[0] for each in ranked] if top_k is None else [each[:top_k] for each in ranked]

    def _pad(self, rows: Sequence[TokenIds]) -> dict[str, IntArray]:
        """The text inputs that the graph has."""
        padded = self._encoder.pad(rows)
        return {name: padded[name] for name in TEXT_INPUTS if name in self._model.inputs}

    def _default_labels(self, name: str, row: BiasRow) -> tuple[str, ...]:
        if row.problem_type == "regression":
            return ()
        for known in (self._table.find(name), self._manifest.tasks.get(name)):
            if known and known.problem_type == row.problem_type and len(known.labels) == row.labels:
                return known.labels
        return tuple(f"LABEL_{index}" for index in range(row.labels))


def _choose_records(manifest: Manifest, tasks: Sequence[str] | None) -> list[TaskRecord]:
    if tasks is None:
        return list(manifest.tasks.values())
    unknown = [name for name in _as_names(tasks) if name not in manifest.tasks]
    if unknown:
        raise InputError(f"the bundle has no task {unknown[0]!r}, expected one of {', '.join(sorted(manifest.tasks))}")
    return [manifest.tasks[name] for name in dict.fromkeys(_as_names(tasks))]


def _read_recorded_row(folder: Path, manifest: Manifest, record: TaskRecord) -> BiasRow:
    """A row of the bundle, which must be the one that the manifest records."""
    path = folder / record.file
    row = read_row(path, layout=manifest.layout)
    found = (row.task, row.problem_type, row.labels, row.task_version)
    expected = (record.name, record.problem_type, record.label_count, record.task_version)
    if found != expected:
        raise BundleError(
            f"{path} is the row {_show(*found)}, expected {_show(*expected)}",
            hint="copy the bundle again, or export it again",
        )
    digest = sha256_of_file(path)
    if digest != record.sha256:
        raise BundleError(
            f"{path} has sha256 {digest[:12]}, expected {record.sha256[:12]}",
            hint="copy the bundle again, or export it again; a row that replaces it is loaded with load_task",
        )
    return row


def _show(name: str, problem_type: str, labels: int, version: int) -> str:
    return f"{name} ({problem_type}, {labels} labels, version {version})"


def _as_names(task: str | Sequence[str], *, rows: int | None = None) -> list[str]:
    """Task names as a list; a list must have `rows` of them, where that is given."""
    if isinstance(task, str):
        return [task]
    if not isinstance(task, Iterable):
        raise InputError(f"the task is {task!r}, expected the name of a loaded task, or a list of names")
    names = list(task)
    wrong = [name for name in names if not isinstance(name, str)]
    if wrong:
        raise InputError(f"a task is {wrong[0]!r}, expected the name of a loaded task")
    if rows is not None and len(names) != rows:
        raise InputError(f"there are {len(names)} tasks for {rows} rows, expected one task, or one for each row")
    return names


def _check_sentence_tasks(tasks: Sequence[LoadedTask]) -> None:
    for task in tasks:
        if task.problem_type not in _SENTENCE_TASKS:
            raise InputError(
                f"the task {task.name} is a {task.problem_type} task, expected one of {', '.join(_SENTENCE_TASKS)}"
            )


def _check_labels(name: str, row: BiasRow, labels: Sequence[str]) -> tuple[str, ...]:
    count = 0 if row.problem_type == "regression" else row.labels
    names = (labels,) if isinstance(labels, str) else tuple(labels)
    if not all(isinstance(each, str) and each for each in names) or len(names) != count or len(set(names)) != count:
        raise InputError(f"the labels of {name} are {list(names)}, expected {count} different names")
    return names


def _check_name(name: str) -> str:
    if not isinstance(name, str) or not TASK_NAME.fullmatch(name):
        raise InputError(f"the task name is {name!r}, expected letters, digits, '.', '_' or '-'")
    return name


def _check_positive(what: str, value: int) -> None:
    if type(value) is not int or value < 1:
        raise UsageError(f"{what} is {value!r}, expected 1 or more")


def _own_labels(logits: Float32Array, tasks: Sequence[LoadedTask]) -> Float32Array:
    """Cut the table's spare label columns off; -inf where a row has fewer labels than another."""
    counts = np.array([task.label_count for task in tasks])
    logits = np.ascontiguousarray(logits[:, : counts.max()])
    if counts.min() < counts.max():
        logits[np.arange(logits.shape[1]) >= counts[:, None]] = -np.inf
    return logits
