"""The files of a bundle: layout, row and manifest. It needs numpy and google-crc32c, and runs no model."""

from bitfit_export.bundle.file_checks import CheckedFiles, check_files, read_files, read_recorded_row, record_file
from bitfit_export.bundle.interface import INFER, MODEL_FILE, TOKENIZER_FILE, Port
from bitfit_export.bundle.layout import LABELS, BiasEntry, HeadEntry, Layout
from bitfit_export.bundle.manifest import BUNDLE, MANIFEST_FILE, Manifest, read_manifest, write_manifest
from bitfit_export.bundle.programs import ProgramRecord
from bitfit_export.bundle.records import BaseRecord, FileRecord, TaskRecord, row_file
from bitfit_export.bundle.row import PROBLEM_CODES, TASK_NAME, BiasRow, decode_row, encode_row, read_row, write_row

__all__ = [
    "BUNDLE",
    "INFER",
    "LABELS",
    "MANIFEST_FILE",
    "MODEL_FILE",
    "PROBLEM_CODES",
    "TASK_NAME",
    "TOKENIZER_FILE",
    "BaseRecord",
    "BiasEntry",
    "BiasRow",
    "CheckedFiles",
    "FileRecord",
    "HeadEntry",
    "Layout",
    "Manifest",
    "Port",
    "ProgramRecord",
    "TaskRecord",
    "check_files",
    "decode_row",
    "encode_row",
    "read_files",
    "read_manifest",
    "read_recorded_row",
    "read_row",
    "record_file",
    "row_file",
    "write_manifest",
    "write_row",
]
