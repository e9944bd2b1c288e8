"""The files of a bundle: layout, row and manifest. It needs numpy and google-crc32c, and runs no model."""

from bitfit_export.bundle.layout import LABELS, BiasEntry, HeadEntry, Layout
from bitfit_export.bundle.manifest import (
    BUNDLE,
    MANIFEST_FILE,
    BaseRecord,
    FileRecord,
    Manifest,
    TaskRecord,
    check_files,
    read_manifest,
    row_file,
    write_manifest,
)
from bitfit_export.bundle.row import PROBLEM_CODES, TASK_NAME, BiasRow, decode_row, encode_row, read_row, write_row

__all__ = [
    "BUNDLE",
    "LABELS",
    "MANIFEST_FILE",
    "PROBLEM_CODES",
    "TASK_NAME",
    "BaseRecord",
    "BiasEntry",
    "BiasRow",
    "FileRecord",
    "HeadEntry",
    "Layout",
    "Manifest",
    "TaskRecord",
    "check_files",
    "decode_row",
    "encode_row",
    "read_manifest",
    "read_row",
    "row_file",
    "write_manifest",
    "write_row",
]
