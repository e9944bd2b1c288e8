"""Sessions with trusted keys in C++ and C: what is unsigned, forged, swapped or old is refused, as in Python."""

from __future__ import annotations

import json
import re
import shutil
from collections.abc import Callable, Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any, TypeAlias

import pytest

from bitfit_export.bundle import read_row, write_row
from bitfit_export.runtime import BiasSession
from bitfit_export.signing import generate_key, read_private_key, sign_bundle, sign_row
from tests.cpp.conftest import BUILD, ROOT, Driver, GetBundle, build_sanitized, cpp_run, run

pytest.importorskip("cryptography", reason="needs bitfit-export[sign]")

CONFORMANCE = ROOT / "conformance"
#: As `bitfit::SignatureFault` numbers them.
FAULTS = {None: 0, "missing": 1, "malformed": 2, "untrusted": 3, "wrong": 4}
SIGNATURE_ERROR = 6

Open: TypeAlias = Callable[..., Driver]


@pytest.fixture(scope="module", autouse=True)
def built_with_signatures(programs: Path) -> None:
    cache = (BUILD / programs.name / "CMakeCache.txt").read_text()
    if not re.search(r"^BITFIT_SIGNATURES:BOOL=(TRUE|ON|1)$", cache, re.MULTILINE):
        pytest.skip("libsodium is not installed; on Debian: apt-get install libsodium-dev")


@pytest.fixture(scope="module")
def key(tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("keys") / "key"
    generate_key(path)
    return path


@pytest.fixture
def bundle(get_bundle: GetBundle, tmp_path: Path, key: Path) -> Path:
    """A copy of a bundle, all of it signed."""
    folder = Path(shutil.copytree(get_bundle("table"), tmp_path / "bundle"))
    sign_bundle(folder, read_private_key(key))
    return folder


@pytest.fixture
def open_trusting(bundle: Path, key: Path) -> Iterator[Open]:
    """Opens the bundle with a trusted key, in a build with sanitizers."""
    program = build_sanitized() / "tests" / "session_test"
    opened: list[Driver] = []

    def open_one(*options: str) -> Driver:
        opened.append(Driver(program, bundle, f"key={key.with_suffix('.pub')}", *options))
        return opened[-1]

    yield open_one
    for each in opened:
        each.close()


def flip(path: Path, place: int) -> None:
    data = bytearray(path.read_bytes())
    data[place] ^= 1
    path.write_bytes(data)


def new_version(bundle: Path, path: Path, version: int, key: Path | None = None) -> Path:
    write_row(path, replace(read_row(bundle / "tasks" / "two_way.bias"), task_version=version))
    if key is not None:
        sign_row(path, read_private_key(key))
    return path


def test_every_case_of_the_conformance_files(ask: Callable[..., list[Any]], tmp_path: Path) -> None:
    index = json.loads((CONFORMANCE / "signatures" / "index.json").read_text())
    keys = ",".join(index["keys"][name] for name in index["trusted"])
    for name, case in index["cases"].items():
        shutil.copyfile(CONFORMANCE / "rows" / case["row"], tmp_path / f"{name}.bias")
        if case["signature"]:
            shutil.copyfile(CONFORMANCE / "signatures" / case["signature"], tmp_path / f"{name}.bias.sig")
    found = ask("signed", keys, *(tmp_path / f"{name}.bias" for name in index["cases"]))
    assert len(found) == len(index["cases"]) >= 16
    for (name, case), answer in zip(index["cases"].items(), found, strict=True):
        assert answer["fault"] == FAULTS[case["fault"]], (name, answer)
        assert answer["code"] == (0 if case["fault"] is None else SIGNATURE_ERROR), name


def test_a_signed_bundle_answers(open_trusting: Open) -> None:
    session = open_trusting()
    assert session.opened["code"] == "ok", session.opened
    assert session("predict", texts=["A text."], tasks=["two_way"])["results"]


@pytest.mark.parametrize(
    ("file", "fault"),
    [("manifest.json", "wrong"), ("manifest.json.sig", "wrong"), ("tasks/two_way.bias", "wrong")],
)
def test_a_flipped_bit_is_refused(open_trusting: Open, bundle: Path, file: str, fault: str) -> None:
    flip(bundle / file, -2)
    opened = open_trusting().opened
    assert opened["code"] == "signature_error"
    assert opened["signature_fault"] == FAULTS[fault]
    assert opened["hint"] == "copy both files again"


def test_an_unsigned_bundle_is_refused(open_trusting: Open, bundle: Path) -> None:
    (bundle / "manifest.json.sig").unlink()
    opened = open_trusting().opened
    assert opened["signature_fault"] == FAULTS["missing"]
    assert "manifest.json.sig is not there, expected a signature" in opened["message"]


def test_a_changed_weight_is_found_by_its_hash(open_trusting: Open, bundle: Path) -> None:
    """CRC-32C can be made to fit; the signed manifest has SHA-256 too, which is compared whenever keys are trusted."""
    manifest = json.loads((bundle / "manifest.json").read_text())
    record = manifest["files"]["tokenizer.json"]
    (bundle / "tokenizer.json").write_bytes(b" " * record["size"])
    assert open_trusting().opened["code"] == "bundle_error"


def test_a_row_that_is_not_loaded_is_compared_with_the_manifest(open_trusting: Open, bundle: Path) -> None:
    flip(bundle / "tasks" / "two_way.bias", -2)
    opened = open_trusting("task=score").opened
    assert opened["code"] == "bundle_error"
    assert "two_way.bias has sha256" in opened["message"]


def test_a_list_without_a_key_is_refused(bundle: Path) -> None:
    session = Driver(build_sanitized() / "tests" / "session_test", bundle, "key=")
    assert session.opened["code"] == "usage_error"
    assert session.opened["message"] == "there is no trusted key, expected at least one"
    session.close()


def test_rows_that_are_loaded_later_must_be_signed(
    open_trusting: Open, bundle: Path, tmp_path: Path, key: Path
) -> None:
    generate_key(tmp_path / "other")
    session = open_trusting()
    row = new_version(bundle, tmp_path / "row.bias", 2)

    def refused(fault: str) -> None:
        answer = session("load", path=str(row))
        assert (answer["code"], answer["signature_fault"]) == ("signature_error", FAULTS[fault]), answer
        assert session("tasks")["two_way"]["version"] == 1

    refused("missing")
    sign_row(row, read_private_key(tmp_path / "other"))
    refused("untrusted")
    shutil.copyfile(bundle / "tasks" / "score.bias.sig", f"{row}.sig")
    refused("wrong")
    sign_row(row, read_private_key(key))
    flip(row, 100)
    refused("wrong")
    flip(row, 100)
    assert session("load", path=str(row))["code"] == "ok"
    assert session("tasks")["two_way"]["version"] == 2


def test_an_old_version_is_refused_after_a_restart_of_either_runtime(
    open_trusting: Open, bundle: Path, tmp_path: Path, key: Path
) -> None:
    state = tmp_path / "versions.json"
    session = open_trusting(f"state={state}")
    assert json.loads(state.read_text())["tasks"]["two_way"] == 1
    newer = new_version(bundle, tmp_path / "three.bias", 3, key)
    older = new_version(bundle, tmp_path / "two.bias", 2, key)
    assert session("load", path=str(newer))["code"] == "ok"
    assert json.loads(state.read_text())["tasks"]["two_way"] == 3

    opened = open_trusting(f"state={state}").opened
    assert opened["code"] == "input_error"
    assert "two_way has version 1, expected 3 or more, the version that" in opened["message"]
    others = [f"task={name}" for name in ("score", "three_way")]
    session = open_trusting(f"state={state}", *others)
    assert session("load", path=str(older))["code"] == "input_error"
    assert session("load", path=str(newer))["code"] == "ok"

    python = BiasSession(bundle, tasks=["score"], threads=1, state=state)
    before = state.read_bytes()
    python.load_task(new_version(bundle, tmp_path / "three_again.bias", 3))
    assert state.read_bytes() == before  # both write it in one way
    python.load_task(new_version(bundle, tmp_path / "four.bias", 4))
    assert session("load", path=str(newer))["code"] == "ok"  # as it was seen here before, and is loaded
    assert open_trusting(f"state={state}", *others)("load", path=str(newer))["code"] == "input_error"


@pytest.mark.parametrize(
    "text", ["", "{}", '{"format_version": 2, "tasks": {}}', '{"format_version": 1, "tasks": {"a": 0}}']
)
def test_a_state_that_cannot_be_read_is_not_begun_anew(open_trusting: Open, tmp_path: Path, text: str) -> None:
    state = tmp_path / "versions.json"
    state.write_text(text)
    opened = open_trusting(f"state={state}").opened
    assert opened["code"] == "usage_error"
    assert "does not have the versions of tasks" in opened["message"]
    assert state.read_text() == text


def test_bitfit_run_and_c(programs: Path, bundle: Path, tmp_path: Path, key: Path) -> None:
    public = key.with_suffix(".pub")
    words = [bundle, "--task", "two_way", "--text", "A text.", "--trusted-key"]
    state = tmp_path / "versions.json"
    done = cpp_run(programs, *words, public, "--state", state)
    assert done.returncode == 0, done.stderr
    assert state.exists()
    for wrong, message in [
        (bundle / "manifest.json.sig", "is no public key, expected 64 hexadecimal digits"),
        (tmp_path / "none", "cannot be read"),
        ("0" * 64, "which is not a trusted key"),
    ]:
        done = cpp_run(programs, *words, wrong)
        assert done.returncode == 2
        assert message in done.stderr
    row = new_version(bundle, tmp_path / "row.bias", 2)
    c = [programs / "tests" / "c_test", bundle, "two_way", "A text.", row, public.read_text().strip(), state]
    assert run(c).stdout.splitlines()[1].startswith(f"4 {SIGNATURE_ERROR} {row}.sig is not there")
    sign_row(row, read_private_key(key))
    assert run(c).stdout.splitlines()[1].rstrip() == "4 0"
