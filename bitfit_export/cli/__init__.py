"""The command line: one file a command. Data goes to stdout, progress to stderr, and with it the tables of a command
whose data is something else.

Exit status: 0 done, 1 verification or a trial of a series failed, 2 bad input, 130 interrupted.
"""

from __future__ import annotations

import argparse
import importlib
import os
import signal
import sys
from collections.abc import Sequence
from typing import Any, NoReturn

from bitfit_export import __version__
from bitfit_export.errors import BitfitError

__all__ = ["main", "main_export", "main_train"]

#: Command -> what it does; the module of the same name has `add_arguments` and `run`.
COMMANDS = {
    "train": "train a task: base model and data in, task delta out",
    "sweep": "train tasks x methods x learning rates x seeds",
    "reproduce": "train the papers' experiments on a model: tables and figures",
    "export": "compile a base model and its tasks into one bundle",
    "run": "answer texts with a bundle, JSON lines on stdout",
    "verify": "compare a bundle with PyTorch",
    "inspect": "say what is in a bundle, a row or a delta",
    "diff": "list what a fine-tuned checkpoint changed; make a delta of it",
    "push": "share a delta on the Hugging Face Hub",
    "merge": "merge a delta into its base model: a checkpoint for transformers",
    "bench": "time a bundle beside the stock single-task model",
}
EXAMPLES = """\
example: bitfit run bundles/minilm-l6 --task sst2 --text 'What a lovely day'
         bitfit diff bert-base my-finetuned-bert --output deltas/bert-base/spam
         bitfit merge bert-base deltas/bert-base/spam --output spam-model"""
_INTERRUPTED = 130


def main(arguments: Sequence[str] | None = None) -> int:
    """The command `bitfit`."""
    words = sys.argv[1:] if arguments is None else list(arguments)
    parser = argparse.ArgumentParser(
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


def main_train() -> int:
    """The command `bitfit-train`."""
    return _main_of("train")


def main_export() -> int:
    """The command `bitfit-export`."""
    return _main_of("export")


def _main_of(command: str) -> int:
    parser = argparse.ArgumentParser(prog=f"bitfit-{command}", formatter_class=argparse.RawDescriptionHelpFormatter)
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
    try:
        status = options.run(options)
        sys.stdout.flush()
        return int(status or 0)
    except BitfitError as error:
        print(f"error: {error}", file=sys.stderr)
        return error.exit_code
    except KeyboardInterrupt as error:
        # Whoever was writing an output has noted whether it was done.
        print("; ".join(["interrupted", *getattr(error, "__notes__", ())]), file=sys.stderr)
        return _INTERRUPTED
    except BrokenPipeError:
        # The reader of stdout has gone; Python would print a traceback when it flushes at exit.
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        return 0
    except OSError as error:
        where = f"{error.filename}: " if error.filename else ""
        print(f"error: {where}{error.strerror or error}", file=sys.stderr)
        return BitfitError.exit_code


def _terminate(number: int, frame: Any) -> NoReturn:
    raise KeyboardInterrupt
