"""The files of a bundle, compared with its manifest.

What is checked is what is used: model and tokenizer are read once, and their bytes handed on. The files of weights are
the exception: ONNX Runtime maps them by their names, for they may be larger than memory. Their identities are taken
first; their bytes may be compared while an engine opens them, and `CheckedFiles.refuse_changed` then says whether these
are still the same files.
"""

from __future__ import annotations

import hashlib
import os
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

from bitfit_export.bundle.external_data import external_locations
from bitfit_export.bundle.interface import TOKENIZER_FILE
from bitfit_export.bundle.limits import MAX_MODEL_SIZE, MAX_TOKENIZER_SIZE
from bitfit_export.bundle.manifest import Manifest
from bitfit_export.bundle.records import FileRecord, TaskRecord
from bitfit_export.bundle.regular_files import (
    COPY_AGAIN,
    OPEN_AGAIN,
    CheckBytes,
    Checksums,
    Stamp,
    checksum_file,
    read_file,
    stamp_file,
)
from bitfit_export.bundle.row import BiasRow, decode_file, read_row_file
from bitfit_export.errors import BundleError, quoted

__all__ = ["CheckedFiles", "check_files", "read_files", "read_recorded_row", "record_file"]


@dataclass(frozen=True)
class CheckedFiles:
    """The files of a bundle that its manifest names, compared with it.

    Attributes:
        folder: the bundle's.
        programs: the bytes of each program, by its purpose.
        tokenizer: the bytes of `tokenizer.json`; none where the model reads no text.
        others: the records of all other files, by their paths in the bundle.
        stamps: the others' identities before any byte of them was read.
        hash_files: whether SHA-256 is compared as well.
    """

    folder: Path
    programs: Mapping[str, bytes]
    tokenizer: bytes
    others: Mapping[str, FileRecord]
    stamps: Mapping[str, Stamp]
    hash_files: bool

    def check_others(self) -> None:
        """Compare the bytes of the other files with the manifest. An engine may open them meanwhile.

        Raises:
            BundleError: one cannot be read, differs from the manifest, or is not the file that it was.
        """
        for name, record in self.others.items():
            path = self.folder / name
            try:
                found, stamp = checksum_file(path, size=record.size, sha256=self.hash_files)
            except OSError as error:
                raise _unreadable(path, error) from error
            _compare(path, found, record)
            if stamp != self.stamps[name]:
                raise BundleError(f"{path} changed while the bundle was opened", hint=OPEN_AGAIN)

    def refuse_changed(self) -> None:
        """Refuse other files that are no longer those of `stamps`.

        Raises:
            BundleError: one was written to, replaced or removed.
        """
        for name, stamp in self.stamps.items():
            path = self.folder / name
            try:
                found = Stamp.of(os.stat(path))
            except OSError as error:
                raise _unreadable(path, error) from error
            if found != stamp:
                raise BundleError(f"{path} changed while the bundle was opened", hint=OPEN_AGAIN)


def check_files(folder: Path, manifest: Manifest, *, hash_files: bool) -> CheckedFiles:
    """Compare the bundle's files with the manifest: sizes and CRC-32C. Files that it does not name are no fault.

    Args:
        hash_files: compare SHA-256 of every file too, rows among them, which finds forged ones. Without it a row is
            only looked for: it holds its own checksums, and `read_recorded_row` compares its SHA-256 as well.

    Raises:
        BundleError: a file that is missing, is not a regular file, or differs from the manifest; a model whose weights
            lie in a file that the manifest does not name.
    """
    files = read_files(folder, manifest, hash_files=hash_files)
    files.check_others()
    return files


def read_files(folder: Path, manifest: Manifest, *, hash_files: bool) -> CheckedFiles:
    """As `check_files`, but for `CheckedFiles.check_others`: of the other files only the sizes have been compared.

    Raises:
        BundleError: as `check_files`.
    """
    contents, others, stamps = {}, {}, {}
    limits = {program.file: MAX_MODEL_SIZE for program in manifest.programs.values()}
    limits |= {TOKENIZER_FILE: MAX_TOKENIZER_SIZE} if manifest.reads_text else {}
    for name, record in manifest.files.items():
        path = folder / name
        try:
            if name in limits:
                contents[name] = read_file(path, limit=limits[name], size=record.size)
                _compare(path, Checksums.of(contents[name], sha256=hash_files), record)
            else:
                others[name], stamps[name] = record, stamp_file(path, size=record.size)
        except OSError as error:
            raise _unreadable(path, error) from error
    programs = {purpose: contents[program.file] for purpose, program in manifest.programs.items()}
    for purpose, program in manifest.programs.items():
        _check_locations(folder / program.file, programs[purpose], manifest)
    for task in manifest.tasks.values():
        _check_row_file(folder / task.file, task.sha256 if hash_files else None)
    return CheckedFiles(folder, programs, contents.get(TOKENIZER_FILE, b""), others, stamps, hash_files)


def read_recorded_row(
    folder: Path, manifest: Manifest, task: TaskRecord, *, check: CheckBytes | None = None
) -> BiasRow:
    """Returns a row of the bundle, which must be the one that the manifest records.

    Args:
        check: as `read_row`.

    Raises:
        BundleError: it is another one; RowError, if it is damaged or was made for another model.
    """
    path = folder / task.file
    data = read_row_file(path, check=check)
    row = decode_file(data, path, layout=manifest.layout)
    found = (row.task, row.problem_type, row.labels, row.task_version)
    expected = (task.name, task.problem_type, task.label_count, task.task_version)
    if found != expected:
        raise BundleError(f"{path} is the row {_show(*found)}, expected {_show(*expected)}", hint=COPY_AGAIN)
    _check_row_digest(path, data, task.sha256)
    return row


def record_file(path: Path) -> FileRecord:
    """Returns the manifest's record of a file that was written.

    Raises:
        OSError: the file cannot be read.
    """
    found, _ = checksum_file(path, size=path.stat().st_size, sha256=True)
    assert found.sha256 is not None
    return FileRecord(found.sha256, found.size, found.crc32c)


def _compare(path: Path, found: Checksums, record: FileRecord) -> None:
    if found.size != record.size:
        raise BundleError(f"{path} has {found.size} bytes, expected {record.size}", hint=COPY_AGAIN)
    if found.crc32c != record.crc32c:
        raise BundleError(f"{path} has CRC-32C {found.crc32c:08x}, expected {record.crc32c:08x}", hint=COPY_AGAIN)
    if found.sha256 is not None and found.sha256 != record.sha256:
        raise BundleError(f"{path} has sha256 {found.sha256}, expected {record.sha256}", hint=COPY_AGAIN)


def _check_locations(path: Path, model: bytes, manifest: Manifest) -> None:
    """Weights in a file that the manifest does not name would be read without any check."""
    try:
        locations = external_locations(model)
    except ValueError as error:
        raise BundleError(f"the model {path} cannot be loaded: {error}", hint=COPY_AGAIN) from error
    unnamed = locations - manifest.files.keys()
    if unnamed:
        raise BundleError(
            f"the model {path} has weights in {quoted(min(unnamed))}, which the manifest does not name", hint=COPY_AGAIN
        )


def _check_row_file(path: Path, sha256: str | None) -> None:
    if sha256 is not None:
        _check_row_digest(path, read_row_file(path), sha256)
    elif not path.is_file():
        raise BundleError(f"the row {path} cannot be read: it is not a regular file", hint=COPY_AGAIN)


def _check_row_digest(path: Path, data: bytes, expected: str) -> None:
    digest = hashlib.sha256(data).hexdigest()
    if digest != expected:
        raise BundleError(
            f"{path} has sha256 {digest[:12]}, expected {expected[:12]}",
            hint=f"{COPY_AGAIN}; a row that replaces it is loaded with load_task",
        )


def _show(name: str, problem_type: str, labels: int, version: int) -> str:
    return f"{name} ({problem_type}, {labels} labels, version {version})"


def _unreadable(path: Path, error: OSError) -> BundleError:
    return BundleError(f"{path} cannot be read: {error.strerror or error}", hint=COPY_AGAIN)
