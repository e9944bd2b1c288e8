"""BiasSession: load a bundle once, then run any of its tasks, or a batch in which every item is another task."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from os import PathLike
from pathlib import Path
from typing import Any, NamedTuple, TypeAlias, overload

import numpy as np
from numpy.typing import ArrayLike, NDArray

from bitfit_export.bundle import (
    BiasRow,
    CheckedFiles,
    Manifest,
    read_files,
    read_manifest,
    read_recorded_row,
    read_row,
)
from bitfit_export.bundle.row_rules import check_layout
from bitfit_export.errors import BundleError, UsageError
from bitfit_export.runtime.arguments import as_names, as_options, as_path, check_labels, check_name, check_positive
from bitfit_export.runtime.beside import Beside
from bitfit_export.runtime.engines import choose_engine
from bitfit_export.runtime.frozen_model import FrozenModel
from bitfit_export.runtime.inputs import InputLimits
from bitfit_export.runtime.predict.batches import BATCH_SIZE, BATCH_TOKENS
from bitfit_export.runtime.predict.outputs import own_labels, shared_output
from bitfit_export.runtime.predict.postprocess import Answer, Prediction, WordLabel
from bitfit_export.runtime.predict.predictor import Predictor
from bitfit_export.runtime.seen_versions import SeenVersions
from bitfit_export.runtime.tasks.acceptance import check_runs, choose_records, default_labels
from bitfit_export.runtime.tasks.make_store import make_store
from bitfit_export.runtime.tasks.task_store import LoadedTask, TaskStore
from bitfit_export.runtime.text.tokenizer import TOKENIZER_FILE, Text, TextEncoder, as_texts
from bitfit_export.runtime.threads import check_threads
from bitfit_export.signing import PublicKey, TrustedKeys

__all__ = ["BiasSession", "SessionParts", "parts_of"]

Float32Array: TypeAlias = NDArray[np.float32]
IntArray: TypeAlias = NDArray[np.int64]


class BiasSession:
    """A bundle that is ready to run. Any number of threads may use one session, also to load and unload tasks.

    A session that is pickled, as for another process, is the path of its bundle and the names of its tasks: it is
    opened anew there, and refused if the bundle has changed. A forked process may use the session that it inherits; it
    opens the model anew when it first runs it.

    Args:
        bundle: the bundle's folder.
        engine: what runs the bundle, a name of `engines.ENGINES`; by default the first that runs the bundle's target.
        engine_options: options of the engine by name, such as `{"precision": "bf16"}` for OpenVINO; `docs/running.md`
            lists them.
        threads: threads for one run; by default the engine's choice.
        tasks: the tasks to load; by default all of the bundle's.
        check_hashes: compare SHA-256 of every file with the manifest, against forgery. Sizes and CRC-32C of all files,
            and everything about rows, are compared always.
        trusted_keys: public keys, as bytes, hexadecimal digits or paths of files that have these. The manifest and
            every row must then be signed by one of them, and `check_hashes` is on.
        state: a file that keeps the highest version of each task that was used, so that an older row is refused after
            a restart as well. It is made when it is not there; several processes may share it.

    Raises:
        BundleError: a file that is missing or damaged, or does not belong to the others; RowError, if it is a row;
            SignatureError, if no trusted key has signed it.
        InputError: a task that the bundle lacks, or a bundle that is not a path.
        UsageError: an unknown engine, an option or a value that it does not take; a number of threads below 1, or above
            four per core.
        MissingExtraError: the engine's package is not installed.
    """

    def __init__(
        self,
        bundle: str | Path,
        *,
        engine: str | None = None,
        engine_options: Mapping[str, str | int | PathLike[str]] | None = None,
        threads: int | None = None,
        tasks: Sequence[str] | None = None,
        check_hashes: bool = False,
        trusted_keys: Iterable[PublicKey] | None = None,
        state: str | Path | None = None,
    ) -> None:
        if threads is not None:
            check_threads(threads)
        folder, options = as_path(bundle, "the bundle"), as_options(engine_options)
        trusted = None if trusted_keys is None else TrustedKeys(trusted_keys)
        self._check = None if trusted is None else trusted.check
        self._seen = None if state is None else SeenVersions(as_path(state, "the state"))
        self._manifest = read_manifest(folder, check=self._check)
        self._opened = {
            "bundle": folder.absolute(),
            "engine": engine,
            "engine_options": options,
            "threads": threads,
            "check_hashes": check_hashes,
            "trusted_keys": None if trusted is None else sorted(trusted.keys),
            "state": None if state is None else as_path(state, "the state").absolute(),
        }
        if not self._manifest.reads_text:
            raise BundleError(f"the bundle's model reads {self._manifest.modality}, expected one that reads text")
        chosen = choose_engine(
            self._manifest.target, engine, options=options, feeds_defaults=self._manifest.overridable
        )
        records = choose_records(self._manifest, tasks)
        files = read_files(folder, self._manifest, hash_files=check_hashes or trusted is not None)
        with Beside(lambda: FrozenModel(files, self._manifest, chosen, threads=threads, options=options)) as opening:
            files.check_others()
            try:
                self._encoder = _make_encoder(files, self._manifest)
            finally:
                self._model = opening.result()  # what is wrong with the model is said before
        files.refuse_changed()
        self._limits = InputLimits(
            self._manifest.vocab_size, self._model.max_positions, "token_type_ids" in self._model.text_inputs
        )
        self._store = make_store(self._manifest, records, self._model.bind, labels=self._model.labels)
        self._predictor = Predictor(self._encoder, self._limits, self._model, self._store)
        self._recorded: dict[str, LoadedTask] = {}  # the tasks as the bundle has them
        rows = [read_recorded_row(folder, self._manifest, record, check=self._check) for record in records]
        for row in rows:
            check_runs(row, row.task, self._model)
        if self._seen is not None:
            self._seen.take({row.task: row.task_version for row in rows})
        for record, row in zip(records, rows, strict=True):
            self._recorded[record.name] = self._store.add(row, labels=record.labels)

    def __reduce__(self) -> tuple[Any, ...]:
        tasks = self._store.tasks
        others = [task.name for task in tasks if task is not self._recorded.get(task.name)]
        if others:
            raise UsageError(
                f"the session cannot be pickled with the task {others[0]}, which is not its bundle's own",
                hint="pickle the session before load_task, and call load_task in the other process",
            )
        return _open_again, (self._manifest.digest, self._opened | {"tasks": [task.name for task in tasks]})

    @property
    def manifest(self) -> Manifest:
        """The bundle's manifest. Tasks that were loaded later are not in it."""
        return self._manifest

    @property
    def exact(self) -> bool:
        """Whether the engine computes in the model's own precision, and not in a lower one that an option asked for."""
        return self._model.exact

    @property
    def device(self) -> str:
        """What runs the model, in words: this machine's processor, an accelerator, or an emulator of one."""
        return self._model.device

    @property
    def emulated(self) -> bool:
        """Whether an emulator runs the model, and takes seconds for what the accelerator does at once."""
        return self._model.emulated

    @property
    def tasks(self) -> tuple[str, ...]:
        """The names of the loaded tasks."""
        return tuple(task.name for task in self._store.tasks)

    def labels(self, task: str) -> tuple[str, ...]:
        """The task's label names in id order; empty for a regression.

        Raises:
            InputError: the task is not loaded.
        """
        return self._store.get(check_name(task)).labels

    def load_task(self, path: str | Path, *, name: str | None = None, labels: Sequence[str] | None = None) -> str:
        """Load a row file, or replace the loaded task of the same name. Runs under way keep the old row.

        A task with more labels than any other makes every task's head wider inside the model while it is loaded, which
        can change the last bit of the others' logits.

        Args:
            path: a row that was exported for this model.
            name: the name to load it under; by default its own.
            labels: label names in id order. By default those of the loaded task that it replaces, or of the bundle's
                task of this name, if they are of the same type and number; else LABEL_0, LABEL_1, ...

        Returns:
            The task's name.

        Raises:
            BundleError: the file cannot be read; RowError, if it is damaged or was made for another model.
            InputError: a path, a name or labels that cannot be used, a row that is older than the loaded one, or one of
                a task that the model has no output for. Whatever is refused leaves the session as it was.
        """
        return self._load(self._read_row(as_path(path, "the row")), name, labels)

    def load_row(self, row: BiasRow, *, name: str | None = None, labels: Sequence[str] | None = None) -> str:
        """As `load_task`, for a row that is in memory, as `bundle.decode_row` gives it.

        Raises:
            RowError: it was made for another model.
            InputError: as `load_task`.
            UsageError: the session has trusted keys, and a row in memory has no signature.
        """
        if self._check is not None:
            raise UsageError("the session has trusted keys, and a row in memory has no signature", hint="use load_task")
        check_layout(row, self._manifest.layout)
        return self._load(row, name, labels)

    def _read_row(self, path: Path) -> BiasRow:
        """A row of a file that the session may use."""
        return read_row(path, layout=self._manifest.layout, check=self._check)

    def _load(self, row: BiasRow, name: str | None, labels: Sequence[str] | None) -> str:
        """Take in a row that was checked."""
        name = row.task if name is None else check_name(name)
        check_runs(row, name, self._model)
        known = self._store.find(name), self._manifest.tasks.get(name)
        names = default_labels(row, known) if labels is None else check_labels(name, row, labels)
        if self._seen is not None:
            self._seen.take({name: row.task_version})
        return self._store.add(row, name=name, labels=names).name

    def unload_task(self, name: str) -> None:
        """Forget a task. Runs under way finish with it.

        Raises:
            InputError: the task is not loaded.
        """
        self._store.remove(check_name(name))

    def encode(
        self, texts: Text | Sequence[Text], *, truncate: bool = False, max_length: int | None = None
    ) -> dict[str, IntArray]:
        """The text inputs of `run`, int64 [batch, sequence], padded to the longest text.

        Args:
            texts: a string or a tuple of two is one text; a list holds several, each a string, a tuple of two, or a
                list of words.
            truncate: cut a text that is longer than `max_length` tokens instead of refusing it.
            max_length: by default what the model takes.

        Raises:
            InputError: no text, one that is none of these, or one that is too long.
            UsageError: a `max_length` that the model does not take.
        """
        return self._predictor.pad(self._encoder.tokenize(texts, truncate=truncate, max_length=max_length))

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
            task: the task of all items, or a list with one for each.
            input_ids: integers [batch, sequence], from 0 to the vocabulary's size.
            attention_mask: 1 for a token, 0 for padding, [batch, sequence].
            token_type_ids: by default zeros.

        Returns:
            Logits float32, [batch, labels] for sentence tasks, [batch, sequence, labels] for token and span tasks. With
            a list of tasks, labels is the largest number among them, and what lies beyond an item's own labels is -inf.

        Raises:
            InputError: a task that is not loaded, arrays that the model can't take, sentence tasks together with token
                or span tasks, or different tasks where the bundle's layout runs one at a time.
        """
        text = self._limits.check(input_ids, attention_mask, token_type_ids)
        names = as_names(task, items=len(text["input_ids"]))
        with self._store.lease(names) as lease:
            (logits,) = self._model.run(text, lease.feeds(), [shared_output(lease.tasks)])
        return own_labels(logits, lease.tasks)

    def run_outputs(
        self,
        task: str | Sequence[str],
        *,
        input_ids: ArrayLike,
        attention_mask: ArrayLike,
        token_type_ids: ArrayLike | None = None,
    ) -> dict[str, Float32Array]:
        """As `run`, for any mix of tasks: all outputs that the model has.

        Returns:
            `logits` float32 [batch, labels] and, where the bundle was made with token or span tasks, `token_logits`
            float32 [batch, sequence, labels]; -inf beyond an item's own labels. What `token_logits` has for the item of
            a sentence task means nothing, nor does what `logits` has for that of a token or span task.

        Raises:
            InputError: as `run`, but for the mix.
        """
        text = self._limits.check(input_ids, attention_mask, token_type_ids)
        names = as_names(task, items=len(text["input_ids"]))
        with self._store.lease(names) as lease:
            outputs = self._model.run(text, lease.feeds(), self._model.outputs)
        logits = zip(self._model.outputs, outputs, strict=True)
        return {name: own_labels(values, lease.tasks) for name, values in logits}

    @overload
    def predict(
        self,
        texts: Text | Sequence[Text],
        task: str | Sequence[str],
        *,
        truncate: bool = False,
        max_length: int | None = None,
        top_k: None = None,
        max_answer_tokens: int = 30,
        batch_size: int = BATCH_SIZE,
        batch_tokens: int = BATCH_TOKENS,
    ) -> list[Prediction | Answer | list[WordLabel]]: ...

    @overload
    def predict(
        self,
        texts: Text | Sequence[Text],
        task: str | Sequence[str],
        *,
        truncate: bool = False,
        max_length: int | None = None,
        top_k: int,
        max_answer_tokens: int = 30,
        batch_size: int = BATCH_SIZE,
        batch_tokens: int = BATCH_TOKENS,
    ) -> list[list[Prediction] | list[Answer]]: ...

    def predict(
        self,
        texts: Text | Sequence[Text],
        task: str | Sequence[str],
        *,
        truncate: bool = False,
        max_length: int | None = None,
        top_k: int | None = None,
        max_answer_tokens: int = 30,
        batch_size: int = BATCH_SIZE,
        batch_tokens: int = BATCH_TOKENS,
    ) -> Any:
        """Answer texts, as the Hugging Face pipeline of each task does. All texts see the same bias rows.

        Args:
            texts: a string or a tuple of two is one text; a list holds several. A token task takes a string, or the
                list of a text's words; a span task a tuple of question and context; the others a string or a pair.
            task: the task of all texts, or a list with one for each. Any tasks may be mixed.
            truncate: as for `encode`. A context that is too long is never cut: it is read in windows that overlap by
                128 tokens where there is room, and the best answer of all windows counts.
            max_length: as for `encode`.
            top_k: give a list of this many labels or answers for each text, best first, instead of the best one.
            max_answer_tokens: the longest answer of a span task.
            batch_size: how many texts of similar length to run at once, at most.
            batch_tokens: how many tokens to run at once, at most, with the padding to the longest text of the batch. A
                longer text runs alone.

        Returns:
            One result a text, in the order of the texts:

            - sentence tasks: `{"label", "score"}`. The score is the softmax probability for `single_label` and the
                sigmoid for `multi_label`; a regression gives `{"score"}`, the value itself;
            - token tasks: a list of `{"word", "label", "score", "start", "end"}`, one a word. Its first token decides;
            - span tasks: `{"answer", "score", "start", "end"}`.

            start and end count characters of the text, of its words with a space between each two, or of the context.

        Raises:
            InputError, UsageError: as `encode` and `run`, a text of a kind that its task does not take, or `top_k` for
                a token task; nothing has been run then.
        """
        check_positive("batch_size", batch_size)
        check_positive("batch_tokens", batch_tokens)
        check_positive("max_answer_tokens", max_answer_tokens)
        if top_k is not None:
            check_positive("top_k", top_k)
        return self._predictor.predict(
            as_texts(texts),
            task,
            truncate=truncate,
            max_length=max_length,
            top_k=top_k,
            max_answer_tokens=max_answer_tokens,
            batch_size=batch_size,
            batch_tokens=batch_tokens,
        )


class SessionParts(NamedTuple):
    """The parts of a session on which other parts of this package build."""

    encoder: TextEncoder
    model: FrozenModel
    predictor: Predictor
    store: TaskStore[Any]
    read_row: Callable[[Path], BiasRow]
    load_row: Callable[[BiasRow, str | None, Sequence[str] | None], str]


def parts_of(session: BiasSession) -> SessionParts:
    """Returns a session's parts, which stay its own."""
    return SessionParts(
        session._encoder, session._model, session._predictor, session._store, session._read_row, session._load
    )


def _open_again(digest: str, options: dict[str, Any]) -> BiasSession:
    """A session that was pickled."""
    session = BiasSession(**options)
    if session.manifest.digest != digest:
        raise BundleError(
            f"the bundle {options['bundle']} has changed since the session was pickled",
            hint="open the bundle anew with BiasSession",
        )
    return session


def _make_encoder(files: CheckedFiles, manifest: Manifest) -> TextEncoder:
    return TextEncoder(
        files.tokenizer,
        max_positions=manifest.longest_sequence,
        pad_token_id=manifest.pad_token_id,
        where=str(files.folder / TOKENIZER_FILE),
    )
