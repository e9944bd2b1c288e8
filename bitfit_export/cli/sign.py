"""Sign rows and bundles, so that hosts can tell who made them.

The signature of a file is FILE.sig. Of a bundle the manifest and all rows are signed; the manifest has the SHA-256 of
every other file.

example: bitfit keygen vendor.key
         bitfit sign spam.bias --key vendor.key
         bitfit sign bundles/minilm-l6 --key vendor.key
"""

from __future__ import annotations

import argparse
from pathlib import Path

from bitfit_export.signing import read_private_key, sign_bundle, sign_row


def add_arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("paths", type=Path, metavar="PATH", nargs="+", help="a row, or the folder of a bundle")
    parser.add_argument("--key", type=Path, required=True, metavar="FILE", help="the private key, of bitfit keygen")


def run(options: argparse.Namespace) -> int:
    key = read_private_key(options.key)
    for path in options.paths:
        for signature in sign_bundle(path, key) if path.is_dir() else [sign_row(path, key)]:
            print(signature)
    return 0
