"""`bitfit serve` under load: answers per second, latency and memory, over 10 to 10,000 tasks.

    BITFIT_DATA=glue/ python benchmarks/serving.py [--tasks 10,1000,10000] [--callers 1,8,32,64] [--swaps]

The callers are a process of their own on the same machine. Each asks one text at a time, of SST-2's dev set, for a task
that is drawn by Zipf's law, and checks the answer, which is known for each task and version. The contenders are a
bundle whose batches mix tasks, and one whose layout runs one task at a time, so that each task is batched for itself;
the service, the rows and the callers are the same. With `--swaps` rows are replaced all the time. Writes
results/benchmarks/serving-<model>.json, and resumes where it stopped.
"""

from __future__ import annotations

import json
import os
import re
import subprocess
import sys
import tempfile
import threading
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
from common import Results, make_parser, say
from load_generator import lead_of
from models import prepare

from bitfit_export.bundle import BiasRow, read_manifest, read_row, write_row
from bitfit_export.errors import UsageError

MIXED, APART = "batches mix tasks", "each task batched for itself"
_LAYOUTS = {MIXED: "table", APART: "packed"}
_MEMORY_MB = 256
_EXPONENT = 1.1
_SEED = 0


class Server:
    """A `bitfit serve` process."""

    def __init__(self, bundle: Path, rows: Path) -> None:
        words = ["serve", bundle, "--tasks-dir", rows, "--port", "0", "--threads", "1", "--memory", _MEMORY_MB]
        command = [sys.executable, "-m", "bitfit_export", *map(str, words)]
        self.process = subprocess.Popen(command, stderr=subprocess.PIPE, text=True)
        assert self.process.stderr is not None
        found = re.search(r"at http://([\d.:]+);", self.process.stderr.readline())
        if found is None:
            raise UsageError(f"bitfit serve did not start: {self.process.stderr.read()[:300]}")
        self.address = found[1]
        threading.Thread(target=lambda: any(False for _ in self.process.stderr or ()), daemon=True).start()

    def memory(self) -> float:
        """The most that the process has had, in MB."""
        status = Path(f"/proc/{self.process.pid}/status").read_text()
        found = re.search(r"VmHWM:\s+(\d+) kB", status)
        return int(found[1]) / 1024 if found else float("nan")

    def rows_in_memory(self) -> str:
        from urllib.request import urlopen

        with urlopen(f"http://{self.address}/metrics", timeout=60) as reply:
            text = reply.read().decode()
        found = re.search(r"^bitfit_rows_in_memory (\S+)", text, re.MULTILINE)
        return found[1] if found else "?"


@contextmanager
def serving(bundle: Path, rows: Path) -> Iterator[Server]:
    server = Server(bundle, rows)
    try:
        yield server
    finally:
        server.process.terminate()
        server.process.wait()


def main(words: Sequence[str] | None = None) -> None:
    parser = make_parser(__doc__)
    parser.add_argument("--model", default="minilm-l6")
    parser.add_argument("--tasks", default="10,1000,10000", help="how many (%(default)s)")
    parser.add_argument("--callers", default="1,8,32,64", help="how many at once (%(default)s)")
    parser.add_argument("--seconds", type=float, default=15, help="of each measurement (%(default)s)")
    parser.add_argument("--swaps", action="store_true", help="replace rows all the time")
    options = parser.parse_args(words)
    texts = _texts()
    counts = [int(each) for each in options.tasks.split(",")]
    callers = [int(each) for each in options.callers.split(",")]
    settings = {"seconds": options.seconds, "memory (MB)": _MEMORY_MB, "exponent": _EXPONENT, "seed": _SEED}
    name = f"serving-{options.model}" + ("-swaps" if options.swaps else "")
    results = Results(options.results, name, settings)
    workbench = prepare(options.model, options.scratch)
    for contender, layout in _LAYOUTS.items():
        bundle = workbench.bundle(layout=layout)
        for count in counts:
            with tempfile.TemporaryDirectory() as scratch:
                rows = Path(scratch)
                _write_rows(bundle, rows, count)
                _measure(results, contender, bundle, rows, count, callers, texts, options.swaps, options.seconds)
    say(str(results.save()))


def _measure(
    results: Results,
    contender: str,
    bundle: Path,
    rows: Path,
    count: int,
    callers: Sequence[int],
    texts: Sequence[str],
    swaps: bool,
    seconds: float,
) -> None:
    measured = results.measured.setdefault(contender, {}).setdefault(f"{count:,}", {"callers": {}})
    todo = [each for each in callers if str(each) not in measured["callers"]]
    if not todo:
        return
    plan = {"texts": texts, "seed": _SEED, "tasks": count, "exponent": _EXPONENT, "versions": 2 if swaps else 1}
    with serving(bundle, rows) as server:
        _load(plan | {"address": server.address, "callers": 8, "seconds": seconds / 3})  # until it is warm
        for each in todo:
            with _swapping(bundle, rows, count) if swaps else _nothing():
                seen = _load(plan | {"address": server.address, "callers": each, "seconds": seconds})
            measured["callers"][str(each)] = _figures(seen, seconds)
            measured["peak memory (MB)"] = round(server.memory(), 1)
            measured["rows in memory"] = server.rows_in_memory()
            results.save()
            say(f"{contender}, {count} tasks, {each} callers: {measured['callers'][str(each)]}")


def _load(plan: dict[str, Any]) -> dict[str, Any]:
    script = Path(__file__).with_name("load_generator.py")
    done = subprocess.run(
        [sys.executable, str(script)], input=json.dumps(plan), capture_output=True, text=True, check=True
    )
    seen: dict[str, Any] = json.loads(done.stdout)
    return seen


def _figures(seen: dict[str, Any], seconds: float) -> dict[str, Any]:
    times = np.sort(np.array(seen["seconds"])) * 1000
    return {
        "answers per second": round(len(times) / seconds, 1),
        "p50 (ms)": round(float(np.percentile(times, 50)), 2),
        "p99 (ms)": round(float(np.percentile(times, 99)), 2),
        "answers": len(times),
        "wrong": seen["wrong"],
        "refused": seen["refused"],
    }


def _texts() -> list[str]:
    folder = os.environ.get("BITFIT_DATA")
    if folder is None:
        raise UsageError("BITFIT_DATA names no folder", hint="its sst2/ has the texts that are asked")
    from bitfit_export.training.data_files import read_folder

    return [str(example["sentence"]) for _, example in read_folder(Path(folder) / "sst2", "sst2").validation.examples]


def _write_rows(bundle: Path, folder: Path, count: int) -> None:
    """Rows that read nothing of the text, and whose answers are all different."""
    model = _model_row(bundle)
    for number in range(count):
        _write_version(model, folder, number, 1, count)


def _model_row(bundle: Path) -> BiasRow:
    """A row with two labels, to make others of."""
    manifest = read_manifest(bundle)
    two = next(
        task for task in manifest.tasks.values() if len(task.labels) == 2 and task.problem_type == "single_label"
    )
    return read_row(bundle / two.file, layout=manifest.layout)


def _write_version(model: BiasRow, folder: Path, number: int, version: int, count: int) -> None:
    *others, weight, bias = model.head
    lead = np.array([0.0, lead_of(number, version, count)], bias.dtype)
    head = (*others, np.zeros_like(weight), lead)
    write_row(folder / f"t{number}.bias", replace(model, task=f"t{number}", task_version=version, labels=2, head=head))


@contextmanager
def _swapping(bundle: Path, folder: Path, count: int) -> Iterator[None]:
    """Replace rows, those most asked first, as fast as the disk takes them, until the block ends."""
    model = _model_row(bundle)
    ending = threading.Event()

    def swap() -> None:
        version = 1
        while not ending.is_set():
            version += 1
            for number in range(min(count, 50)):
                if not ending.wait(0.01):
                    _write_version(model, folder, number, version, count)

    thread = threading.Thread(target=swap)
    thread.start()
    try:
        yield
    finally:
        ending.set()
        thread.join()


@contextmanager
def _nothing() -> Iterator[None]:
    yield


if __name__ == "__main__":
    main()
