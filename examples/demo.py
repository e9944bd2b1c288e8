"""The main job from end to end: compile one model with five real tasks, ask each something, and ask again in C++.

    make demo

It runs the same commands that a user types, and prints them. It fails where C++ gives another answer than Python.
"""

from __future__ import annotations

import json
import os
import shlex
import subprocess
import sys
from pathlib import Path
from typing import Any

ROOT = Path(__file__).resolve().parents[1]
BUNDLE = "demo/minilm-l6"
TASKS = "sst2,mrpc,cola,stsb,rte"
BUILD = ("runtimes/cpp/tools/build.sh", "default", "bitfit_run")
CPP_RUN = "build/cpp/default/bitfit_run"
#: What `build.sh` ends with where the machine lacks something.
LACKS = 3
#: The most by which a score of C++ may differ from Python's.
TOLERANCE = 1e-5
QUESTIONS: list[tuple[str, list[str]]] = [
    ("sst2", ["A warm, funny film that I would gladly see again.", "Two hours of my life that nobody will give back."]),
    ("cola", ["The children were playing in the garden.", "The children was garden in the playing."]),
]
PAIRS: list[tuple[str, list[str]]] = [
    ("mrpc", ["The ferry was cancelled because of the storm.", "Because of the storm, the ferry did not run."]),
    ("stsb", ["A woman is slicing bread.", "A lady cuts a loaf of bread."]),
    ("rte", ["The bridge was closed in May and opened again in June.", "The bridge was open in June."]),
]


def main() -> None:
    command("bitfit-export", "--model", "minilm-l6", "--tasks", TASKS, "--output", BUNDLE, "--overwrite")
    asked = [["--task", task, *texts_of(texts)] for task, texts in QUESTIONS]
    asked += [["--task", task, "--pair", *texts_of(pair)] for task, pair in PAIRS]
    # Each line names its own task: the five tasks share one batch.
    asked += [["--input", "examples/mixed_batch.jsonl"]]
    expected = [ask("bitfit", "run", BUNDLE, *words) for words in asked]
    if build_cpp():
        compare([ask(CPP_RUN, BUNDLE, *words) for words in asked], expected)


def texts_of(texts: list[str]) -> list[str]:
    return [word for text in texts for word in ("--text", text)]


def command(program: str, *words: str) -> None:
    """Print a command and run it; stop when it fails."""
    status = run(program, *words).returncode
    if status:
        sys.exit(status)


def ask(program: str, *words: str) -> list[dict[str, Any]]:
    """The answers of `bitfit run` or `bitfit_run`, printed too."""
    done = run(program, *words, stdout=subprocess.PIPE)
    print(done.stdout, end="", flush=True)
    if done.returncode:
        sys.exit(done.returncode)
    return [json.loads(line) for line in done.stdout.splitlines()]


def run(program: str, *words: str, **options: Any) -> subprocess.CompletedProcess[str]:
    """Print a command and run it, as it is installed beside this interpreter where it is one of this package's."""
    print(f"\n$ {shlex.join([program, *words])}", flush=True)
    beside = Path(sys.executable).parent / program
    path = str(beside if beside.exists() else ROOT / program)
    return subprocess.run([path, *words], cwd=ROOT, text=True, check=False, **options)


def build_cpp() -> bool:
    """Build the program of the C++ runtime. Where the machine lacks something for that, say what, and continue."""
    environment = os.environ | {"PYTHON": sys.executable}
    done = run(*BUILD, env=environment, stdout=subprocess.PIPE, stderr=subprocess.PIPE)
    if done.returncode not in (0, LACKS):
        sys.exit(done.stdout + done.stderr)
    print((done.stderr if done.returncode else done.stdout).splitlines()[-1], flush=True)
    return done.returncode == 0


def compare(found: list[list[dict[str, Any]]], expected: list[list[dict[str, Any]]]) -> None:
    """Stop unless C++ gave the answers of Python."""
    mine, theirs = ([answer for answers in each for answer in answers] for each in (found, expected))
    scores = [abs(one.pop("score") - other.pop("score")) for one, other in zip(mine, theirs, strict=True)]
    if mine != theirs or max(scores) > TOLERANCE:
        sys.exit(f"C++ gives other answers than Python: a score differs by {max(scores):.1e}, expected {TOLERANCE:.0e}")
    print(f"\nC++ gives the same {len(scores)} answers as Python: no score differs by more than {max(scores):.1e}")


if __name__ == "__main__":
    main()
