"""Both sides of each bound of what the C++ runtime reads, and what a file may cost before it was believed."""

from __future__ import annotations

import json
import os
import subprocess
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from bitfit_export.bundle import decode_row
from tests.cpp.conftest import ROOT, Driver, GetBundle, change_manifest, changed_row

CONFORMANCE = ROOT / "conformance"
MIB = 2**20


class TestLimits:
    """Both sides of each bound."""

    def test_a_manifest(self, bundle_copy: Path, open_bundle: Callable[..., dict[str, Any]]) -> None:
        path = bundle_copy / "manifest.json"
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
        self, bundle_copy: Path, open_bundle: Callable[..., dict[str, Any]], programs: Path
    ) -> None:
        """A table for them would take more than the limit of memory."""
        labels = [f"L{number}" for number in range(65_536)]
        for name in ("two_way", "three_way", "tags"):
            change_manifest(bundle_copy, lambda manifest, name=name: manifest["tasks"][name].update(labels=labels))
        command = f'ulimit -v 1500000; exec "{programs}/tests/session_test" drive "{bundle_copy}"'
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
        self, bundle_copy: Path, open_bundle: Callable[..., dict[str, Any]], name: str, size: int, message: str
    ) -> None:
        os.truncate(bundle_copy / name, size)
        if name != "manifest.json":
            change_manifest(bundle_copy, lambda manifest: manifest["files"].get(name, {}).update(size=size))
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
