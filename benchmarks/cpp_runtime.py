"""The C++ runtime beside the Python session: latency, a switch of task, start to first answer, memory, size.

    python benchmarks/cpp_runtime.py [--model bert-base] [--rounds 5]

`bitfit_bench` and the same work by the Python session run in turn, each in a process of its own with one thread.
Figures are medians of the rounds, ratios medians of the rounds' own. Allocations are those outside of ONNX Runtime. The
programs are built as `make cpp` does. Writes results/benchmarks/cpp-<model>.json.
"""

from __future__ import annotations

import hashlib
import json
import shutil
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, TypeAlias

from common import Results, make_parser, say
from models import MODELS, Workbench, prepare
from processes import run_json

_ROOT = Path(__file__).resolve().parents[1]
_CPP = _ROOT / "runtimes" / "cpp"
_BUILD = _ROOT / "build" / "cpp" / "default"
_TEXT = "A warm, funny film that I would gladly see again."

#: What a process says of itself; `bitfit_bench` has the keys.
Reported: TypeAlias = Mapping[str, Any]


def main(words: Sequence[str] | None = None) -> None:
    parser = make_parser(__doc__)
    parser.add_argument("--model", choices=MODELS, default="minilm-l6")
    parser.add_argument("--precisions", default="fp32", help="(%(default)s)")
    parser.add_argument("--shapes", default="1x128,1x16,8x16", help="batch x sequence (%(default)s)")
    parser.add_argument("--tasks", default="1,100,1000", help="numbers of loaded tasks (%(default)s)")
    parser.add_argument("--rounds", type=int, default=5)
    arguments = parser.parse_args(words)
    settings = {name: getattr(arguments, name) for name in ("model", "shapes", "tasks", "rounds")}
    results = Results(arguments.results, f"cpp-{arguments.model}", {**settings, "runtime": _digest()})
    programs = ("bitfit_run", "bitfit_bench", "allocation_test")
    _output(_CPP / "tools" / "build.sh", "default", *programs)
    bench = prepare(arguments.model, arguments.scratch)
    for precision in arguments.precisions.split(","):
        if precision not in results.measured:
            measured = measure(bench, precision, arguments.shapes, arguments.tasks, arguments.rounds)
            results.measured[precision] = measured
            results.save()
            say(f"{bench.name} {precision}: {measured}")
    print(results.save())


def measure(bench: Workbench, precision: str, shapes: str, tasks: str, rounds: int) -> dict[str, Any]:
    """All figures of both, in one precision."""
    bundle = bench.bundle(layout="table", precision=precision)
    cpp, python, commands = [], [], []
    for round_ in range(rounds + 1):
        pair = (_bench_cpp(bundle, shapes, tasks), _bench_python(bundle, shapes, tasks))
        seconds = _time_commands(bundle, bench.task)
        if round_:  # the first brings the files into memory
            cpp.append(pair[0])
            python.append(pair[1])
            commands.append(seconds)
    figures = {"from the command to its first answer (s)": _compare(*zip(*commands, strict=True))}
    for name, *keys in _figures(cpp[0]):
        figures[name] = _compare([_find(each, keys) for each in cpp], [_find(each, keys) for each in python])
    return {"figures": figures, "only C++": {**_allocations(bundle, bench.task), **_sizes()}}


def _figures(report: Reported) -> list[tuple[str, ...]]:
    """Names of figures, each with the keys that lead to it."""
    names: list[tuple[str, ...]] = [("opening (ms)", "open_ms"), ("opening and a first answer (ms)", "first_answer_ms")]
    names += [("peak memory after an answer (MB)", "peak_memory_mb_after_first_answer")]
    for shape, times in report["runs"].items():
        names += [(f"{shape}, one task (ms)", "runs", shape, "one_task_ms")]
        names += [(f"{shape}, mixed tasks (ms)", "runs", shape, "mixed_ms")] if "mixed_ms" in times else []
    for count, times in report["switch"].items():
        place = ("switch", count)
        names += [(f"{count} tasks: 1x1, the same task (us)", *place, "same_task_us")]
        names += [(f"{count} tasks: 1x1, another task each time (us)", *place, "other_task_us")]
        names += [(f"{count} tasks: loading one (ms)", *place, "load_task_ms")] if "load_task_ms" in times else []
    return [*names, ("peak memory, all of these tasks (MB)", "peak_memory_mb")]


def _find(report: Reported, keys: Sequence[str]) -> float:
    found: Any = report
    for key in keys:
        found = found[key]
    return float(found)


def _compare(cpp: Sequence[float], python: Sequence[float]) -> dict[str, float]:
    ratio = statistics.median(one / other for one, other in zip(cpp, python, strict=True))
    return {"C++": statistics.median(cpp), "Python": statistics.median(python), "C++ / Python": ratio}


def _bench_cpp(bundle: Path, shapes: str, tasks: str) -> Reported:
    options = [word for shape in shapes.split(",") for word in ("--shape", shape)]
    options += [word for count in tasks.split(",") for word in ("--tasks", count)]
    report: Reported = json.loads(_output(_BUILD / "bitfit_bench", bundle, *options))
    return report


def _bench_python(bundle: Path, shapes: str, tasks: str) -> Reported:
    report: Reported = run_json("bench_in_python.py", str(bundle), "--shapes", shapes, "--tasks", tasks)
    return report


def _time_commands(bundle: Path, task: str) -> tuple[float, float]:
    """Seconds of `bitfit_run` and of `bitfit run`, from their start to their end."""
    seconds = []
    for program in ([_BUILD / "bitfit_run"], [Path(sys.executable).parent / "bitfit", "run"]):
        started = time.monotonic()
        _output(*program, bundle, "--task", task, "--text", _TEXT, "--threads", "1")
        seconds.append(time.monotonic() - started)
    return seconds[0], seconds[1]


def _allocations(bundle: Path, task: str) -> dict[str, float]:
    counted = json.loads(_output(_BUILD / "tests" / "allocation_test", bundle, task))
    return {"allocations of the first run": counted["first"], "allocations of all later runs": counted["later"]}


def _sizes() -> dict[str, float]:
    """Kilobytes of the program, which has this library inside and loads ONNX Runtime."""
    program = _BUILD / "bitfit_run"
    sizes = {"bitfit_run (KB)": program.stat().st_size / 1e3}
    if shutil.which("strip"):
        with tempfile.NamedTemporaryFile() as stripped:
            _output("strip", "-o", stripped.name, program)
            sizes["bitfit_run, stripped (KB)"] = Path(stripped.name).stat().st_size / 1e3
    return sizes


def _output(*command: str | Path) -> str:
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    if done.returncode:
        sys.exit(done.stderr)
    return done.stdout


def _digest() -> str:
    """Of the sources of the C++ runtime, so that figures of others are not kept."""
    digest = hashlib.sha256()
    for part in ("include", "src", "apps"):
        for path in sorted((_CPP / part).rglob("*.*")):
            digest.update(path.read_bytes())
    return digest.hexdigest()[:12]


if __name__ == "__main__":
    main()
