"""Make a pair of Ed25519 keys, to sign rows and bundles with.

FILE gets the private key, readable by you alone; FILE.pub the public one, for hosts to trust.

example: bitfit keygen vendor.key
         bitfit sign bundles/minilm-l6 --key vendor.key
         bitfit run bundles/minilm-l6 --trusted-key vendor.key.pub --task sst2 --text "What a lovely day"
"""

from __future__ import annotations

import argparse
from pathlib import Path

from bitfit_export.cli.streams import say
from bitfit_export.signing import generate_key, read_public_key


def add_arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("file", type=Path, metavar="FILE", help="the private key's new file")


def run(options: argparse.Namespace) -> int:
    public = generate_key(options.file)
    say(f"{options.file} signs: keep it secret; {public} is for those who check")
    print(read_public_key(public).hex())
    return 0
