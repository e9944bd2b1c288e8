"""The process that `load.py` measures: open a model with its tokenizer, answer one text, and say what that took.

    python benchmarks/open_once.py bundle FOLDER TASK
    python benchmarks/open_once.py baseline MODEL.onnx TOKENIZER.json

It prints one line of JSON. With `--hold` it then waits for a line, and prints its share of memory. Both kinds import
the same, so what they start from is the same.
"""

from __future__ import annotations

import argparse
import json
import sys
import time
from pathlib import Path

import memory
import numpy as np
from tokenizers import Tokenizer

from bitfit_export.baselines.timing import open_baseline
from bitfit_export.runtime import BiasSession

_TEXT = "A warm, funny film that I would gladly see again."


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("kind", choices=("bundle", "baseline"))
    parser.add_argument("path")
    parser.add_argument("other", help="the bundle's task, or the baseline model's tokenizer.json")
    parser.add_argument("--hold", action="store_true")
    arguments = parser.parse_args()
    if "torch" in sys.modules:
        sys.exit("torch is loaded, which a process that runs models does not need")
    before = memory.resident()
    started = time.perf_counter()
    # Held to the end: what was opened stays open while memory is looked at.
    opened = (_answer_bundle if arguments.kind == "bundle" else _answer_baseline)(arguments.path, arguments.other)
    seconds = time.perf_counter() - started
    print(json.dumps({"seconds": seconds, "peak": memory.peak(), "before": before}), flush=True)
    if arguments.hold:
        sys.stdin.readline()
        print(json.dumps({"share": memory.proportional()}), flush=True)
        sys.stdin.readline()
    del opened


def _answer_bundle(folder: str, task: str) -> object:
    session = BiasSession(folder, threads=1)
    session.run(task, **session.encode(_TEXT))
    return session


def _answer_baseline(path: str, tokenizer: str) -> object:
    encoder = Tokenizer.from_file(tokenizer)
    session = open_baseline(Path(path), 1)
    encoded = encoder.encode(_TEXT)
    values = {
        "input_ids": encoded.ids,
        "attention_mask": encoded.attention_mask,
        "token_type_ids": encoded.type_ids,
    }
    session.run(None, {each.name: np.array([values[each.name]], np.int64) for each in session.get_inputs()})
    return encoder, session


if __name__ == "__main__":
    main()
