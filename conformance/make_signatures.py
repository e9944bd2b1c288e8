"""Make the signature files of rows, good and bad: `signatures/`.

    python conformance/make_signatures.py

Ed25519 is written out here from RFC 8032, with Python's integers; nothing of bitfit_export and no library of
cryptography is used. Private keys are the SHA-256 of words, and worth nothing. The index has the public `keys` by name,
those that a reader is to trust in `trusted`, and for each case the row's file in `rows/` (`row`), the signature's in
`signatures/` (`signature`; null where there is none) and the fault that a reader must report, null for a good one. The
faults, in the order in which they are looked for: `missing`, `malformed`, `untrusted`, `wrong`.
"""

from __future__ import annotations

import hashlib
import json
from pathlib import Path
from typing import Any

HERE = Path(__file__).parent
ROW, OTHER_ROW = "good_float32.bias", "good_float16.bias"
MAGIC = b"BITFSIG1"

P = 2**255 - 19
ORDER = 2**252 + 27742317777372353535851937790883648493
D = -121665 * pow(121666, P - 2, P) % P
#: A point in extended coordinates (X, Y, Z, T) with x = X / Z, y = Y / Z, x y = T / Z.
Point = tuple[int, int, int, int]


def add(a: Point, b: Point) -> Point:
    """RFC 8032, section 5.1.4."""
    first, second = (a[1] - a[0]) * (b[1] - b[0]) % P, (a[1] + a[0]) * (b[1] + b[0]) % P
    third, fourth = 2 * a[3] * b[3] * D % P, 2 * a[2] * b[2] % P
    e, f, g, h = second - first, fourth - third, fourth + third, second + first
    return e * f % P, g * h % P, f * g % P, e * h % P


def times(number: int, point: Point) -> Point:
    total: Point = (0, 1, 1, 0)
    while number:
        if number & 1:
            total = add(total, point)
        point = add(point, point)
        number >>= 1
    return total


def encode(point: Point) -> bytes:
    inverse = pow(point[2], P - 2, P)
    x, y = point[0] * inverse % P, point[1] * inverse % P
    return (y | (x & 1) << 255).to_bytes(32, "little")


def base_point() -> Point:
    y = 4 * pow(5, P - 2, P) % P
    squared = (y * y - 1) * pow(D * y * y + 1, P - 2, P) % P
    x = pow(squared, (P + 3) // 8, P)
    if (x * x - squared) % P:
        x = x * pow(2, (P - 1) // 4, P) % P
    x = P - x if x & 1 else x
    return x, y, 1, x * y % P


BASE = base_point()


class Key:
    """A private key, the SHA-256 of a word."""

    def __init__(self, word: str) -> None:
        digest = hashlib.sha512(hashlib.sha256(word.encode()).digest()).digest()
        self._number = int.from_bytes(digest[:32], "little") & ((1 << 254) - 8) | 1 << 254
        self._prefix = digest[32:]
        self.public = encode(times(self._number, BASE))

    def sign(self, data: bytes) -> bytes:
        """RFC 8032, section 5.1.6."""
        nonce = _number_of(self._prefix + data)
        point = encode(times(nonce, BASE))
        challenge = _number_of(point + self.public + data)
        return point + ((nonce + challenge * self._number) % ORDER).to_bytes(32, "little")


def _number_of(data: bytes) -> int:
    return int.from_bytes(hashlib.sha512(data).digest(), "little") % ORDER


def build() -> dict[str, bytes]:
    """Every file of the folder, by name."""
    keys = {name: Key(name) for name in ("vendor", "tenant", "stranger")}
    data, other = (HERE / "rows" / ROW).read_bytes(), (HERE / "rows" / OTHER_ROW).read_bytes()
    vendor, stranger = keys["vendor"], keys["stranger"]
    good = MAGIC + vendor.public + vendor.sign(data)
    by_stranger = MAGIC + stranger.public + stranger.sign(data)
    cases: list[tuple[str, str | None, bytes | None]] = [
        ("good", None, good),
        ("good_tenant", None, MAGIC + keys["tenant"].public + keys["tenant"].sign(data)),
        ("bad_missing", "missing", None),
        ("bad_empty", "malformed", b""),
        ("bad_short", "malformed", good[:-1]),
        ("bad_long", "malformed", good + b"\0"),
        ("bad_magic", "malformed", b"BITFSIG2" + good[8:]),
        ("bad_stranger", "untrusted", by_stranger),
        ("bad_key_bit", "untrusted", flip(good, 8)),
        ("bad_borrowed_key", "wrong", MAGIC + vendor.public + by_stranger[40:]),
        ("bad_other_row", "wrong", MAGIC + vendor.public + vendor.sign(other)),
        ("bad_first_bit", "wrong", flip(good, 40)),
        ("bad_last_bit", "wrong", flip(good, 103)),
        ("bad_zeros", "wrong", MAGIC + vendor.public + bytes(64)),
        ("bad_sum_with_order", "wrong", with_order(good)),
        ("bad_prefix_signed", "wrong", MAGIC + vendor.public + vendor.sign(data[:-1])),
    ]
    files = {f"{name}.sig": content for name, _, content in cases if content is not None}
    index: dict[str, Any] = {
        "keys": {name: key.public.hex() for name, key in keys.items()},
        "trusted": ["vendor", "tenant"],
        "cases": {
            name: {"row": ROW, "signature": None if content is None else f"{name}.sig", "fault": fault}
            for name, fault, content in cases
        },
    }
    return files | {"index.json": json.dumps(index, indent=1).encode() + b"\n"}


def flip(data: bytes, place: int) -> bytes:
    """The same bytes but for the lowest bit of one."""
    return data[:place] + bytes([data[place] ^ 1]) + data[place + 1 :]


def with_order(signature: bytes) -> bytes:
    """The same signature with S + L for S, which a strict verifier refuses (RFC 8032, section 5.1.7)."""
    number = int.from_bytes(signature[72:], "little") + ORDER
    return signature[:72] + number.to_bytes(32, "little")


if __name__ == "__main__":
    from collection import write

    write("signatures", build())
