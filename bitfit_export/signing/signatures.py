"""Detached signatures: `FILE.sig` says which key signed every byte of FILE. `docs/files.md` specifies the format.

A row's bytes hold its task, its version and the model that it is for, so a signature is of that task and of no other. A
manifest holds the SHA-256 of every file of its bundle.
"""

from __future__ import annotations

import struct
from collections.abc import Iterable
from pathlib import Path
from typing import TYPE_CHECKING

from bitfit_export.bundle.file_checks import check_files, read_recorded_row
from bitfit_export.bundle.interface import SIGNATURE_MAGIC, SIGNATURE_SUFFIX
from bitfit_export.bundle.manifest import read_manifest
from bitfit_export.bundle.regular_files import read_file
from bitfit_export.bundle.row import decode_file, read_row_file
from bitfit_export.errors import BundleError, MissingExtraError, SignatureError, SignatureFault, UsageError
from bitfit_export.files import write_bytes
from bitfit_export.signing.keys import KEY_SIZE, PublicKey, public_key_of, read_public_key

if TYPE_CHECKING:
    from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey

__all__ = ["TrustedKeys", "sign_bundle", "sign_bytes", "sign_row", "signature_path"]

MAGIC = SIGNATURE_MAGIC.encode()
_SIGNATURE_SIZE = 64
#: The magic, the public key, the signature.
FORMAT = struct.Struct(f"<8s{KEY_SIZE}s{_SIGNATURE_SIZE}s")


def signature_path(path: Path) -> Path:
    """Where the signature of a file is."""
    return path.with_name(path.name + SIGNATURE_SUFFIX)


def sign_bytes(data: bytes, key: Ed25519PrivateKey) -> bytes:
    """Returns the bytes of a signature file."""
    return FORMAT.pack(MAGIC, public_key_of(key), key.sign(data))


def sign_row(path: Path, key: Ed25519PrivateKey) -> Path:
    """Write the signature of a row beside it, atomically; one that is there is replaced.

    Returns:
        The path of the signature.

    Raises:
        BundleError: the row cannot be read; RowError, if it is damaged.
        OutputError: the signature cannot be written.
    """
    data = read_row_file(path)
    decode_file(data, path)
    return _write(path, data, key)


def sign_bundle(folder: Path, key: Ed25519PrivateKey) -> list[Path]:
    """Write the signatures of a bundle's manifest and of all its rows.

    Returns:
        The paths of the signatures.

    Raises:
        BundleError: a file is damaged, or is not the one that the manifest records.
        OutputError: a signature cannot be written.
    """
    found: dict[Path, bytes] = {}
    manifest = read_manifest(folder, check=lambda data, path: found.update({path: data}))
    check_files(folder, manifest, hash_files=True)
    for task in manifest.tasks.values():
        read_recorded_row(folder, manifest, task, check=lambda data, path: found.update({path: data}))
    return [_write(path, data, key) for path, data in found.items()]


def _write(path: Path, data: bytes, key: Ed25519PrivateKey) -> Path:
    target = signature_path(path)
    write_bytes(target, sign_bytes(data, key))
    return target


class TrustedKeys:
    """The keys whose signatures a host accepts.

    Args:
        keys: at least one.

    Raises:
        UsageError: there is none, or one is not a public key.
        MissingExtraError: the package cryptography is not installed.
    """

    def __init__(self, keys: Iterable[PublicKey]) -> None:
        if isinstance(keys, (str, bytes)):
            raise UsageError("trusted_keys is one key, expected a list of them")
        self.keys = frozenset(map(read_public_key, keys))
        if not self.keys:
            raise UsageError("there is no trusted key, expected at least one")
        try:
            from cryptography.exceptions import InvalidSignature
            from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PublicKey
        except ImportError as error:
            raise MissingExtraError("cryptography", "sign") from error
        self._invalid = InvalidSignature
        self._load_key = Ed25519PublicKey.from_public_bytes

    def check(self, data: bytes, path: Path) -> None:
        """Check the signature of a file whose bytes were read.

        Args:
            data: all of the file.
            path: the file's, beside which its signature is.

        Raises:
            SignatureError: there is no signature, or not one of a trusted key for these bytes.
        """
        signed_by, signature = _read(signature_path(path))
        if signed_by not in self.keys:
            raise SignatureError(
                SignatureFault.UNTRUSTED,
                f"{path} is signed by {signed_by.hex()[:16]}..., which is not a trusted key",
            )
        try:
            self._load_key(signed_by).verify(signature, data)
        except self._invalid as error:
            raise SignatureError(
                SignatureFault.WRONG, f"{path} is not what its signature was made for", hint="copy both files again"
            ) from error


def _read(path: Path) -> tuple[bytes, bytes]:
    """The public key and the signature of a file."""
    try:
        data = read_file(path, limit=FORMAT.size)
    except FileNotFoundError as error:
        raise SignatureError(
            SignatureFault.MISSING, f"{path} is not there, expected a signature", hint="bitfit sign FILE --key KEY"
        ) from error
    except (OSError, BundleError) as error:
        reason = getattr(error, "strerror", None) or error
        raise SignatureError(SignatureFault.MALFORMED, f"{path} cannot be read: {reason}") from error
    if len(data) != FORMAT.size or not data.startswith(MAGIC):
        raise SignatureError(
            SignatureFault.MALFORMED,
            f"{path} is no signature, expected {FORMAT.size} bytes that begin with {SIGNATURE_MAGIC}",
        )
    _, key, signature = FORMAT.unpack(data)
    return key, signature
