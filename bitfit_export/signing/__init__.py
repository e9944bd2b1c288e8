"""Who made a file: Ed25519 signatures beside rows and manifests, and the keys that a host trusts."""

from bitfit_export.signing.keys import PublicKey, generate_key, read_private_key, read_public_key
from bitfit_export.signing.signatures import TrustedKeys, sign_bundle, sign_row

__all__ = [
    "PublicKey",
    "TrustedKeys",
    "generate_key",
    "read_private_key",
    "read_public_key",
    "sign_bundle",
    "sign_row",
]
