"""Training and evaluation examples: from the hub, from a data folder or from two files.

Everything that can be wrong with an example is found here, before training starts, and said with the file and the line.
Text is kept exactly as it is in the source.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Collection, Iterable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path

import numpy as np

from bitfit_export.errors import DataError, UsageError
from bitfit_export.training.data_files import HUB_DATASET, Splits, Table, read_files, read_folder, read_hub
from bitfit_export.training.examples import Examples, check_columns, check_label_kinds, convert, label_values
from bitfit_export.training.tasks import GLUE_TASKS, ProblemType, TaskOptions, TaskSpec, check_options, infer_spec

__all__ = ["HUB_DATASET", "Examples", "TaskData", "load_task_data", "sample_examples"]


@dataclass(frozen=True)
class TaskData:
    """A task's examples.

    Attributes:
        validation: chooses the best epoch.
        digest: SHA-256, in hex, of `json.dumps([*texts, label])` and a newline for each example, train then validation,
            then the further sets: the same examples give the same digest whatever file they came from.
        source: the hub's data set or the names of the files, without their folder.
        more_validation: further validation sets by name; their metrics are reported too, under `<name>_<metric>`.
        revision: of the hub's data set; None for files.
    """

    spec: TaskSpec
    train: Examples
    validation: Examples
    digest: str
    source: str
    more_validation: Mapping[str, Examples] = field(default_factory=dict)
    revision: str | None = None


def load_task_data(
    task: str,
    *,
    data: Path | None = None,
    train_file: Path | None = None,
    validation_file: Path | None = None,
    columns: Sequence[str] | None = None,
    label_column: str | None = None,
    problem_type: str | None = None,
    labels: Sequence[str] | None = None,
    train_examples: int | None = None,
    validation_examples: int | None = None,
    revision: str | None = None,
) -> TaskData:
    """Read and check a task's examples.

    They come from `train_file` and `validation_file`, else from the folder `data` (or its sub-folder named like the
    task), else, for a GLUE task, from the hub. A GLUE task has its known labels and its known columns, or those that
    any task may have; `columns` and `label_column` rename them. What is not given of any other task is inferred from
    the training examples:

    - columns `question`, `context` and `answers` make a span task, as SQuAD has them;
    - a list of words, in `tokens` or `words`, makes a token task; its labels are in `tags`, `ner_tags`, `pos_tags`,
      `upos`, `pos` or `labels`;
    - a list of labels, in `labels` or `label`, makes a multi-label task;
    - else the columns are `sentence`, `sentence1` and `sentence2`, `text`, or `text` and `text_pair`, and `label`; a
      label that is not a whole number makes a regression.

    The labels are those that the training examples have, sorted. A regression's are rounded to float32, the precision
    in which they are trained.

    Args:
        train_examples: the number of training examples, chosen at random but always the same ones.
        validation_examples: the number of validation examples, chosen likewise; further sets stay whole.
        revision: of the hub's data set; by default `HUB_REVISION`.

    Raises:
        DataError: data that cannot be used.
        UsageError: arguments that contradict each other or the task.
        MissingExtraError: `datasets` (hub) or `pyarrow` (Parquet) is missing.
    """
    options = check_options(task, columns, label_column, problem_type, labels)
    for option, count in (("--train-examples", train_examples), ("--validation-examples", validation_examples)):
        if count is not None and count < 1:
            raise UsageError(f"{option} is {count}, expected at least 1")
    splits = _read_splits(task, data, train_file, validation_file, revision)
    tables = (splits.train, splits.validation, *splits.more.values())
    for table in tables:
        if not table.examples:
            raise DataError(f"{table.name} has no examples; expected one at least")
    spec = _resolve_spec(task, options, tables)
    train, validation, *others = (convert(table, spec) for table in tables)
    train, validation = sample_examples(train, train_examples), sample_examples(validation, validation_examples)
    digest = _digest((train, validation, *others))
    more = dict(zip(splits.more, others, strict=True))
    return TaskData(spec, train, validation, digest, splits.source, more, splits.revision)


def _read_splits(
    task: str, data: Path | None, train_file: Path | None, validation_file: Path | None, revision: str | None
) -> Splits:
    if revision is not None and (data, train_file, validation_file) != (None, None, None):
        raise UsageError(
            f"the data's revision is {revision}, but the data is in files, which have none",
            hint="leave --data-revision out",
        )
    if train_file is not None or validation_file is not None:
        if train_file is None or validation_file is None or data is not None:
            raise UsageError("expected a training file and a validation file, both, and then no data folder")
        return read_files(Path(train_file), Path(validation_file))
    if data is not None:
        return read_folder(Path(data), task)
    if task in GLUE_TASKS:
        return read_hub(task, revision)
    raise UsageError(
        f"no data for the task {task!r}, which is not one of GLUE's: {', '.join(GLUE_TASKS)}",
        hint="pass --data DIR with its files",
    )


def sample_examples(examples: Examples, count: int | None) -> Examples:
    """Returns `count` of the examples, in their order. Which ones does not depend on the training's seed."""
    if count is None or count >= len(examples):
        return examples
    chosen = sorted(np.random.default_rng(0).permutation(len(examples))[:count].tolist())
    return Examples([examples.texts[index] for index in chosen], [examples.labels[index] for index in chosen])


def _digest(splits: Iterable[Examples]) -> str:
    digest = hashlib.sha256()
    for split in splits:
        for texts, label in zip(split.texts, split.labels, strict=True):
            digest.update(json.dumps([*texts, label]).encode("ascii") + b"\n")
    return digest.hexdigest()


# --- what the task is

#: Where token tasks have their words and their labels; the first that is there is taken.
_WORD_COLUMNS = ("tokens", "words")
_TAG_COLUMNS = ("tags", "ner_tags", "pos_tags", "upos", "pos", "labels")
_SPAN_COLUMNS: tuple[str, ...] = ("question", "context")
#: Where sentence tasks have one text or two: the names that GLUE has, and those that `bitfit run` has.
_SENTENCE_COLUMNS: tuple[tuple[str, ...], ...] = (("sentence",), ("sentence1", "sentence2"), ("text",))
_TEXT_PAIR: tuple[str, ...] = ("text", "text_pair")


def _resolve_spec(task: str, options: TaskOptions, tables: Sequence[Table]) -> TaskSpec:
    train, known = tables[0], GLUE_TASKS.get(task)
    first = train.examples[0][1]
    problem_type = known.problem_type if known else options.problem_type or _list_problem(options, first)
    label_column = options.label_column or (known.label_column if known else _default_label_column(problem_type, first))
    columns = options.columns or _columns(known, problem_type, train, label_column)
    for table in tables:
        check_columns(table, columns, label_column, problem_type)
    if options.labels is not None and problem_type == "span":
        raise UsageError("labels given for a span task, which has none of its own")
    if options.labels is None and problem_type != "span":
        check_label_kinds(tables, label_column)
    if known:
        return replace(known, columns=columns, label_column=label_column)
    labels = [] if problem_type == "span" else [label for _, label in label_values(train, label_column)]
    return infer_spec(task, replace(options, problem_type=problem_type), columns, label_column, labels, train.name)


def _list_problem(options: TaskOptions, example: Mapping[str, object]) -> ProblemType | None:
    """The problem type that an example shows by the lists that it has; None for a sentence with one label."""
    if all(name in example for name in (*_SPAN_COLUMNS, "answers")) and options.columns is None:
        return "span"
    text_columns = options.columns or _WORD_COLUMNS
    if any(isinstance(example.get(name), list) for name in text_columns):
        return "token"
    label_columns = (options.label_column,) if options.label_column else ("labels", "label")
    return "multi_label" if any(isinstance(example.get(name), list) for name in label_columns) else None


def _default_label_column(problem_type: ProblemType | None, example: Mapping[str, object]) -> str:
    if problem_type == "span":
        return "answers"
    candidates = {"token": _TAG_COLUMNS, "multi_label": ("labels",)}.get(problem_type or "", ())
    return next((name for name in candidates if name in example), "label")


def _columns(
    known: TaskSpec | None, problem_type: ProblemType | None, train: Table, label_column: str
) -> tuple[str, ...]:
    """The text columns of a table: those of a known task, or where these are not there those that any task may have."""
    # A second text that only some examples have is not passed over: the others will be found to lack it.
    names = dict.fromkeys(name for _, example in train.examples for name in example if name != label_column)
    picks = _possible_columns(problem_type, names)
    found = [pick for pick in picks if names.keys() >= set(pick)]
    if known is not None:
        fits = len(found) == 1 and len(found[0]) == len(known.columns) and not names.keys() >= set(known.columns)
        return found[0] if fits else known.columns
    if len(found) != 1:
        expected = ", or ".join(" and ".join(pick) for pick in picks)
        raise DataError(
            f"{train.name} has the columns {', '.join(names)}; expected either {expected}",
            hint="--columns NAME or --columns NAME,NAME says which columns are the text",
        )
    return found[0]


def _possible_columns(problem_type: ProblemType | None, names: Collection[str]) -> list[tuple[str, ...]]:
    """The columns that hold a task's text where nothing else is said: one of these must be there."""
    if problem_type == "token":
        return [(name,) for name in _WORD_COLUMNS]
    if problem_type == "span":
        return [_SPAN_COLUMNS]
    pair_is_there = all(name in names for name in _TEXT_PAIR)
    return [pick for pick in (*_SENTENCE_COLUMNS, _TEXT_PAIR) if pick != ("text",) or not pair_is_there]
