"""`bitfit serve` under load, beside other ways to serve many tasks: answers per second, latency and memory.

    BITFIT_DATA=glue/ python benchmarks/serving.py [--tasks 10,1000,10000] [--callers 1,8,32,64] [--swaps]

The callers are a process of their own on the same machine. Each asks one text at a time, of SST-2's dev set, for a task
that is drawn by Zipf's law, and checks the answer, which is known for each task and version. The contenders are a
bundle whose batches mix tasks; one whose layout runs one task at a time, so that each task is batched for itself; the
first on Ray Serve, with one replica; and what serves a task as a model of its own: Ray Serve's multiplexing, which
keeps three models, and a process for each task. With `--swaps` rows are replaced all the time, by newer ones and now
and then by what is no row, and some are taken away for a while. Writes results/benchmarks/serving-<model>.json, and
resumes where it stopped.
"""

from __future__ import annotations

import argparse
import json
import os
import re
import subprocess
import sys
import tempfile
import threading
from collections.abc import Iterator, Sequence
from contextlib import contextmanager, nullcontext
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
from common import Results, make_parser, say
from load_generator import lead_of
from models import Workbench, prepare
from task_servers import write_task_models

from bitfit_export.bundle import BiasRow, read_manifest, read_row, write_row
from bitfit_export.errors import UsageError
from bitfit_export.files import write_bytes

MIXED, APART, ON_RAY = "batches mix tasks", "each task batched for itself", "batches mix tasks, on Ray Serve"
MULTIPLEXED, PROCESSES = "a model for each task, on Ray Serve", "a process for each task"
_LAYOUTS = {MIXED: "table", APART: "packed", ON_RAY: "table"}
#: The most tasks that others are measured with: of models on the disk, and of processes in memory.
_MOST = {MULTIPLEXED: 1000, PROCESSES: 16}
_MEMORY_MB = 256
_EXPONENT = 1.1
_SEED = 0


class Servers:
    """The processes of a service.

    Attributes:
        addresses: of the process of each task, in turn; one, if it answers for all.
    """

    def __init__(self, commands: Sequence[Sequence[str | Path | int]]) -> None:
        self._processes = [
            subprocess.Popen([sys.executable, *map(str, words)], stderr=subprocess.PIPE, text=True)
            for words in commands
        ]
        self.addresses = [_address(process) for process in self._processes]

    def memory(self) -> float:
        """The most that each process and those that it started have had, in MB, together."""
        found = 0
        for process in self._processes:
            for number in _family(process.pid):
                status = Path(f"/proc/{number}/status").read_text()
                peak = re.search(r"VmHWM:\s+(\d+) kB", status)
                found += int(peak[1]) if peak else 0
        return found / 1024

    def rows_in_memory(self) -> str:
        """How many rows or models are in memory, of a service that says so."""
        from urllib.error import HTTPError
        from urllib.request import urlopen

        try:
            with urlopen(f"http://{self.addresses[0]}/metrics", timeout=60) as reply:
                text = reply.read().decode()
        except HTTPError:
            return ""
        found = re.search(r"^bitfit_rows_in_memory (\S+)", text, re.MULTILINE)
        return found[1] if found else ""

    def end(self) -> None:
        for process in self._processes:
            process.terminate()
        for process in self._processes:
            process.wait()


def _address(process: subprocess.Popen[str]) -> str:
    """What the process says when it is ready."""
    assert process.stderr is not None
    said = []
    for line in process.stderr:
        if found := re.search(r"at http://([\d.:]+);", line):
            threading.Thread(target=lambda: any(False for _ in process.stderr or ()), daemon=True).start()
            return found[1]
        said.append(line)
    raise UsageError(f"a service did not start: {''.join(said)[-300:]}")


def _family(process: int) -> Iterator[int]:
    yield process
    for thread in Path(f"/proc/{process}/task").iterdir():
        for child in (thread / "children").read_text().split():
            yield from _family(int(child))


@contextmanager
def serving(contender: str, workbench: Workbench, folder: Path, count: int) -> Iterator[Servers]:
    """The service of a contender, for so many tasks."""
    script = Path(__file__).with_name("task_servers.py")
    if contender in _MOST:
        write_task_models(workbench, folder, count)
        each = [["--task", f"t{number}", "--port", "0"] for number in range(count)]
        commands: Any = [
            [script, folder, *words] for words in (each if contender == PROCESSES else [["--port", "8123"]])
        ]
    else:
        bundle = workbench.bundle(layout=_LAYOUTS[contender])
        _write_rows(bundle, folder, count)
        words = ["-m", "bitfit_export", "serve", bundle, "--tasks-dir", folder, "--port", "0", "--threads", 1]
        commands = [[*words, "--memory", _MEMORY_MB, *(["--engine", "ray"] if contender == ON_RAY else [])]]
    servers = Servers(commands)
    try:
        yield servers
    finally:
        servers.end()


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
    contenders = [MIXED, APART] if options.swaps else [MIXED, APART, ON_RAY, MULTIPLEXED, PROCESSES]
    for contender in contenders:
        for count in counts:
            measured = results.measured.setdefault(contender, {}).setdefault(f"{count:,}", {"callers": {}})
            todo = [each for each in callers if str(each) not in measured["callers"]]
            if todo and count <= _MOST.get(contender, count):
                with tempfile.TemporaryDirectory(dir=options.scratch) as scratch:
                    _measure(results, contender, workbench, Path(scratch), count, todo, texts, options)
            elif not measured["callers"]:
                del results.measured[contender][f"{count:,}"]
    say(str(results.save()))


def _measure(
    results: Results,
    contender: str,
    workbench: Workbench,
    folder: Path,
    count: int,
    callers: Sequence[int],
    texts: Sequence[str],
    options: argparse.Namespace,
) -> None:
    measured = results.measured[contender][f"{count:,}"]
    seconds = options.seconds
    plan = {
        "texts": texts,
        "seed": _SEED,
        "tasks": count,
        "exponent": _EXPONENT,
        "versions": 2 if options.swaps else 1,
    }
    with serving(contender, workbench, folder, count) as servers:
        plan["addresses"] = servers.addresses
        _load(plan | {"callers": 8, "seconds": seconds / 3})  # until it is warm
        for each in callers:
            swapping = _swapping(workbench.bundle(layout=_LAYOUTS[contender]), folder, count) if options.swaps else None
            with swapping or nullcontext():
                seen = _load(plan | {"callers": each, "seconds": seconds})
            measured["callers"][str(each)] = _figures(seen, seconds)
            measured["peak memory (MB)"] = round(servers.memory(), 1)
            if rows := servers.rows_in_memory():
                measured["rows in memory"] = rows
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
    """Replace the rows that are asked most, as fast as the disk takes them, until the block ends.

    In each round one task in ten gets what is no row, which must change nothing, and another one in ten none at all.
    """
    model = _model_row(bundle)
    ending = threading.Event()

    def swap() -> None:
        version = 1
        while not ending.is_set():
            version += 1
            for number in range(min(count, 50)):
                path, place = folder / f"t{number}.bias", (number + version) % 10
                if ending.wait(0.01):
                    break
                if place == 0:
                    write_bytes(path, b"no row")
                elif place == 1:
                    path.unlink()
                else:
                    _write_version(model, folder, number, version, count)

    thread = threading.Thread(target=swap)
    thread.start()
    try:
        yield
    finally:
        ending.set()
        thread.join()


if __name__ == "__main__":
    main()
