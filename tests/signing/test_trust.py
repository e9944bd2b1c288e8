"""A session with trusted keys: what is unsigned, forged, swapped or old is refused before anything of it is used."""

from __future__ import annotations

import pickle
import shutil
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any, TypeAlias

import numpy as np
import pytest

from bitfit_export.bundle import read_row, write_row
from bitfit_export.errors import BundleError, InputError, OutputError, SignatureError, SignatureFault, UsageError
from bitfit_export.runtime import BiasSession
from bitfit_export.signing import generate_key, read_private_key, read_public_key, sign_bundle, sign_row

pytest.importorskip("cryptography", reason="needs bitfit-export[sign]")

TEXT = "A text."
Open: TypeAlias = Callable[..., BiasSession]
NewRow: TypeAlias = Callable[[int], Path]


@pytest.fixture(scope="session")
def key(tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("keys") / "key"
    generate_key(path)
    return path


@pytest.fixture(scope="session")
def other_key(tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("keys") / "other"
    generate_key(path)
    return path


@pytest.fixture
def bundle(tiny_bundle: Path, tmp_path: Path, key: Path) -> Path:
    """A copy of the tiny bundle, all of it signed."""
    folder = tmp_path / "bundle"
    shutil.copytree(tiny_bundle, folder)
    sign_bundle(folder, read_private_key(key))
    return folder


@pytest.fixture
def open_trusting(bundle: Path, key: Path) -> Open:
    def open_one(**options: Any) -> BiasSession:
        return BiasSession(bundle, threads=1, trusted_keys=[key.with_suffix(".pub")], **options)

    return open_one


@pytest.fixture
def new_row(bundle: Path, tmp_path: Path) -> Callable[[int], Path]:
    """A row of the task two_way in a version, whose head answers nothing but its bias."""

    def write(version: int) -> Path:
        row = read_row(bundle / "tasks" / "two_way.bias")
        head = tuple(np.zeros_like(each) if each.shape == (2,) else each for each in row.head)
        path = tmp_path / f"two_way-{version}.bias"
        write_row(path, replace(row, task_version=version, head=head))
        return path

    return write


def sign(path: Path, key: Path) -> Path:
    sign_row(path, read_private_key(key))
    return path


def refused(session: BiasSession, path: Path, fault: SignatureFault) -> None:
    """The row at `path` is refused for this fault, and changes nothing."""
    before = session.predict(TEXT, "two_way")
    with pytest.raises(SignatureError) as caught:
        session.load_task(path)
    assert caught.value.fault == fault
    assert session.predict(TEXT, "two_way") == before


def test_what_is_signed_runs(open_trusting: Open, new_row: NewRow, key: Path) -> None:
    session = open_trusting()
    assert session.load_task(sign(new_row(2), key)) == "two_way"


def test_several_keys_may_be_trusted(bundle: Path, new_row: NewRow, key: Path, other_key: Path) -> None:
    keys = [read_public_key(key.with_suffix(".pub")), read_public_key(other_key.with_suffix(".pub")).hex()]
    session = BiasSession(bundle, threads=1, trusted_keys=keys)
    assert session.load_task(sign(new_row(2), other_key)) == "two_way"


def test_a_row_without_a_signature_is_refused(open_trusting: Open, new_row: NewRow) -> None:
    refused(open_trusting(), new_row(2), SignatureFault.MISSING)


def test_a_row_of_another_signer_is_refused(open_trusting: Open, new_row: NewRow, other_key: Path) -> None:
    refused(open_trusting(), sign(new_row(2), other_key), SignatureFault.UNTRUSTED)


def test_a_row_whose_signature_names_a_trusted_key_but_is_not_by_it_is_refused(
    open_trusting: Open, new_row: NewRow, key: Path, other_key: Path
) -> None:
    path = sign(new_row(2), other_key)
    signature = path.with_name(path.name + ".sig")
    data = signature.read_bytes()
    signature.write_bytes(data[:8] + read_public_key(key.with_suffix(".pub")) + data[40:])
    refused(open_trusting(), path, SignatureFault.WRONG)


def test_the_signature_of_another_tasks_row_is_refused(open_trusting: Open, bundle: Path, tmp_path: Path) -> None:
    path = tmp_path / "two_way.bias"
    shutil.copy(bundle / "tasks" / "two_way.bias", path)
    shutil.copy(bundle / "tasks" / "score.bias.sig", tmp_path / "two_way.bias.sig")
    refused(open_trusting(), path, SignatureFault.WRONG)


@pytest.mark.parametrize("bit", [0, 3, 8 * 40, 8 * 103 + 7])
def test_a_flipped_bit_of_a_signature_is_refused(open_trusting: Open, new_row: NewRow, key: Path, bit: int) -> None:
    path = sign(new_row(2), key)
    signature = path.with_name(path.name + ".sig")
    data = bytearray(signature.read_bytes())
    data[bit // 8] ^= 1 << bit % 8
    signature.write_bytes(data)
    refused(open_trusting(), path, SignatureFault.MALFORMED if bit < 64 else SignatureFault.WRONG)


@pytest.mark.parametrize("place", [0, 100, -1])
def test_a_flipped_bit_of_a_row_is_refused_by_its_signature(
    open_trusting: Open, new_row: NewRow, key: Path, place: int
) -> None:
    path = sign(new_row(2), key)
    data = bytearray(path.read_bytes())
    data[place] ^= 1
    path.write_bytes(data)
    refused(open_trusting(), path, SignatureFault.WRONG)


@pytest.mark.parametrize("content", [b"", b"BITFSIG1", b"x" * 104, b"BITFSIG1" + b"\0" * 97])
def test_a_file_that_is_no_signature_is_refused(open_trusting: Open, new_row: NewRow, content: bytes) -> None:
    path = new_row(2)
    path.with_name(path.name + ".sig").write_bytes(content)
    refused(open_trusting(), path, SignatureFault.MALFORMED)


@pytest.mark.parametrize("name", ["manifest.json", "tasks/score.bias"])
def test_a_bundle_of_which_something_is_unsigned_is_not_opened(open_trusting: Open, bundle: Path, name: str) -> None:
    (bundle / f"{name}.sig").unlink()
    with pytest.raises(SignatureError, match=f"no signature: .*{name}.sig is not there"):
        open_trusting()


def test_a_forged_model_is_not_opened(open_trusting: Open, bundle: Path) -> None:
    """One whose CRC-32C is the old one, as a forger can make it; SHA-256 is compared."""
    path = bundle / "model.onnx.data"
    data = bytearray(path.read_bytes())
    # CRC-32C is linear: these five bytes are its polynomial, so that the checksum stays.
    for place, value in enumerate((0x1E, 0xDC, 0x6F, 0x41)):
        data[64 + place] ^= value
    path.write_bytes(data)
    with pytest.raises(BundleError):
        open_trusting()


def test_a_row_in_memory_has_no_signature(open_trusting: Open, new_row: NewRow) -> None:
    with pytest.raises(UsageError, match="a row in memory has no signature"):
        open_trusting().load_row(read_row(new_row(2)))


def test_a_pickled_session_trusts_the_same_keys(open_trusting: Open, new_row: NewRow) -> None:
    again = pickle.loads(pickle.dumps(open_trusting()))
    refused(again, new_row(2), SignatureFault.MISSING)


@pytest.mark.parametrize("keys", [[], "0" * 64, b"0" * 32, [b"short"]])
def test_keys_that_are_none_are_refused(bundle: Path, keys: Any) -> None:
    with pytest.raises(UsageError):
        BiasSession(bundle, trusted_keys=keys)


class TestState:
    """The highest version of each task, kept in a file."""

    def test_an_older_row_is_refused_after_a_restart(self, tiny_bundle: Path, new_row: NewRow, tmp_path: Path) -> None:
        state = tmp_path / "state.json"
        first = BiasSession(tiny_bundle, threads=1, tasks=["score"], state=state)
        first.load_task(new_row(5))
        second = BiasSession(tiny_bundle, threads=1, tasks=["score"], state=state)
        with pytest.raises(InputError, match="has version 4, expected 5 or more"):
            second.load_task(new_row(4))
        assert second.tasks == ("score",)
        second.load_task(new_row(5))
        with pytest.raises(InputError, match="the task two_way has version 1, expected 5 or more"):
            BiasSession(tiny_bundle, threads=1, state=state)

    def test_two_sessions_that_share_it_see_each_other(
        self, tiny_bundle: Path, new_row: NewRow, tmp_path: Path
    ) -> None:
        sessions = [BiasSession(tiny_bundle, threads=1, state=tmp_path / "state") for _ in range(2)]
        sessions[0].load_task(new_row(5))
        with pytest.raises(InputError, match="expected 5 or more"):
            sessions[1].load_task(new_row(4))

    @pytest.mark.parametrize(
        "content",
        [b"", b"{", b"[]", b'{"format_version": 2, "tasks": {}}', b'{"format_version": 1, "tasks": {"a": 0}}'],
    )
    def test_a_damaged_one_is_never_begun_anew(self, tiny_bundle: Path, tmp_path: Path, content: bytes) -> None:
        (tmp_path / "state").write_bytes(content)
        with pytest.raises(UsageError, match="does not have the versions of tasks"):
            BiasSession(tiny_bundle, state=tmp_path / "state")
        assert (tmp_path / "state").read_bytes() == content

    def test_one_that_cannot_be_written_refuses_the_row(
        self, tiny_bundle: Path, new_row: NewRow, tmp_path: Path
    ) -> None:
        folder = tmp_path / "states"
        folder.mkdir()
        session = BiasSession(tiny_bundle, threads=1, state=folder / "state")
        before = session.predict(TEXT, "two_way")
        shutil.rmtree(folder)
        with pytest.raises(OutputError, match="cannot be written"):
            session.load_task(new_row(5))
        assert session.predict(TEXT, "two_way") == before
