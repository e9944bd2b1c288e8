"""The manifest: what a bundle holds, and the digests by which it is known.

`manifest.json` names the base model, the layout, the frozen model's interface, every file, and every task. A bundle's
rows lie at `tasks/<task>.bias`. Keys that this release does not know are ignored; whatever changes the meaning of a
known key gets a new format version, and an unknown version is refused. A key that came later has a default, which holds
where it is absent.
"""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Mapping
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

from bitfit_export.bundle.accelerator import AcceleratorRecord, accelerator_from_record
from bitfit_export.bundle.fields import Record, check_digest, check_one_of, check_range, check_text, parse_object
from bitfit_export.bundle.interface import (
    INFER,
    LAYOUT_KINDS,
    MANIFEST_FILE,
    MODALITIES,
    SIGNATURE_SUFFIX,
    TOKENIZER_FILE,
)
from bitfit_export.bundle.layout import Layout
from bitfit_export.bundle.limits import MAX_MANIFEST_SIZE
from bitfit_export.bundle.programs import ProgramRecord, program_from_record
from bitfit_export.bundle.quantization import QuantizationRecord, quantization_from_record
from bitfit_export.bundle.records import (
    BaseRecord,
    FileRecord,
    TaskRecord,
    task_from_record,
    task_to_json,
)
from bitfit_export.bundle.regular_files import COPY_AGAIN, CheckBytes, read_file
from bitfit_export.errors import BundleError, quoted, shown
from bitfit_export.files import canonical_json, write_bytes
from bitfit_export.files.outputs import OutputKind

__all__ = [
    "BUNDLE",
    "LAYOUT_KINDS",
    "MANIFEST_FILE",
    "MANIFEST_VERSION",
    "PRECISIONS",
    "ROW_DTYPES",
    "TARGETS",
    "Manifest",
    "read_manifest",
    "write_manifest",
]

MANIFEST_VERSION = 2
TARGETS = ("ort", "portable", "qnn")
PRECISIONS = ("fp32", "fp16", "int8", "int8-static", "w8a16", "int4")
ROW_DTYPES = ("fp32", "fp16")
_EXPORT_AGAIN = "export the bundle again"
_INT32_MAX = 2**31 - 1


@dataclass(frozen=True, kw_only=True)
class Manifest:
    """`manifest.json`. Making one checks that its parts agree.

    Attributes:
        product_version: the release of bitfit-export that wrote the bundle.
        layout_kind: how biases enter the graph, one of `LAYOUT_KINDS`.
        modality: what the model reads, one of `MODALITIES`.
        programs: the graphs, by their purpose; `infer` is always among them.
        max_positions: the longest sequence in tokens; of a text model alone, as the next two.
        vocab_size: the number of ids.
        pad_token_id: the id for padding.
        files: every file but the manifest and the rows, by its path in the bundle, with forward slashes; model and
            tokenizer are among them.
        tasks: by task name; may be empty, for rows can be added while a bundle is in use.
        static_shape: batch and sequence of the text inputs, where they are fixed; the head inputs then have the largest
            number of labels of the bundle's tasks. None where all of these are free, as in a table always.
        overridable: whether bias and head inputs are initializers too, with defaults; in the named layout only.
        fold_reasons: for bias terms that folding left in the row, why.
        row_dtype: of the values in the bundle's rows, one of `ROW_DTYPES`.
        prepacked: whether weights are stored as the kernels of ONNX Runtime want them.
        quantization: the ranges of activations that are constants, in `int8`, `int8-static` and `w8a16` only, and what
            stays in float32.
        accelerator: how the program was compiled ahead of time; with the target `qnn`, and with no other.

    Raises:
        BundleError: a value that is malformed, or two that disagree.
    """

    format_version: int = MANIFEST_VERSION
    product_version: str
    base: BaseRecord
    layout: Layout
    layout_kind: str
    target: str
    precision: str
    opset: int
    modality: str
    programs: dict[str, ProgramRecord]
    files: dict[str, FileRecord]
    tasks: dict[str, TaskRecord]
    max_positions: int = 0
    vocab_size: int = 0
    pad_token_id: int = 0
    static_shape: tuple[int, int] | None = None
    overridable: bool = False
    fold_reasons: dict[str, str] = field(default_factory=dict)
    row_dtype: str = "fp32"
    prepacked: bool = False
    quantization: QuantizationRecord = field(default_factory=QuantizationRecord)
    accelerator: AcceleratorRecord | None = None

    def __post_init__(self) -> None:
        _check_version(self.format_version)
        check_text(self.product_version, "product_version")
        if self.base.digest != self.layout.base_digest:
            raise BundleError(
                f"the layout is for the base {self.layout.base_digest[:12]}, expected {self.base.digest[:12]}"
            )
        check_one_of(self.layout_kind, LAYOUT_KINDS, "layout_kind")
        check_one_of(self.target, TARGETS, "target")
        check_one_of(self.precision, PRECISIONS, "precision")
        check_one_of(self.row_dtype, ROW_DTYPES, "row_dtype")
        check_one_of(self.modality, MODALITIES, "modality")
        check_range(self.opset, 1, _INT32_MAX, "opset")
        if self.reads_text:
            for name in ("max_positions", "vocab_size"):
                check_range(getattr(self, name), 1, _INT32_MAX, name)
            check_range(self.pad_token_id, 0, self.vocab_size - 1, "pad_token_id")
        self._check_layout_options()
        self._check_file_names()
        for name, task in self.tasks.items():
            if name != task.name:
                raise BundleError(f"the task {task.name} stands under the name {quoted(name)}, expected its own")
            if self.reads_text and task.max_length > self.max_positions:
                raise BundleError(
                    f"the task {name} has max_length {task.max_length}, expected at most {self.max_positions}"
                )

    def _check_layout_options(self) -> None:
        if self.static_shape is not None:
            _check_static_shape(self.static_shape, self.layout_kind)
            if self.reads_text and self.static_shape[1] > self.max_positions:
                raise BundleError(
                    f"static_shape has {self.static_shape[1]} tokens, expected at most {self.max_positions}"
                )
        if self.overridable and self.layout_kind != "named":
            raise BundleError(f"the layout {self.layout_kind} is overridable, expected the layout named")
        unknown = self.fold_reasons.keys() - {entry.name for entry in self.layout.biases}
        if unknown:
            raise BundleError(f"fold_reasons names {quoted(min(unknown))}, expected bias terms of the layout")
        for name, reason in self.fold_reasons.items():
            check_text(reason, f"fold_reasons: the reason of {shown(name)}")
        if self.quantization.ranges and self.precision not in ("int8", "int8-static", "w8a16"):
            raise BundleError(
                f"quantization has ranges in the precision {self.precision}, expected int8, int8-static or w8a16"
            )
        self._check_integers()
        if (self.accelerator is not None) != (self.target == "qnn"):
            what = "no accelerator, expected one" if self.accelerator is None else "an accelerator, expected none"
            raise BundleError(f"the manifest of the target {self.target} has {what}", hint=_EXPORT_AGAIN)

    def _check_integers(self) -> None:
        """What integers need besides: uint8's zero points, and scales for values that the layout has."""
        if self.precision != "w8a16":
            for each in self.quantization.ranges.values():
                check_range(each.zero_point, 0, 255, "quantization: a zero_point")
        sizes = {entry.name: entry.size for entry in self.layout.biases} if self.layout_kind == "named" else {}
        for name, scales in self.quantization.bias_scales.items():
            if sizes.get(name) != len(scales):
                raise BundleError(
                    f"quantization has {len(scales)} bias_scales for {quoted(name)}, expected one for each value of a "
                    "bias input of the layout named"
                )

    def _check_file_names(self) -> None:
        for path in self.files:
            _check_path(path)
        if INFER not in self.programs:
            raise BundleError(f"the manifest's programs lack {INFER}", hint=_EXPORT_AGAIN)
        needed = [program.file for program in self.programs.values()]
        needed += [TOKENIZER_FILE] if self.reads_text else []
        needed += self.accelerator.files if self.accelerator else ()
        for name in needed:
            if name not in self.files:
                raise BundleError(f"the manifest's files lack {shown(name)}", hint=_EXPORT_AGAIN)

    @property
    def reads_text(self) -> bool:
        """Returns whether the model reads text: then the bundle has a tokenizer."""
        return self.modality == "text"

    @property
    def longest_sequence(self) -> int:
        """The longest sequence that the bundle's graphs take, in tokens; of a text model alone."""
        return self.static_shape[1] if self.static_shape else self.max_positions

    @property
    def infer(self) -> ProgramRecord:
        """The program that answers."""
        return self.programs[INFER]

    @property
    def digest(self) -> str:
        """SHA-256 of all that the manifest says, which has the SHA-256 of every file, as hexadecimal digits."""
        return hashlib.sha256(canonical_json(self.to_json())).hexdigest()

    def to_json(self) -> dict[str, Any]:
        """Plain lists and dicts. The layout's digest is written as `layout_digest`, for readers that don't hash."""
        text = {name: getattr(self, name) for name in _TEXT_FIELDS} if self.reads_text else {}
        accelerator = {} if self.accelerator is None else {"accelerator": self.accelerator.to_json()}
        return (
            text
            | accelerator
            | {
                "base": asdict(self.base),
                "files": {path: asdict(record) for path, record in self.files.items()},
                "fold_reasons": dict(self.fold_reasons),
                "format_version": self.format_version,
                "layout": self.layout.to_json(),
                "layout_digest": self.layout.digest,
                "layout_kind": self.layout_kind,
                "modality": self.modality,
                "opset": self.opset,
                "overridable": self.overridable,
                "precision": self.precision,
                "prepacked": self.prepacked,
                "product_version": self.product_version,
                "programs": {purpose: program.to_json() for purpose, program in self.programs.items()},
                "quantization": self.quantization.to_json(),
                "row_dtype": self.row_dtype,
                "static_shape": None if self.static_shape is None else list(self.static_shape),
                "target": self.target,
                "tasks": {name: task_to_json(task) for name, task in self.tasks.items()},
            }
        )

    @staticmethod
    def from_json(value: object) -> Manifest:
        """Read what `to_json` wrote, and check all of it.

        Raises:
            BundleError: a key that is missing, a value of the wrong type or out of its range, an unknown format
                version, a path that leaves the bundle, or a layout whose digest is not `layout_digest`.
        """
        return _from_record(Record(value, MANIFEST_FILE))


def read_manifest(folder: Path, *, check: CheckBytes | None = None) -> Manifest:
    """Read and check the manifest of the bundle at `folder`. The other files are not looked at: see `check_files`.

    Args:
        check: is given the bytes and their path before anything of them is used, and raises to refuse them.

    Raises:
        BundleError: the manifest is missing, truncated or malformed, or does not hold.
    """
    path = folder / MANIFEST_FILE
    try:
        data = read_file(path, limit=MAX_MANIFEST_SIZE)
    except OSError as error:
        raise BundleError(
            f"{path} cannot be read: {error.strerror or error}", hint="expected a folder that bitfit-export wrote"
        ) from error
    if check is not None:
        check(data, path)
    return _from_record(parse_object(data, str(path)))


def write_manifest(folder: Path, manifest: Manifest) -> None:
    """Write the manifest of the bundle at `folder` atomically. The same manifest gives the same bytes.

    Raises:
        OutputError: the file cannot be written; the old one is untouched.
    """
    write_bytes(folder / MANIFEST_FILE, canonical_json(manifest.to_json()))


def _files_of(manifest: object) -> dict[str, str | None]:
    """The files of a bundle's folder, by its manifest; looser than `from_json`, for a bundle that this release can't
    read may be replaced too."""
    record = Record(manifest, MANIFEST_FILE)
    record.integer("format_version")
    check_text(record.text("product_version"), "product_version")
    check_digest(record.text("layout_digest"), "layout_digest")
    check_digest(record.record("base").text("digest"), "the base model's digest")
    rows = [task.text("file") for task in record.named_records("tasks").values()]
    signatures = [name + SIGNATURE_SUFFIX for name in (MANIFEST_FILE, *rows)]
    return dict.fromkeys((MANIFEST_FILE, *record.named_records("files"), *rows, *signatures))


#: How a bundle's folder is told from any other.
BUNDLE = OutputKind("a bundle", MANIFEST_FILE, _files_of)

#: The keys that a text model alone has.
_TEXT_FIELDS = ("max_positions", "vocab_size", "pad_token_id")
#: How to read the keys that have a default.
_OPTIONAL: Mapping[str, Callable[[Record, str], Any]] = {
    "static_shape": Record.integers_or_none,
    "overridable": Record.boolean,
    "fold_reasons": Record.named_texts,
    "row_dtype": Record.text,
    "prepacked": Record.boolean,
    "quantization": lambda record, key: quantization_from_record(record.record(key)),
    "accelerator": lambda record, key: accelerator_from_record(record.record(key)),
}


def _from_record(record: Record) -> Manifest:
    version = record.integer("format_version")
    _check_version(version)  # first: what the other keys mean depends on it
    base = record.record("base")
    layout = Layout.from_record(record.record("layout"))
    recorded = record.text("layout_digest")
    if recorded != layout.digest:
        raise BundleError(
            f"the manifest's layout_digest is {recorded[:12]!r}, its layout gives {layout.digest[:12]!r}",
            hint=COPY_AGAIN,
        )
    modality = record.text("modality")
    text_fields: dict[str, Any] = {name: record.integer(name) for name in _TEXT_FIELDS} if modality == "text" else {}
    return Manifest(
        format_version=version,
        product_version=record.text("product_version"),
        base=BaseRecord(base.text("name"), base.text_or_none("revision"), base.text("digest")),
        layout=layout,
        layout_kind=record.text("layout_kind"),
        target=record.text("target"),
        precision=record.text("precision"),
        opset=record.integer("opset"),
        modality=modality,
        programs={purpose: program_from_record(each) for purpose, each in record.named_records("programs").items()},
        files={
            name: FileRecord(each.text("sha256"), each.integer("size"), each.integer("crc32c"))
            for name, each in record.named_records("files").items()
        },
        tasks={name: task_from_record(name, each) for name, each in record.named_records("tasks").items()},
        **text_fields,
        **{key: read(record, key) for key, read in _OPTIONAL.items() if record.has(key)},
    )


def _check_version(version: int) -> None:
    if version != MANIFEST_VERSION:
        raise BundleError(
            f"the manifest has format version {version}, expected {MANIFEST_VERSION}",
            hint="use the release of bitfit-export that wrote the bundle, or export it again",
        )


def _check_path(path: str) -> None:
    """Refuse a path that could leave the bundle, on POSIX or on Windows."""
    check_text(path, "a file's path")
    if any(mark in path for mark in "\\:*") or any(part in ("", ".", "..") for part in path.split("/")):
        raise BundleError(f"the manifest names the file {quoted(path)}, expected a path inside the bundle")


def _check_static_shape(shape: tuple[int, ...], layout_kind: str) -> None:
    if len(shape) != 2:
        raise BundleError(f"static_shape is {quoted(list(shape))}, expected a batch and a sequence")
    for name, value in zip(("batch", "sequence"), shape, strict=True):
        check_range(value, 1, _INT32_MAX, f"static_shape: the {name}")
    if layout_kind == "table":
        raise BundleError("the layout table has a static_shape, expected the layout packed or named")
