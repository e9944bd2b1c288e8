"""Keys of Ed25519 (RFC 8032): a private one as PKCS #8 in PEM, a public one as 64 hexadecimal digits on a line."""

from __future__ import annotations

import os
import re
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypeAlias, cast

from bitfit_export.bundle.regular_files import read_file
from bitfit_export.errors import BundleError, MissingExtraError, OutputError, UsageError, quoted
from bitfit_export.files import write_bytes

if TYPE_CHECKING:
    from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey

__all__ = ["KEY_SIZE", "PublicKey", "generate_key", "public_key_of", "read_private_key", "read_public_key"]

#: Bytes of a public key.
KEY_SIZE = 32
PUBLIC_SUFFIX = ".pub"
_LARGEST_FILE = 4096
_PUBLIC = re.compile(r"[0-9a-f]{64}")

#: A public key: its 32 bytes, its 64 hexadecimal digits, or the path of a file that has these.
PublicKey: TypeAlias = bytes | str | os.PathLike[str]


def generate_key(path: Path) -> Path:
    """Write a new private key, readable by its owner alone, and its public key beside it.

    Returns:
        The path of the public key, `path` with `.pub`.

    Raises:
        OutputError: one of the files is there already, or cannot be written.
        MissingExtraError: the package cryptography is not installed.
    """
    serialization, ed25519 = _library()
    public = path.with_name(path.name + PUBLIC_SUFFIX)
    if public.exists():
        raise OutputError(f"{public} exists", hint="keys are not replaced: choose another name")
    key = ed25519.Ed25519PrivateKey.generate()
    pem = key.private_bytes(serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8, serialization.NoEncryption())
    try:
        descriptor = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600)
    except OSError as error:
        raise OutputError(
            f"{path} cannot be written: {error.strerror}", hint="keys are not replaced: choose another name"
        ) from error
    try:
        with os.fdopen(descriptor, "wb") as file:
            file.write(pem)
            file.flush()
            os.fsync(file.fileno())
        write_bytes(public, public_key_of(key).hex().encode() + b"\n")
    except BaseException as error:
        path.unlink(missing_ok=True)
        if isinstance(error, OSError):
            raise OutputError(f"{path} cannot be written: {error.strerror}") from error
        raise
    return public


def read_private_key(path: Path) -> Ed25519PrivateKey:
    """Read what `generate_key` wrote, or `openssl genpkey -algorithm ed25519`.

    Raises:
        UsageError: the file cannot be read, or has no such key. Nothing of it is in the message.
        MissingExtraError: the package cryptography is not installed.
    """
    serialization, ed25519 = _library()
    from cryptography.exceptions import UnsupportedAlgorithm

    try:
        key: object = serialization.load_pem_private_key(read_file(path, limit=_LARGEST_FILE), password=None)
    except (OSError, BundleError) as error:
        raise UsageError(f"the key {path} cannot be read: {getattr(error, 'strerror', None) or error}") from error
    except (ValueError, TypeError, UnsupportedAlgorithm) as error:
        raise UsageError(f"{path} has no private key in PEM without a password", hint="bitfit keygen FILE") from error
    if not isinstance(key, ed25519.Ed25519PrivateKey):
        raise UsageError(f"{path} has a key of another kind, expected Ed25519", hint="bitfit keygen FILE")
    return cast("Ed25519PrivateKey", key)


def read_public_key(key: PublicKey) -> bytes:
    """Returns the 32 bytes of a public key.

    Raises:
        UsageError: it is none, or its file cannot be read.
    """
    if isinstance(key, bytes):
        if len(key) != KEY_SIZE:
            raise UsageError(f"a public key has {len(key)} bytes, expected {KEY_SIZE}")
        return key
    if isinstance(key, str) and _PUBLIC.fullmatch(key):
        return bytes.fromhex(key)
    if not isinstance(key, (str, os.PathLike)):
        raise UsageError(f"a public key is {quoted(key)}, expected bytes, hexadecimal digits or a path")
    try:
        text = read_file(Path(key), limit=_LARGEST_FILE).decode("ascii", "replace").strip()
    except (OSError, BundleError) as error:
        raise UsageError(
            f"the public key {os.fspath(key)} cannot be read: {getattr(error, 'strerror', None) or error}"
        ) from error
    if not _PUBLIC.fullmatch(text):
        raise UsageError(
            f"{os.fspath(key)} is no public key, expected 64 hexadecimal digits",
            hint="bitfit keygen writes it beside the private key, as FILE.pub",
        )
    return bytes.fromhex(text)


def public_key_of(key: Ed25519PrivateKey) -> bytes:
    """Returns the 32 bytes of a private key's public key."""
    return key.public_key().public_bytes_raw()


def _library() -> tuple[Any, Any]:
    """Two modules of cryptography."""
    try:
        from cryptography.hazmat.primitives import serialization
        from cryptography.hazmat.primitives.asymmetric import ed25519
    except ImportError as error:
        raise MissingExtraError("cryptography", "sign") from error
    return serialization, ed25519
