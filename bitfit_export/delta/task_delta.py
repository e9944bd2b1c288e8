"""A task delta: what training makes, and all that a task adds to its base model.

On disk it is a folder: `bias_deltas.safetensors` (float32; a bias term's name holds b_F - b_0, `head.<name>`
holds a head tensor, whole), `bitfit_config.json`, and `README.md`, a model card.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import asdict, dataclass, field, fields
from pathlib import Path
from typing import Any

import numpy as np

from bitfit_export.base_model.bias_terms import is_bias_term
from bitfit_export.bundle.fields import check_digest, is_name
from bitfit_export.bundle.json_dialect import parse_json
from bitfit_export.bundle.regular_files import read_file
from bitfit_export.bundle.row_format import MAX_LABELS
from bitfit_export.errors import (
    BaseMismatchError,
    BundleError,
    DeltaError,
    MissingExtraError,
    first_line,
    quoted,
    shown,
)
from bitfit_export.files import canonical_json, new_folder
from bitfit_export.files.outputs import OutputKind

__all__ = [
    "ACTIVATIONS",
    "CARD_FILE",
    "CONFIG_FILE",
    "DELTA",
    "FORMAT_VERSION",
    "POOLINGS",
    "PROBLEM_TYPES",
    "TENSOR_FILE",
    "TOKENS",
    "TOKEN_PROBLEMS",
    "DeltaConfig",
    "TaskDelta",
]

FORMAT_VERSION = 1
TENSOR_FILE = "bias_deltas.safetensors"
CONFIG_FILE = "bitfit_config.json"
CARD_FILE = "README.md"
PROBLEM_TYPES = ("single_label", "multi_label", "regression", "token", "span")
#: How a head reads the sequence: the base model's own pooler, the first token's vector, the mean of all tokens', or the
#: last token's.
POOLINGS = ("pooler", "cls", "mean", "last")
#: The problem types whose head reads each token by itself, and the `pooling` that they have.
TOKEN_PROBLEMS = ("token", "span")
TOKENS = "tokens"
#: What a head with a dense layer applies to it: RoBERTa's tanh, DistilBERT's relu, ELECTRA's gelu, wav2vec2's nothing.
ACTIVATIONS = ("tanh", "relu", "gelu", "identity")
_HEAD_PREFIX = "head."
#: In bytes, as a manifest.
_MAX_CONFIG_SIZE = 2**24
_INT32_MAX = 2**31 - 1
_AGAIN = "copy or train the delta again"
_A_NAME = "name of one line without control characters"


@dataclass(frozen=True)
class DeltaConfig:
    """`bitfit_config.json`.

    Attributes:
        labels: label names in id order; empty for a regression.
        bias_terms: the names of the bias terms that were trained.
        pooling: what the head reads, one of `POOLINGS`; `TOKENS` for a token or span task.
        max_length: tokens to which texts were truncated in training.
        activation: of the head's dense layer, one of `ACTIVATIONS`; None for a head that is one linear layer.
        metrics: on the whole validation set, with the delta merged into the base in float32.
        training: settings, library versions and digests; a record that nothing reads back.
    """

    base_model: str
    base_revision: str | None
    base_digest: str
    task: str
    problem_type: str
    labels: tuple[str, ...]
    bias_terms: tuple[str, ...]
    method: str
    pooling: str
    max_length: int
    metrics: dict[str, float] = field(default_factory=dict)
    training: dict[str, Any] = field(default_factory=dict)
    activation: str | None = None
    format_version: int = FORMAT_VERSION

    @property
    def output_size(self) -> int:
        """The number of the head's outputs: one for a regression, else one a label."""
        return 1 if self.problem_type == "regression" else len(self.labels)


@dataclass(frozen=True)
class TaskDelta:
    """A task's bias differences and head.

    Attributes:
        biases: b_F - b_0 under the bare base model's parameter names, float32.
        head: head tensors, whole, float32: `classifier.weight` [labels, hidden] and `classifier.bias` [labels]. With an
            activation, also `dense.weight` [inner, hidden] and `dense.bias` [inner], and the classifier reads inner.
    """

    config: DeltaConfig
    biases: Mapping[str, np.ndarray]
    head: Mapping[str, np.ndarray]

    def __post_init__(self) -> None:
        _check_config(self.config)
        _check_tensors(self)

    def check_base(self, name: str, digest: str, biases: Mapping[str, np.ndarray]) -> None:
        """Refuse a base model that this delta was not made for.

        Raises:
            BaseMismatchError: the digests differ.
            DeltaError: a bias term that the base lacks, or one of another shape.
        """
        if digest != self.config.base_digest:
            raise BaseMismatchError(
                f"the delta {self.config.task} was trained on {self.config.base_model} with digest "
                f"{self.config.base_digest[:12]}, but {name} has digest {digest[:12]}",
                hint=f"pass --model {self.config.base_model}, or train the task on {name} with bitfit-train",
            )
        for term, delta in self.biases.items():
            change = f"the delta {self.config.task} changes {term} {delta.shape}, in {name} it is"
            if term not in biases:
                # The weights are the same, so training must have added the term.
                raise DeltaError(f"{change} absent", hint="it was trained with --add-biases; compile it with it, too")
            if biases[term].shape != delta.shape:
                raise DeltaError(f"{change} of shape {biases[term].shape}")

    def merge(self, biases: Mapping[str, np.ndarray]) -> dict[str, np.ndarray]:
        """The task's own bias values b_0 + (b_F - b_0), float32, for every bias term of the base."""
        return {name: value + self.biases[name] if name in self.biases else value for name, value in biases.items()}

    def save(self, folder: Path, *, card: str, overwrite: bool = False) -> None:
        """Write the delta's folder atomically.

        Args:
            overwrite: replace a delta that is there; a folder that holds anything else is never replaced.

        Raises:
            OutputError: the folder exists, or cannot be written.
            BusyError: another process is writing it.
        """
        save_file = _safetensors().save
        tensors = {name: np.ascontiguousarray(value) for name, value in self.biases.items()}
        tensors |= {_HEAD_PREFIX + name: np.ascontiguousarray(value) for name, value in self.head.items()}
        with new_folder(folder, replaces=DELTA if overwrite else None) as temporary:
            (temporary / TENSOR_FILE).write_bytes(save_file(dict(sorted(tensors.items()))))
            (temporary / CONFIG_FILE).write_bytes(canonical_json(asdict(self.config)))
            (temporary / CARD_FILE).write_text(card, encoding="utf-8")

    @staticmethod
    def load(folder: Path) -> TaskDelta:
        """Read a delta's folder and check all of it.

        Raises:
            DeltaError: a file that is missing, truncated or malformed, a tensor that is not float32 or not finite.
        """
        config = _read_config(folder / CONFIG_FILE)
        try:
            tensors = _safetensors().load((folder / TENSOR_FILE).read_bytes())
        except OSError as error:
            raise DeltaError(f"{folder / TENSOR_FILE} cannot be read: {error.strerror}") from error
        except Exception as error:  # safetensors raises its own error type, or KeyError for an unknown dtype
            raise DeltaError(
                f"{folder / TENSOR_FILE} is not a valid safetensors file: {first_line(error)}", hint=_AGAIN
            ) from error
        head = {name.removeprefix(_HEAD_PREFIX): v for name, v in tensors.items() if name.startswith(_HEAD_PREFIX)}
        biases = {name: value for name, value in tensors.items() if not name.startswith(_HEAD_PREFIX)}
        return TaskDelta(config, biases, head)


def _files_of(config: Any) -> dict[str, str | None]:
    """The files of a delta's folder, by its config; looser than loading, for a damaged delta may be replaced too."""
    check_digest(config["base_digest"], "base_digest")
    if type(config["format_version"]) is not int or config["problem_type"] not in PROBLEM_TYPES:
        raise DeltaError(f"not the {CONFIG_FILE} of a delta")
    return dict.fromkeys((TENSOR_FILE, CONFIG_FILE, CARD_FILE))


#: How a delta's folder is told from any other.
DELTA = OutputKind("a task delta", CONFIG_FILE, _files_of)


def _safetensors() -> Any:
    try:
        import safetensors.numpy
    except ImportError as error:
        raise MissingExtraError("safetensors", "export") from error
    return safetensors.numpy


def _read_config(path: Path) -> DeltaConfig:
    try:
        raw = parse_json(read_file(path, limit=_MAX_CONFIG_SIZE))
    except OSError as error:
        raise DeltaError(
            f"{path} cannot be read: {error.strerror or error}",
            hint="expected the folder of a delta that bitfit-train wrote",
        ) from error
    except BundleError as error:
        raise DeltaError(error.message, hint=_AGAIN) from error
    except ValueError as error:
        raise DeltaError(f"{path} is not valid JSON: {shown(str(error), 200)}", hint=_AGAIN) from error
    known = {each.name: each for each in fields(DeltaConfig)}
    required = set(known) - {"metrics", "training", "activation"}
    if not isinstance(raw, dict) or not required <= set(raw):
        missing = sorted(required - set(raw)) if isinstance(raw, dict) else sorted(required)
        raise DeltaError(f"{path} lacks {', '.join(missing)}", hint="train the delta again with bitfit-train")
    if type(raw["format_version"]) is not int or raw["format_version"] != FORMAT_VERSION:
        raise DeltaError(
            f"{path} has format version {quoted(raw['format_version'])}, expected {FORMAT_VERSION}",
            hint="it was written by another release of bitfit-export; use that release or train it again",
        )
    values = {name: raw[name] for name in known if name in raw}
    for name in ("labels", "bias_terms"):
        if not isinstance(values[name], list) or not all(isinstance(each, str) for each in values[name]):
            raise DeltaError(f"{path}: {name} is {quoted(values[name])}, expected a list of strings")
        values[name] = tuple(values[name])
    for name in ("metrics", "training"):
        if not isinstance(values.get(name, {}), dict):
            raise DeltaError(f"{path}: {name} is {quoted(values[name])}, expected an object")
    return DeltaConfig(**values)


def _check_names(config: DeltaConfig) -> None:
    """Whatever is shown, compared or written into a manifest is a name."""
    names = {"base_model": config.base_model, "task": config.task, "method": config.method}
    if config.base_revision is not None:
        names["base_revision"] = config.base_revision
    for what, name in names.items():
        if not is_name(name):
            raise DeltaError(f"{what} is {quoted(name)}, expected a {_A_NAME}")
    try:
        check_digest(config.base_digest, "base_digest")
    except BundleError as error:
        raise DeltaError(error.message, hint=_AGAIN) from error
    for what, listed in (("label", config.labels), ("metric", config.metrics), ("bias term", config.bias_terms)):
        for name in listed:
            if not is_name(name):
                raise DeltaError(f"the {what} {quoted(name)} is empty or has a control character, expected a {_A_NAME}")


def _check_config(config: DeltaConfig) -> None:
    _check_names(config)
    if config.problem_type not in PROBLEM_TYPES:
        raise DeltaError(f"problem_type is {quoted(config.problem_type)}, expected one of {', '.join(PROBLEM_TYPES)}")
    poolings = (TOKENS,) if config.problem_type in TOKEN_PROBLEMS else POOLINGS
    if config.pooling not in poolings:
        raise DeltaError(f"pooling is {quoted(config.pooling)}, expected one of {', '.join(poolings)}")
    if config.activation is not None and config.activation not in ACTIVATIONS:
        raise DeltaError(f"activation is {quoted(config.activation)}, expected one of {', '.join(ACTIVATIONS)}")
    if type(config.max_length) is not int or not 1 <= config.max_length <= _INT32_MAX:
        raise DeltaError(f"max_length is {quoted(config.max_length)}, expected a number of tokens")
    if len(config.labels) > MAX_LABELS:
        raise DeltaError(f"the task has {len(config.labels)} labels, expected at most {MAX_LABELS}")
    if (config.problem_type == "regression") != (not config.labels):
        raise DeltaError(f"a {config.problem_type} task with {len(config.labels)} labels: only a regression has none")
    if len(set(config.labels)) != len(config.labels):
        raise DeltaError("two labels of the task have the same name")
    if config.problem_type == "span" and len(config.labels) != 2:
        raise DeltaError(f"a span task with {len(config.labels)} labels, expected two: where it starts and ends")
    for name, value in config.metrics.items():
        if isinstance(value, bool) or not isinstance(value, (int, float)) or not math.isfinite(value):
            raise DeltaError(f"the metric {shown(name)} is {quoted(value)}, expected a finite number")


def _check_tensors(delta: TaskDelta) -> None:
    task = delta.config.task
    for name, value in [*delta.biases.items(), *delta.head.items()]:
        if value.dtype != np.float32:
            raise DeltaError(f"{task}: {shown(name)} is {value.dtype}, expected float32")
        if not np.isfinite(value).all():
            raise DeltaError(
                f"{task}: {shown(name)} has a NaN or an infinity", hint="train again with a lower learning rate"
            )
    strange = [name for name in delta.biases if not is_bias_term(name)]
    if strange:
        raise DeltaError(
            f"{task}: {shown(strange[0])} is not a bias term; only biases and the head can be inputs of a frozen model",
            hint="train with --method bitfit",
        )
    if set(delta.biases) != set(delta.config.bias_terms):
        different = sorted(set(delta.biases) ^ set(delta.config.bias_terms))
        raise DeltaError(f"{task}: {CONFIG_FILE} and {TENSOR_FILE} disagree about {shown(different[0])}")
    _check_head(delta)


def _check_head(delta: TaskDelta) -> None:
    """The tensors of the head are there, no others, and their shapes fit each other."""
    task, head = delta.config.task, delta.head
    names = ["classifier.bias", "classifier.weight"]
    names += ["dense.bias", "dense.weight"] if delta.config.activation else []
    if sorted(head) != names:
        raise DeltaError(f"{task}: the head has {quoted(sorted(head))}, expected {names}")
    inner = (*head["classifier.weight"].shape, 0, 0)[1]
    shapes: dict[str, tuple[int, ...]] = {
        "classifier.weight": (delta.config.output_size, inner),
        "classifier.bias": (delta.config.output_size,),
    }
    if delta.config.activation:
        hidden = (*head["dense.weight"].shape, 0, 0)[1]
        shapes |= {"dense.weight": (inner, hidden), "dense.bias": (inner,)}
    for name, shape in shapes.items():
        if head[name].shape != shape:
            raise DeltaError(f"{task}: head.{name} has shape {head[name].shape}, expected {shape}")
