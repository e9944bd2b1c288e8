"""The files of a bundle are those that its manifest names, and what is checked is what is used."""

from __future__ import annotations

import os
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import pytest

from bitfit_export.bundle import check_files, read_files, read_manifest, row_file, write_manifest
from bitfit_export.errors import BundleError
from tests.bundle.test_manifest import FILES, MANIFEST, MODEL, ROW

NAMES = [*FILES, "tasks/sst2.bias"]


@pytest.fixture
def bundle(tmp_path: Path) -> Path:
    for name, data in {**FILES, row_file("sst2"): ROW}.items():
        (tmp_path / name).parent.mkdir(exist_ok=True)
        (tmp_path / name).write_bytes(data)
    write_manifest(tmp_path, MANIFEST)
    return tmp_path


@pytest.mark.parametrize("hash_files", [False, True])
class TestBothWays:
    def test_a_complete_bundle(self, bundle: Path, hash_files: bool) -> None:
        files = check_files(bundle, read_manifest(bundle), hash_files=hash_files)
        assert (files.programs, files.tokenizer) == ({"infer": MODEL}, b"{}")
        assert set(files.stamps) == {"model.onnx.data", "more/empty.txt"}
        files.refuse_changed()

    @pytest.mark.parametrize("name", NAMES)
    @pytest.mark.parametrize(
        "damage",
        [Path.unlink, lambda path: (path.unlink(), path.mkdir()), lambda path: (path.unlink(), os.mkfifo(path))],
        ids=["gone", "folder", "FIFO"],
    )
    def test_no_file(self, bundle: Path, name: str, hash_files: bool, damage: Callable[[Path], object]) -> None:
        damage(bundle / name)
        with pytest.raises(BundleError, match=f"{name} cannot be read"):
            check_files(bundle, MANIFEST, hash_files=hash_files)

    @pytest.mark.parametrize("name", FILES)
    @pytest.mark.parametrize("change", [lambda data: data[:-1], lambda data: data + b"\0"], ids=["shorter", "longer"])
    def test_sizes(self, bundle: Path, name: str, hash_files: bool, change: Callable[[bytes], bytes]) -> None:
        data = change(FILES[name])
        if len(data) == len(FILES[name]):
            pytest.skip("there is nothing to cut off")
        (bundle / name).write_bytes(data)
        with pytest.raises(BundleError, match=f"{len(data)} bytes, expected {len(FILES[name])}"):
            check_files(bundle, MANIFEST, hash_files=hash_files)

    @pytest.mark.parametrize("name", ["model.onnx", "model.onnx.data", "tokenizer.json"])
    def test_another_file_of_the_same_size(self, bundle: Path, name: str, hash_files: bool) -> None:
        (bundle / name).write_bytes(b"A" + FILES[name][1:])
        with pytest.raises(BundleError, match=rf"{name} has CRC-32C [0-9a-f]{{8}}, expected [0-9a-f]{{8}}"):
            check_files(bundle, MANIFEST, hash_files=hash_files)


class TestForged:
    """A file that was made to have the same CRC: four bytes at its end are enough."""

    @pytest.mark.parametrize("name", ["model.onnx.data", "tokenizer.json"])
    def test_hashes_are_compared_when_asked_for(self, bundle: Path, name: str) -> None:
        found = replace(MANIFEST.files[name], sha256="ab" * 32)
        manifest = replace(MANIFEST, files=MANIFEST.files | {name: found})
        check_files(bundle, manifest, hash_files=False)
        with pytest.raises(BundleError, match=f"{name} has sha256"):
            check_files(bundle, manifest, hash_files=True)

    def test_rows_too(self, bundle: Path) -> None:
        (bundle / row_file("sst2")).write_bytes(b"another row")
        check_files(bundle, MANIFEST, hash_files=False)  # read_recorded_row compares those that are loaded
        with pytest.raises(BundleError, match=r"tasks/sst2\.bias has sha256"):
            check_files(bundle, MANIFEST, hash_files=True)


class TestWithoutTheOthers:
    """`read_files` leaves the bytes of weights to `check_others`, beside which an engine may open them."""

    def test_damaged_weights_are_found_later(self, bundle: Path) -> None:
        (bundle / "model.onnx.data").write_bytes(b"WEIGHTS")
        files = read_files(bundle, MANIFEST, hash_files=False)
        with pytest.raises(BundleError, match=r"model\.onnx\.data has CRC-32C"):
            files.check_others()

    def test_weights_of_another_size_are_found_at_once(self, bundle: Path) -> None:
        (bundle / "model.onnx.data").write_bytes(b"weight")
        with pytest.raises(BundleError, match=r"model\.onnx\.data has 6 bytes, expected 7"):
            read_files(bundle, MANIFEST, hash_files=False)

    def test_weights_that_were_replaced_before_their_check_are_refused(self, bundle: Path) -> None:
        """An engine may have opened the others, which nobody has checked."""
        path = bundle / "model.onnx.data"
        path.rename(f"{path}.old")
        path.write_bytes(b"WEIGHTS")
        files = read_files(bundle, MANIFEST, hash_files=False)
        path.unlink()
        path.write_bytes(b"weights")
        with pytest.raises(BundleError, match=r"model\.onnx\.data changed while the bundle was opened"):
            files.check_others()


class TestChangedMeanwhile:
    @pytest.mark.parametrize(
        "change",
        [
            lambda path: path.write_bytes(b"WEIGHTS"),
            lambda path: (path.rename(f"{path}.old"), path.write_bytes(b"weights")),
            lambda path: (path.write_bytes(b"WEIGHTS"), path.write_bytes(b"weights")),
            lambda path: (path.rename(f"{path}.old"), path.with_name(f"{path.name}.old").rename(path)),
            Path.unlink,
        ],
        ids=["rewritten", "replaced", "rewritten twice", "away and back", "removed"],
    )
    def test_weights(self, bundle: Path, change: Callable[[Path], object]) -> None:
        files = check_files(bundle, MANIFEST, hash_files=False)
        change(bundle / "model.onnx.data")
        with pytest.raises(
            BundleError, match=r"model\.onnx\.data (changed while the bundle was opened|cannot be read)"
        ):
            files.refuse_changed()

    def test_model_and_tokenizer_are_what_was_read(self, bundle: Path) -> None:
        files = check_files(bundle, MANIFEST, hash_files=False)
        for name in ("model.onnx", "tokenizer.json"):
            (bundle / name).write_bytes(b"another")
        files.refuse_changed()
        assert (files.programs, files.tokenizer) == ({"infer": MODEL}, b"{}")
