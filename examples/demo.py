"""The main job from end to end: compile one model with five real tasks, then ask each of them something.

    make demo

It runs the same commands that a user types, and prints them.
"""

from __future__ import annotations

import shlex
import subprocess
import sys
from pathlib import Path

ROOT = Path(__file__).resolve().parents[1]
BUNDLE = "demo/minilm-l6"
TASKS = "sst2,mrpc,cola,stsb,rte"
QUESTIONS: list[tuple[str, list[str]]] = [
    ("sst2", ["A warm, funny film that I would gladly see again.", "Two hours of my life that nobody will give back."]),
    ("cola", ["The children were playing in the garden.", "The children was garden in the playing."]),
]
PAIRS: list[tuple[str, tuple[str, str]]] = [
    ("mrpc", ("The ferry was cancelled because of the storm.", "Because of the storm, the ferry did not run.")),
    ("stsb", ("A woman is slicing bread.", "A lady cuts a loaf of bread.")),
    ("rte", ("The bridge was closed in May and opened again in June.", "The bridge was open in June.")),
]


def main() -> None:
    command(f"bitfit-export --model minilm-l6 --tasks {TASKS} --output {BUNDLE} --overwrite")
    for task, texts in QUESTIONS:
        asked = " ".join(f"--text {shlex.quote(text)}" for text in texts)
        command(f"bitfit run {BUNDLE} --task {task} {asked}")
    for task, pair in PAIRS:
        asked = " ".join(f"--text {shlex.quote(text)}" for text in pair)
        command(f"bitfit run {BUNDLE} --task {task} --pair {asked}")
    # Each line names its own task: the five tasks share one batch.
    command(f"bitfit run {BUNDLE} --input examples/mixed_batch.jsonl")


def command(line: str) -> None:
    """Print a command and run it as installed beside this interpreter; stop when it fails."""
    print(f"\n$ {line}", flush=True)
    words = shlex.split(line)
    program = Path(sys.executable).parent / words[0]
    status = subprocess.run([str(program), *words[1:]], cwd=ROOT, check=False).returncode
    if status:
        sys.exit(status)


if __name__ == "__main__":
    main()
