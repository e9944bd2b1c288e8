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
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import pytest

from bitfit_export.bundle import decode_row
from tests.cpp.conftest import ROOT, Driver, GetBundle, changed_row, file_record, run

CONFORMANCE = ROOT / "conformance"
MANIFESTS = json.loads((CONFORMANCE / "manifests" / "index.json").read_text(encoding="utf-8"))["files"]
JSONL = json.loads((CONFORMANCE / "jsonl" / "index.json").read_text(encoding="utf-8"))
HEADS = json.loads((CONFORMANCE / "heads" / "index.json").read_text(encoding="utf-8"))
#: How the C++ runtime says each kind of fault.
FAULTS = {
    "json": "is not valid JSON|starts with a byte order mark|twice|64 bits|no double|deeper than 64 levels",
    "missing": "lacks|has no ",
    "type": r" is (a|an|the|null|true|false|\d|\"|-)",
    "range": "expected|out of range|has more than|labels$",
    "value": "expected",
    "name": "has the name|expected a path inside|is malformed",
    "twice": "is there twice",
    "disagreement": "expected|the layout gives",
}
MIB = 2**20


@pytest.fixture(scope="session")
def ask(programs: Path) -> Callable[..., list[Any]]:
    """Run `files_test`. Returns a JSON value per line."""

    def ask(*arguments: str | Path, **options: Any) -> list[Any]:
        done = run([programs / "tests" / "files_test", *arguments], timeout=60, **options)
        return [json.loads(line) for line in done.stdout.split("\n")[:-1]]

    return ask


@pytest.fixture
def copy(get_bundle: GetBundle, tmp_path: Path) -> Path:
    return Path(shutil.copytree(get_bundle("table"), tmp_path / "bundle"))


@pytest.fixture
def open_bundle(programs: Path, copy: Path) -> Callable[..., dict[str, Any]]:
    """Open the copy. Returns the status."""

    def open_bundle(*options: str) -> dict[str, Any]:
        done = subprocess.run(
            [programs / "tests" / "session_test", "drive", copy, *options],
            input="",
            capture_output=True,
            text=True,
            check=False,
            timeout=60,
        )
        assert done.returncode in (0, 1), done
        status: dict[str, Any] = json.loads(done.stdout)
        return status

    return open_bundle


def change_manifest(bundle: Path, change: Callable[[dict[str, Any]], object]) -> None:
    path = bundle / "manifest.json"
    manifest = json.loads(path.read_text(encoding="utf-8"))
    change(manifest)
    path.write_text(json.dumps(manifest), encoding="utf-8")


class TestConformance:
    """The files that the Python package's tests read too."""

    def test_manifests(self, ask: Callable[..., list[Any]]) -> None:
        found = ask("manifests", *(CONFORMANCE / "manifests" / name for name in MANIFESTS))
        assert len(found) == len(MANIFESTS) > 300
        for (name, expected), answer in zip(MANIFESTS.items(), found, strict=True):
            if expected["fault"] is None:
                assert answer == {"code": 0, "message": "", "hint": ""}, name
                continue
            assert answer["code"] == 1, name
            message = answer["message"].replace(str(CONFORMANCE), "")
            assert re.search(FAULTS[expected["fault"]], message), (name, expected, message)

    def test_json_lines(self, ask: Callable[..., list[Any]]) -> None:
        files = JSONL["files"]
        found = ask("questions", JSONL["task"], *(CONFORMANCE / "jsonl" / name for name in files))
        assert len(found) == len(files) > 60
        for (name, expected), answer in zip(files.items(), found, strict=True):
            if expected["fault"] is None:
                assert answer == {"questions": expected["questions"]}, name
                continue
            line = "" if expected["line"] is None else f"line {expected['line']} of "
            assert answer["error"].startswith(f"{line}{CONFORMANCE / 'jsonl' / name} "), name

    def test_json_of_lines_is_refused_as_such(self, ask: Callable[..., list[Any]]) -> None:
        names = [name for name, expected in JSONL["files"].items() if expected["fault"] == "json"]
        for answer in ask("questions", JSONL["task"], *(CONFORMANCE / "jsonl" / name for name in names)):
            assert re.search(FAULTS["json"], answer["error"])

    def test_heads(self, ask: Callable[..., list[Any]], tmp_path: Path) -> None:
        layout = {key: HEADS[key] for key in ("layout", "layout_digest")}
        (tmp_path / "layout").write_text(json.dumps(layout | {"base": {"digest": HEADS["layout"]["base_digest"]}}))
        rows = CONFORMANCE / "heads"
        found = ask("rows", tmp_path / "layout", *(rows / name for name in HEADS["rows"]))
        numbers = {None: 0, "BAD_HEAD": 10, "BAD_LABEL_COUNT": 11}
        assert dict(zip(HEADS["rows"], found, strict=True)) == {
            name: numbers[fault] for name, fault in HEADS["rows"].items()
        }


class TestLimits:
    """Both sides of each bound."""

    def test_a_manifest(self, copy: Path, open_bundle: Callable[..., dict[str, Any]]) -> None:
        path = copy / "manifest.json"
        data = path.read_bytes()
        path.write_bytes(data + b" " * (16 * MIB - len(data)))
        assert open_bundle()["code"] == "ok"
        path.write_bytes(data + b" " * (16 * MIB - len(data) + 1))
        assert open_bundle()["message"] == f"{path} has 16777217 bytes, expected at most 16777216"

    def test_labels_of_a_manifest(self, ask: Callable[..., list[Any]], tmp_path: Path) -> None:
        manifest = json.loads((CONFORMANCE / "manifests" / "good_plain.json").read_text(encoding="utf-8"))
        paths = []
        for count in (65_536, 65_537):
            manifest["tasks"]["sst-2"]["labels"] = [f"L{number}" for number in range(count)]
            paths.append(tmp_path / str(count))
            paths[-1].write_text(json.dumps(manifest), encoding="utf-8")
        good, bad = ask("manifests", *paths)
        assert good["code"] == 0
        assert 'tasks["sst-2"] has 65537 labels, expected at most 65536' in bad["message"]

    def test_labels_make_no_room_before_a_row_has_them(
        self, copy: Path, open_bundle: Callable[..., dict[str, Any]], programs: Path
    ) -> None:
        """A table for them would take more than the limit of memory."""
        labels = [f"L{number}" for number in range(65_536)]
        for name in ("two_way", "three_way", "tags"):
            change_manifest(copy, lambda manifest, name=name: manifest["tasks"][name].update(labels=labels))
        command = f'ulimit -v 1500000; exec "{programs}/tests/session_test" drive "{copy}"'
        done = subprocess.run(["sh", "-c", command], input="", capture_output=True, text=True, check=False, timeout=60)
        assert "65536 labels, version 1)" in json.loads(done.stdout)["message"]

    @pytest.mark.parametrize(
        ("name", "size", "message"),
        [
            ("tokenizer.json", 128 * MIB + 1, "has 134217729 bytes, expected at most 134217728"),
            ("model.onnx", 2**31, "has 2147483648 bytes, expected at most 2147483647"),
            ("manifest.json", 2**40, "has 1099511627776 bytes, expected at most 16777216"),
            ("tasks/tags.bias", 2**30 + 1, "bytes in the file, at most: found 1073741825, expected 1073741824"),
        ],
    )
    def test_a_sparse_file_is_not_read(
        self, copy: Path, open_bundle: Callable[..., dict[str, Any]], name: str, size: int, message: str
    ) -> None:
        os.truncate(copy / name, size)
        if name != "manifest.json":
            change_manifest(copy, lambda manifest: manifest["files"].get(name, {}).update(size=size))
        started = time.monotonic()
        status = open_bundle()
        assert message in status["message"]
        assert time.monotonic() - started < 5

    def test_a_line(self, ask: Callable[..., list[Any]], tmp_path: Path) -> None:
        head, tail = b'{"text": "', b'"}'
        line = head + b"x" * (16 * MIB - len(head) - len(tail)) + tail
        (tmp_path / "good").write_bytes(b"\xef\xbb\xbf" + line + b"\n" + line)
        (tmp_path / "bad").write_bytes(line + b" ")
        good, bad = ask("questions", "score", tmp_path / "good", tmp_path / "bad")
        assert [len(each["text"]) for each in good["questions"]] == [16 * MIB - len(head) - len(tail)] * 2
        assert bad["error"] == f"line 1 of {tmp_path / 'bad'} is too long, expected at most 16777216 bytes"

    def test_a_line_without_end(self, programs: Path, get_bundle: GetBundle) -> None:
        with Path("/dev/zero").open("rb") as zeros:
            done = subprocess.run(
                [programs / "bitfit_run", get_bundle("table"), "--task", "score", "--input", "-"],
                stdin=zeros,
                capture_output=True,
                text=True,
                check=False,
                timeout=60,
            )
        assert (done.returncode, done.stdout) == (2, "")
        assert "line 1 of - is too long, expected at most 16777216 bytes" in done.stderr

    @pytest.mark.parametrize(
        "text",
        [
            "{" + ",".join(f'"key {number}": {{}}' for number in range(60_000)) + "}",
            "{" + ",".join(f'"key {number}": 1' for number in range(60_000)) + ', "key 0": 1}',
            '{"a": [' + "{}," * 300_000 + "{}]}",
            '{"layout": {"biases": [{"name": "b", "offset": 0, "shape": [' + "1," * 100_000 + "1]}]}}",
            "[" * 500_000,
        ],
        ids=["objects", "a key twice", "a list", "dimensions", "nesting"],
    )
    def test_the_time_is_linear(self, ask: Callable[..., list[Any]], tmp_path: Path, text: str) -> None:
        (tmp_path / "manifest").write_text(text, encoding="utf-8")
        started = time.monotonic()
        (answer,) = ask("manifests", tmp_path / "manifest")
        assert answer["code"] == 1
        assert time.monotonic() - started < 5


class TestKindsOfFiles:
    """No file is waited for, and only regular ones are read."""

    @pytest.mark.parametrize("kind", ["fifo", "folder", "device", "socket", "link to nothing"])
    @pytest.mark.parametrize(
        "name", ["manifest.json", "model.onnx", "model.onnx.data", "tokenizer.json", "tasks/score.bias"]
    )
    def test_other_files_of_a_bundle(
        self, copy: Path, open_bundle: Callable[..., dict[str, Any]], kind: str, name: str
    ) -> None:
        path = copy / name
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
        self, copy: Path, open_bundle: Callable[..., dict[str, Any]], name: str
    ) -> None:
        assert open_bundle()["code"] == "ok"
        data = bytearray((copy / name).read_bytes())
        data[len(data) // 2] ^= 1
        (copy / name).write_bytes(data)
        status = open_bundle()
        assert status["code"] == "bundle_error"
        assert re.match(rf"{re.escape(str(copy / name))} has crc32c \d+, expected \d+$", status["message"])

    @pytest.mark.parametrize("name", ["model.onnx.data", "tokenizer.json"])
    def test_a_forgery_is_found_on_request(
        self, copy: Path, open_bundle: Callable[..., dict[str, Any]], programs: Path, name: str
    ) -> None:
        """Its CRC-32C is the one in the manifest; its SHA-256 is not."""
        data = (copy / name).read_bytes()
        (copy / name).write_bytes(data[:-1] + (b"\n}" if name == "tokenizer.json" else bytes([data[-1] ^ 1])))
        record = {key: value for key, value in file_record(copy / name).items() if key != "sha256"}
        change_manifest(copy, lambda manifest: manifest["files"][name].update(record))
        assert open_bundle()["code"] == "ok"
        status = open_bundle("check_hashes")
        assert status["code"] == "bundle_error"
        assert f"{copy / name} has sha256 " in status["message"]
        for program in ("bitfit_run", "bitfit_bench"):
            arguments = ["--task", "score", "--text", "x"] if program == "bitfit_run" else ["--shape", "1x4"]
            command = [programs / program, copy, *arguments, "--check-hashes"]
            done = subprocess.run(command, capture_output=True, text=True, check=False)
            assert (done.returncode, done.stdout) == (2, "")
            assert f"{copy / name} has sha256 " in done.stderr

    def test_hashes_of_a_genuine_bundle(self, open_bundle: Callable[..., dict[str, Any]]) -> None:
        assert open_bundle("check_hashes")["code"] == "ok"

    @pytest.mark.parametrize("name", ["model.onnx", "tokenizer.json", "model.onnx.data"])
    def test_a_file_that_the_manifest_does_not_name(
        self, copy: Path, open_bundle: Callable[..., dict[str, Any]], name: str
    ) -> None:
        change_manifest(copy, lambda manifest: manifest["files"].pop(name))
        status = open_bundle()
        assert status["code"] == "bundle_error"
        assert name in status["message"]

    def test_weights_in_another_file(self, copy: Path, open_bundle: Callable[..., dict[str, Any]]) -> None:
        """The model is genuine by its record, and its weights lie elsewhere."""
        model = onnx.load(copy / "model.onnx", load_external_data=False)
        for tensor in model.graph.initializer:
            for entry in tensor.external_data:
                if entry.key == "location":
                    entry.value = "other\x1b[2J.data"
        shutil.copy(copy / "model.onnx.data", copy / "other\x1b[2J.data")
        (copy / "model.onnx").write_bytes(model.SerializeToString())
        record = file_record(copy / "model.onnx")
        change_manifest(copy, lambda manifest: manifest["files"]["model.onnx"].update(record))
        status = open_bundle()
        assert status["code"] == "bundle_error"
        assert 'has weights in the file "other\\x1b[2J.data", which the manifest does not name' in status["message"]

    def test_files_of_weights_are_found_wherever_they_are_named(
        self, ask: Callable[..., list[Any]], tmp_path: Path
    ) -> None:
        """In initializers, sparse ones, attributes, subgraphs of subgraphs, and functions."""
        names = (f"{number}.data" for number in itertools.count())

        def tensor() -> onnx.TensorProto:
            found = onnx.TensorProto(data_location=onnx.TensorProto.EXTERNAL)
            for key, value in (("offset", "0"), ("location", next(names))):
                found.external_data.add(key=key, value=value)
            return found

        def graph(*nodes: onnx.NodeProto) -> onnx.GraphProto:
            return onnx.GraphProto(initializer=[tensor()], node=nodes)

        sparse = onnx.SparseTensorProto(values=tensor(), indices=tensor())
        inner = onnx.NodeProto(attribute=[onnx.AttributeProto(g=graph(), tensors=[tensor()])])
        outer = onnx.NodeProto(attribute=[onnx.AttributeProto(t=tensor(), graphs=[graph(inner)], sparse_tensor=sparse)])
        model = onnx.ModelProto(graph=graph(outer), functions=[onnx.FunctionProto(node=[outer])])
        model.graph.sparse_initializer.append(onnx.SparseTensorProto(values=tensor(), indices=tensor()))
        model.training_info.add(initialization=graph(), algorithm=graph())
        (tmp_path / "model").write_bytes(model.SerializeToString())
        (found,) = ask("external", tmp_path / "model")
        count = int(next(names).split(".")[0])
        assert sorted(found) == sorted(f"{number}.data" for number in range(count))

    @pytest.mark.parametrize("data", [b"\x3a\xff\xff\xff\xff\x7f", b"\x3a\x05\x01", b"\x3b", b"\xff" * 11])
    def test_a_model_that_is_none(self, ask: Callable[..., list[Any]], tmp_path: Path, data: bytes) -> None:
        (tmp_path / "model").write_bytes(data)
        (found,) = ask("external", tmp_path / "model")
        assert found["message"] == "the model is not an ONNX file (truncated or malformed)"


class TestRowsThatAreNotLoaded:
    """They belong to the bundle, too."""

    @pytest.mark.parametrize("how", ["missing", "forged"])
    def test_it(self, copy: Path, open_bundle: Callable[..., dict[str, Any]], how: str) -> None:
        path = copy / "tasks" / "score.bias"
        assert open_bundle("task=two_way")["code"] == "ok"
        if how == "missing":
            path.unlink()
            assert open_bundle("task=two_way")["message"].startswith(f"{path} cannot be read: ")
        else:
            shutil.copy(copy / "tasks" / "two_way.bias", path)
            assert open_bundle("task=two_way")["code"] == "ok"
            assert open_bundle("task=two_way", "check_hashes")["message"].startswith(f"{path} has sha256 ")


class TestFilesThatChange:
    """While a bundle is opened."""

    @pytest.mark.parametrize("how", ["replaced", "rewritten", "as it was"])
    def test_weights(self, programs: Path, copy: Path, how: str) -> None:
        """They are read by ONNX Runtime after they were checked."""
        path = copy / "model.onnx.data"
        command = [programs / "tests" / "files_test", "unchanged", copy]
        with subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True) as process:
            assert process.stdout is not None
            assert process.stdout.readline() == "checked\n"
            if how == "replaced":
                shutil.copy(path, copy / "new")
                os.replace(copy / "new", path)
            elif how == "rewritten":
                path.write_bytes(path.read_bytes())
            status = json.loads(process.communicate("\n")[0])
        assert status["code"] == (0 if how == "as it was" else 1)
        if how != "as it was":
            assert status["message"] == f"{path} was changed while the bundle was opened"

    @pytest.mark.parametrize("name", ["manifest.json", "tokenizer.json", "model.onnx.data", "tasks/score.bias"])
    def test_a_file_that_is_rewritten_in_place(
        self, copy: Path, open_bundle: Callable[..., dict[str, Any]], name: str
    ) -> None:
        """Each time it is refused or taken; no signal ends the process."""
        data = (copy / name).read_bytes()
        over = threading.Event()

        def rewrite() -> None:
            while not over.is_set():
                with (copy / name).open("r+b") as stream:
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


class TestHeads:
    """A row that would make room for more than it brings is refused, and the table is as wide as its tasks."""

    def test_a_small_row_of_many_labels(self, programs: Path, get_bundle: GetBundle, tmp_path: Path) -> None:
        bundle = get_bundle("table")
        row = decode_row((bundle / "tasks" / "three_way.bias").read_bytes())
        driver = Driver(programs / "tests" / "session_test", bundle)
        empty = tuple(each[:0] if each.shape[0] == 3 and each.ndim == 1 else each for each in row.head)
        wide = tuple(np.zeros((60_000, 0), np.float32) if each.ndim == 2 else each for each in row.head)
        for head in (empty, wide):
            bad = changed_row(bundle, "three_way", tmp_path / "bad", head=head, labels=60_000)
            refused = driver("load", path=str(bad))
            assert (refused["code"], refused["row_status"] in (10, 11)) == ("row_error", True)
        driver.close()

    def test_the_table_shrinks_when_the_widest_task_leaves(
        self,
        programs: Path,
        get_bundle: GetBundle,
        tmp_path: Path,
        batch: dict[str, Any],
        monkeypatch: pytest.MonkeyPatch,
    ) -> None:
        monkeypatch.setenv("MALLOC_MMAP_THRESHOLD_", "65536")  # so that what is freed is given back
        bundle = get_bundle("table")
        row = decode_row((bundle / "tasks" / "topics.bias").read_bytes())
        head = tuple(np.resize(each, (60_000, *each.shape[1:])) if each.shape[0] == 4 else each for each in row.head)
        wide = changed_row(bundle, "topics", tmp_path / "wide", head=head, labels=60_000)
        driver = Driver(programs / "tests" / "session_test", bundle)
        if not Path(f"/proc/{driver.pid}/statm").exists():
            pytest.skip("needs /proc")

        def megabytes() -> float:
            pages = int(Path(f"/proc/{driver.pid}/statm").read_text(encoding="ascii").split()[1])
            return pages * os.sysconf("SC_PAGE_SIZE") / 1e6

        tasks = ["three_way", "score", "two_way"]
        before, answer = megabytes(), driver("run", tasks=tasks, **batch)
        assert driver("load", path=str(wide), name="wide")["code"] == "ok"
        with_wide = megabytes()
        assert with_wide - before > 40
        assert driver("unload", name="wide")["code"] == "ok"
        assert megabytes() - before < (with_wide - before) / 4
        assert driver("run", tasks=tasks, **batch) == answer
        # Nor does it stay wide when a narrower row takes the widest task's name.
        assert driver("load", path=str(wide), name="wide")["code"] == "ok"
        assert driver("load", path=str(bundle / "tasks" / "score.bias"), name="wide")["code"] == "ok"
        assert megabytes() - before < (with_wide - before) / 4
        assert driver("run", tasks=tasks, **batch) == answer
        driver.close()


class TestShown:
    """Text from outside in messages."""

    @pytest.mark.parametrize(
        ("text", "expected"),
        [
            ("plain é 日本 😀", "plain é 日本 😀"),
            ("\x1b[2J\nerror: x\x7f", "\\x1b[2J\\x0aerror: x\\x7f"),
            ("\x85\x9b\u2028\u2029", "\\x85\\x9b\\u2028\\u2029"),
            ("\u202etxt\u2066\ufeff\u200b", "\\u202etxt\\u2066\\ufeff\\u200b"),
            ("x" * 100, "x" * 100),
            ("x" * 101, "x" * 100 + "..."),
            ("\x00" * 1000, "\\x00" * 25 + "..."),
        ],
    )
    def test_it(self, ask: Callable[..., list[Any]], text: str, expected: str) -> None:
        assert ask("shown", input=json.dumps(text) + "\n") == [expected]

    def test_a_name_of_a_megabyte(self, ask: Callable[..., list[Any]], tmp_path: Path) -> None:
        """Wherever it stands, the message stays short."""
        good = json.loads((CONFORMANCE / "manifests" / "good_plain.json").read_text(encoding="utf-8"))
        long, paths = "\x1b" + "x" * MIB, []

        def write(change: Callable[[dict[str, Any]], object]) -> None:
            manifest = json.loads(json.dumps(good))
            change(manifest)
            paths.append(tmp_path / str(len(paths)))
            paths[-1].write_text(json.dumps(manifest), encoding="utf-8")

        for key in ("layout_kind", "precision", "product_version", "layout_digest", "target"):
            write(lambda manifest, key=key: manifest.update({key: long}))
        for key in ("name", "role", "dtype"):
            write(lambda manifest, key=key: manifest["programs"]["infer"]["inputs"][0].update({key: long}))
        write(lambda manifest: manifest["programs"]["infer"].update(file=long))
        for key in ("files", "tasks"):
            write(lambda manifest, key=key: manifest[key].update({long: {}}))
        for key in ("file", "problem_type", "sha256"):
            write(lambda manifest, key=key: manifest["tasks"]["score"].update({key: long}))
        write(lambda manifest: manifest["layout"]["biases"][0].update(name=long))
        write(lambda manifest: manifest.update(fold_reasons={long: "x"}))
        paths.append(tmp_path / "twice")
        paths[-1].write_text(f'{{"{long[1:]}": 1, "{long[1:]}": 1}}', encoding="utf-8")
        for path, answer in zip(paths, ask("manifests", *paths), strict=True):
            assert answer["code"] == 1
            assert len(answer["message"].replace(str(path), "")) < 400
            assert "\x1b" not in answer["message"]
