"""Share a task on the Hugging Face Hub: upload its delta, with a card that says how to compile it.

It needs a token with write access: `hf auth login`. `bitfit-export --tasks hub:ORG/NAME` compiles the task from there.

example: bitfit push deltas/minilm-l6/rte my-org/minilm-l6-rte-bitfit
"""

from __future__ import annotations

import argparse
from pathlib import Path

from bitfit_export.cli.streams import say
from bitfit_export.interop.hub import PREFIX, push_delta


def add_arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("delta", type=Path, metavar="DELTA", help="a folder that bitfit-train wrote")
    parser.add_argument("repository", metavar="ORG/NAME", help="the repository, created if it does not exist")
    parser.add_argument("--private", action="store_true", help="make a private repository")


def run(options: argparse.Namespace) -> int:
    print(push_delta(options.delta, options.repository, private=options.private))
    say(f"compile it with --tasks {PREFIX}{options.repository}")
    return 0
