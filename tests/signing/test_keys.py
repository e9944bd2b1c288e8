"""Keys: what keygen writes, what openssl writes, and files that are no keys."""

from __future__ import annotations

import os
import shutil
import stat
import subprocess
from pathlib import Path

import pytest

from bitfit_export.errors import OutputError, UsageError
from bitfit_export.signing import generate_key, read_private_key, read_public_key
from bitfit_export.signing.keys import public_key_of

pytest.importorskip("cryptography", reason="needs bitfit-export[sign]")


def test_a_key_is_its_owners_alone_and_its_public_key_is_beside_it(tmp_path: Path) -> None:
    public = generate_key(tmp_path / "key")
    assert public == tmp_path / "key.pub"
    assert stat.S_IMODE(os.stat(tmp_path / "key").st_mode) == 0o600
    key = public_key_of(read_private_key(tmp_path / "key"))
    text = public.read_text().strip()
    assert key == read_public_key(public) == read_public_key(text) == read_public_key(key)
    assert "PRIVATE" not in public.read_text()


@pytest.mark.parametrize("there", ["key", "key.pub"])
def test_a_key_is_never_replaced(tmp_path: Path, there: str) -> None:
    (tmp_path / there).write_text("precious")
    with pytest.raises(OutputError, match="keys are not replaced"):
        generate_key(tmp_path / "key")
    assert [each.name for each in tmp_path.iterdir()] == [there]
    assert (tmp_path / there).read_text() == "precious"


def test_a_folder_that_is_not_there_is_one_clear_error(tmp_path: Path) -> None:
    with pytest.raises(OutputError, match="cannot be written: No such file or directory"):
        generate_key(tmp_path / "none" / "key")


@pytest.mark.skipif(shutil.which("openssl") is None, reason="needs openssl")
def test_openssl_makes_keys_too(tmp_path: Path) -> None:
    path = tmp_path / "key"
    subprocess.run(["openssl", "genpkey", "-algorithm", "ed25519", "-out", path], check=True)
    public = subprocess.run(
        ["openssl", "pkey", "-in", path, "-pubout", "-outform", "DER"], check=True, capture_output=True
    )
    assert public_key_of(read_private_key(path)) == public.stdout[-32:]


def test_a_file_that_is_no_private_key_is_refused(tmp_path: Path) -> None:
    path = tmp_path / "key"
    with pytest.raises(UsageError, match="cannot be read: No such file"):
        read_private_key(path)
    path.write_bytes(b"a secret")
    with pytest.raises(UsageError, match="has no private key in PEM") as caught:
        read_private_key(path)
    assert "secret" not in str(caught.value)
    from cryptography.hazmat.primitives import serialization
    from cryptography.hazmat.primitives.asymmetric import ec

    other = ec.generate_private_key(ec.SECP256R1())
    formats = serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8, serialization.NoEncryption()
    path.write_bytes(other.private_bytes(*formats))
    with pytest.raises(UsageError, match="a key of another kind, expected Ed25519"):
        read_private_key(path)


@pytest.mark.parametrize("key", [b"short", "0" * 63, "x" * 64, 7, None])
def test_what_is_no_public_key_is_refused(key: object) -> None:
    with pytest.raises(UsageError):
        read_public_key(key)  # type: ignore[arg-type]


def test_a_file_without_a_public_key_is_refused(tmp_path: Path) -> None:
    (tmp_path / "key.pub").write_text("0" * 62)
    with pytest.raises(UsageError, match="is no public key, expected 64 hexadecimal digits"):
        read_public_key(tmp_path / "key.pub")
