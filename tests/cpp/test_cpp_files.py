"""Files from outside: what `docs/files.md` refuses, the C++ runtime refuses, and it reads no more than it must."""

from __future__ import annotations

import contextlib
import hashlib
import itertools
import json
import os
import re
import shutil
import socket
import subprocess
import threading
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import onnx
import pytest

from tests.cpp.conftest import Driver, GetBundle, change_manifest, file_record, run


class TestKindsOfFiles:
    """No file is waited for, and only regular ones are read."""

    @pytest.mark.parametrize("kind", ["fifo", "folder", "device", "socket", "link to nothing"])
    @pytest.mark.parametrize(
        "name", ["manifest.json", "model.onnx", "model.onnx.data", "tokenizer.json", "tasks/score.bias"]
    )
    def test_other_files_of_a_bundle(
        self, bundle_copy: Path, open_bundle: Callable[..., dict[str, Any]], kind: str, name: str
    ) -> None:
        path = bundle_copy / name
        path.unlink()
        with made(kind, path):
            status = open_bundle()
        assert status["code"] == "bundle_error"
        assert status["message"].startswith(f"{path} cannot be read: ")

    @pytest.mark.parametrize("kind", ["fifo", "folder", "device"])
    def test_other_rows(self, programs: Path, get_bundle: GetBundle, tmp_path: Path, kind: str) -> None:
        driver = Driver(programs / "tests" / "session_test", get_bundle("table"))
        with made(kind, tmp_path / "row"):
            refused = driver("load", path=str(tmp_path / "row"))
        driver.close()
        assert refused["message"] == f"{tmp_path / 'row'} cannot be read: it is not a regular file"


@contextlib.contextmanager
def made(kind: str, path: Path) -> Iterator[None]:
    """A file of that kind at `path`."""
    with socket.socket(socket.AF_UNIX) as server:
        if kind == "fifo":
            os.mkfifo(path)
        elif kind == "folder":
            path.mkdir()
        elif kind == "device":
            path.symlink_to("/dev/zero")
        elif kind == "socket":
            folder = os.open(path.parent, os.O_RDONLY)  # the path itself may be too long for a socket
            server.bind(f"/proc/self/fd/{folder}/{path.name}")
            os.close(folder)
        else:
            path.symlink_to("nothing")
        yield


class TestChecks:
    """Of the files that the manifest names."""

    def test_crc32c(self, ask: Callable[..., list[Any]]) -> None:
        """With the processor's instruction and without."""
        assert ask("crc")[0]["wrong"] == 0

    def test_sha256(self, programs: Path) -> None:
        """With the processor's instructions and without, at sizes around those of blocks and their padding."""
        lines = ["x" * size for size in (0, 1, 3, 55, 56, 63, 64, 65, 119, 120, 127, 128, 1000, 100_000)]
        lines.append("0123456789abcdefghijklmnopqrstuvwxyz" * 99)
        done = run([programs / "tests" / "files_test", "sha"], input="".join(f"{line}\n" for line in lines))
        for line, found in zip(lines, done.stdout.splitlines(), strict=True):
            assert set(json.loads(found)) == {hashlib.sha256(line.encode()).hexdigest()}

    @pytest.mark.parametrize("name", ["model.onnx", "model.onnx.data", "tokenizer.json"])
    def test_another_file_of_the_same_size(
        self, bundle_copy: Path, open_bundle: Callable[..., dict[str, Any]], name: str
    ) -> None:
        assert open_bundle()["code"] == "ok"
        data = bytearray((bundle_copy / name).read_bytes())
        data[len(data) // 2] ^= 1
        (bundle_copy / name).write_bytes(data)
        status = open_bundle()
        assert status["code"] == "bundle_error"
        assert re.match(rf"{re.escape(str(bundle_copy / name))} has crc32c \d+, expected \d+$", status["message"])

    @pytest.mark.parametrize("name", ["model.onnx.data", "tokenizer.json"])
    def test_a_forgery_is_found_on_request(
        self, bundle_copy: Path, open_bundle: Callable[..., dict[str, Any]], programs: Path, name: str
    ) -> None:
        """Its CRC-32C is the one in the manifest; its SHA-256 is not."""
        data = (bundle_copy / name).read_bytes()
        (bundle_copy / name).write_bytes(data[:-1] + (b"\n}" if name == "tokenizer.json" else bytes([data[-1] ^ 1])))
        record = {key: value for key, value in file_record(bundle_copy / name).items() if key != "sha256"}
        change_manifest(bundle_copy, lambda manifest: manifest["files"][name].update(record))
        assert open_bundle()["code"] == "ok"
        status = open_bundle("check_hashes")
        assert status["code"] == "bundle_error"
        assert f"{bundle_copy / name} has sha256 " in status["message"]
        for program in ("bitfit_run", "bitfit_bench"):
            arguments = ["--task", "score", "--text", "x"] if program == "bitfit_run" else ["--shape", "1x4"]
            command = [programs / program, bundle_copy, *arguments, "--check-hashes"]
            done = subprocess.run(command, capture_output=True, text=True, check=False)
            assert (done.returncode, done.stdout) == (2, "")
            assert f"{bundle_copy / name} has sha256 " in done.stderr

    def test_hashes_of_a_genuine_bundle(self, open_bundle: Callable[..., dict[str, Any]]) -> None:
        assert open_bundle("check_hashes")["code"] == "ok"

    @pytest.mark.parametrize("name", ["model.onnx", "tokenizer.json", "model.onnx.data"])
    def test_a_file_that_the_manifest_does_not_name(
        self, bundle_copy: Path, open_bundle: Callable[..., dict[str, Any]], name: str
    ) -> None:
        change_manifest(bundle_copy, lambda manifest: manifest["files"].pop(name))
        status = open_bundle()
        assert status["code"] == "bundle_error"
        assert name in status["message"]

    def test_weights_in_another_file(self, bundle_copy: Path, open_bundle: Callable[..., dict[str, Any]]) -> None:
        """The model is genuine by its record, and its weights lie elsewhere."""
        model = onnx.load(bundle_copy / "model.onnx", load_external_data=False)
        for tensor in model.graph.initializer:
            for entry in tensor.external_data:
                if entry.key == "location":
                    entry.value = "other\x1b[2J.data"
        shutil.copy(bundle_copy / "model.onnx.data", bundle_copy / "other\x1b[2J.data")
        (bundle_copy / "model.onnx").write_bytes(model.SerializeToString())
        record = file_record(bundle_copy / "model.onnx")
        change_manifest(bundle_copy, lambda manifest: manifest["files"]["model.onnx"].update(record))
        status = open_bundle()
        assert status["code"] == "bundle_error"
        assert 'has weights in the file "other\\x1b[2J.data", which the manifest does not name' in status["message"]

    def test_files_of_weights_are_found_wherever_they_are_named(
        self, ask: Callable[..., list[Any]], tmp_path: Path
    ) -> None:
        """In initializers, sparse ones, attributes, subgraphs of subgraphs, and functions; and binaries in any node."""
        names = (f"{number}.data" for number in itertools.count())

        def tensor() -> onnx.TensorProto:
            found = onnx.TensorProto(data_location=onnx.TensorProto.EXTERNAL)
            for key, value in (("offset", "0"), ("location", next(names))):
                found.external_data.add(key=key, value=value)
            return found

        def graph(*nodes: onnx.NodeProto) -> onnx.GraphProto:
            return onnx.GraphProto(initializer=[tensor()], node=nodes)

        sparse = onnx.SparseTensorProto(values=tensor(), indices=tensor())
        binary = onnx.helper.make_attribute("ep_cache_context", "chip.bin")
        other = onnx.helper.make_attribute("source", "other.bin")
        inner = onnx.NodeProto(attribute=[onnx.AttributeProto(g=graph(), tensors=[tensor()]), binary, other])
        outer = onnx.NodeProto(attribute=[onnx.AttributeProto(t=tensor(), graphs=[graph(inner)], sparse_tensor=sparse)])
        model = onnx.ModelProto(graph=graph(outer), functions=[onnx.FunctionProto(node=[outer])])
        model.graph.sparse_initializer.append(onnx.SparseTensorProto(values=tensor(), indices=tensor()))
        model.training_info.add(initialization=graph(), algorithm=graph())
        (tmp_path / "model").write_bytes(model.SerializeToString())
        (found,) = ask("external", tmp_path / "model")
        count = int(next(names).split(".")[0])
        assert sorted(found["weights"]) == sorted(f"{number}.data" for number in range(count))
        assert found["binaries"] == ["chip.bin"] * 2

    @pytest.mark.parametrize("data", [b"\x3a\xff\xff\xff\xff\x7f", b"\x3a\x05\x01", b"\x3b", b"\xff" * 11])
    def test_a_model_that_is_none(self, ask: Callable[..., list[Any]], tmp_path: Path, data: bytes) -> None:
        (tmp_path / "model").write_bytes(data)
        (found,) = ask("external", tmp_path / "model")
        assert found["message"] == "the model is not an ONNX file (truncated or malformed)"


class TestRowsThatAreNotLoaded:
    """They belong to the bundle, too."""

    @pytest.mark.parametrize("how", ["missing", "forged"])
    def test_it(self, bundle_copy: Path, open_bundle: Callable[..., dict[str, Any]], how: str) -> None:
        path = bundle_copy / "tasks" / "score.bias"
        assert open_bundle("task=two_way")["code"] == "ok"
        if how == "missing":
            path.unlink()
            assert open_bundle("task=two_way")["message"].startswith(f"{path} cannot be read: ")
        else:
            shutil.copy(bundle_copy / "tasks" / "two_way.bias", path)
            assert open_bundle("task=two_way")["code"] == "ok"
            assert open_bundle("task=two_way", "check_hashes")["message"].startswith(f"{path} has sha256 ")


class TestFilesThatChange:
    """While a bundle is opened."""

    @pytest.mark.parametrize("how", ["replaced", "rewritten", "as it was"])
    def test_weights(self, programs: Path, bundle_copy: Path, how: str) -> None:
        """They are read by ONNX Runtime after they were checked."""
        path = bundle_copy / "model.onnx.data"
        command = [programs / "tests" / "files_test", "unchanged", bundle_copy]
        with subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True) as process:
            assert process.stdout is not None
            assert process.stdout.readline() == "checked\n"
            if how == "replaced":
                shutil.copy(path, bundle_copy / "new")
                os.replace(bundle_copy / "new", path)
            elif how == "rewritten":
                path.write_bytes(path.read_bytes())
            status = json.loads(process.communicate("\n")[0])
        assert status["code"] == (0 if how == "as it was" else 1)
        if how != "as it was":
            assert status["message"] == f"{path} was changed while the bundle was opened"

    @pytest.mark.parametrize("name", ["manifest.json", "tokenizer.json", "model.onnx.data", "tasks/score.bias"])
    def test_a_file_that_is_rewritten_in_place(
        self, bundle_copy: Path, open_bundle: Callable[..., dict[str, Any]], name: str
    ) -> None:
        """Each time it is refused or taken; no signal ends the process."""
        data = (bundle_copy / name).read_bytes()
        over = threading.Event()

        def rewrite() -> None:
            while not over.is_set():
                with (bundle_copy / name).open("r+b") as stream:
                    stream.truncate(0)
                    stream.write(data)

        writer = threading.Thread(target=rewrite)
        writer.start()
        try:
            codes = {open_bundle()["code"] for _ in range(25)}
        finally:
            over.set()
            writer.join()
        assert codes <= {"ok", "bundle_error", "row_error"}
