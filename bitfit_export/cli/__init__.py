"""The command line: one file per command. Data goes to stdout, progress to stderr, and with it the tables of a command
whose data is something else.

Exit status:

      0   done
      1   the verification of a bundle failed; nothing else has this status
      2   something outside does not do: an option, a file, a full disk, too little memory
      3   a trial failed; the others are done
     70   a fault of bitfit-export itself
    130   interrupted, by Ctrl-C or SIGTERM
    141   whatever reads stdout or stderr went away
"""

from __future__ import annotations

import argparse
import importlib
import signal
import sys
from collections.abc import Sequence
from typing import Any, NoReturn

from bitfit_export import __version__
from bitfit_export.cli.status import exit_status
from bitfit_export.errors import shown

__all__ = ["main", "main_export", "main_train"]

#: Command -> what it does; the module of the same name has `add_arguments` and `run`.
COMMANDS = {
    "train": "train a task: base model and data in, task delta out",
    "sweep": "train tasks x methods x learning rates x seeds",
    "reproduce": "run the papers' experiments on a model: tables and figures",
    "export": "compile a base model and its tasks into one bundle",
    "serve": "answer texts over HTTP, for any number of tasks",
    "learn": "learn a task's row from examples, without PyTorch",
    "run": "answer texts with a bundle, JSON lines on stdout",
    "verify": "compare a bundle with PyTorch",
    "inspect": "show what is in a bundle, a row or a delta",
    "diff": "list what a fine-tuned checkpoint changed; make a delta of it",
    "keygen": "make keys to sign rows and bundles with",
    "sign": "sign rows and bundles",
    "push": "share a delta on the Hugging Face Hub",
    "merge": "merge a delta into its base model: a checkpoint for transformers",
    "bench": "time a bundle beside single-task baselines",
}
EXAMPLES = """\
example: bitfit run bundles/minilm-l6 --task sst2 --text 'What a lovely day'
         bitfit diff bert-base my-finetuned-bert --output deltas/bert-base/spam
         bitfit merge bert-base deltas/bert-base/spam --output spam-model"""


class _Parser(argparse.ArgumentParser):
    """A parser whose errors have the text of arguments as other errors have outside text."""

    def error(self, message: str) -> NoReturn:
        super().error(shown(message, 1000))


def main(arguments: Sequence[str] | None = None) -> int:
    """The command `bitfit`."""
    words = sys.argv[1:] if arguments is None else list(arguments)
    return exit_status(lambda: _bitfit(words))


def main_train() -> int:
    """The command `bitfit-train`."""
    return exit_status(lambda: _single("train"))


def main_export() -> int:
    """The command `bitfit-export`."""
    return exit_status(lambda: _single("export"))


def _bitfit(words: Sequence[str]) -> int:
    parser = _Parser(
        prog="bitfit",
        description="One hard-wired ONNX model that runs every BitFit task.",
        formatter_class=argparse.RawDescriptionHelpFormatter,
        epilog=EXAMPLES,
    )
    parser.add_argument("--version", action="version", version=f"bitfit-export {__version__}")
    commands = parser.add_subparsers(metavar="COMMAND", required=True)
    chosen = next((word for word in words if word in COMMANDS), None)
    for name, summary in COMMANDS.items():
        command = commands.add_parser(name, help=summary, formatter_class=argparse.RawDescriptionHelpFormatter)
        if name == chosen:
            _fill(command, name)
    return _run(parser, words)


def _single(command: str) -> int:
    parser = _Parser(prog=f"bitfit-{command}", formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--version", action="version", version=f"bitfit-export {__version__}")
    _fill(parser, command)
    return _run(parser, sys.argv[1:])


def _fill(parser: argparse.ArgumentParser, name: str) -> None:
    # Only the chosen command is imported: `bitfit run` must start without torch.
    module: Any = importlib.import_module(f"bitfit_export.cli.{name}")
    parser.description, _, parser.epilog = module.__doc__.partition("\n\n")
    module.add_arguments(parser)
    parser.set_defaults(run=module.run)


def _run(parser: argparse.ArgumentParser, words: Sequence[str]) -> int:
    options = parser.parse_args(words)
    # A plain kill should clean up as Ctrl-C does.
    signal.signal(signal.SIGTERM, _terminate)
    return int(options.run(options) or 0)


def _terminate(number: int, frame: Any) -> NoReturn:
    raise KeyboardInterrupt
