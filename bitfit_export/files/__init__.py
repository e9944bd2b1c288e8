"""Writing files and folders so that nobody ever meets half of one, and nothing is replaced that is not an output."""

from bitfit_export.files.locks import locked
from bitfit_export.files.outputs import OutputKind, refuse_existing, refuse_overlap
from bitfit_export.files.writing import (
    canonical_json,
    check_output,
    new_folder,
    scratch_folder,
    sha256_of_file,
    write_bytes,
)

__all__ = [
    "OutputKind",
    "canonical_json",
    "check_output",
    "locked",
    "new_folder",
    "refuse_existing",
    "refuse_overlap",
    "scratch_folder",
    "sha256_of_file",
    "write_bytes",
]
