"""Where the time goes: what each kind of operator takes of a run, in a bundle and in a baseline model.

    python benchmarks/operators.py --model bert-base [--shape 1x128] [--precisions fp32,int8] [--baseline WAY]

By ONNX Runtime's own profiler, on one thread: it measures around each kernel, which adds a little to small ones. The
way of the baseline model is one of those that speed.py names. Writes results/benchmarks/operators-<model>-<shape>.json.
"""

from __future__ import annotations

import json
import tempfile
from collections import defaultdict
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import onnxruntime as ort
from common import Results, make_parser, say
from contenders import row_feeds
from models import MODELS, Workbench, prepare

from bitfit_export.baselines.exports import export_baselines, random_ids
from bitfit_export.cli.bench import parse_shapes

_WARM_UP = 2


def main(words: Sequence[str] | None = None) -> None:
    parser = make_parser(__doc__)
    parser.add_argument("--model", choices=MODELS, default="bert-base")
    parser.add_argument("--shape", default="1x128", help="BATCHxSEQUENCE (%(default)s)")
    parser.add_argument("--precisions", default="fp32,int8", help="(%(default)s)")
    parser.add_argument("--baseline", default="torch, older exporter", help="(%(default)s)")
    parser.add_argument("--runs", type=int, default=10)
    arguments = parser.parse_args(words)
    settings = {"shape": arguments.shape, "runs": arguments.runs, "baseline": arguments.baseline}
    results = Results(arguments.results, f"operators-{arguments.model}-{arguments.shape}", settings)
    bench = prepare(arguments.model, arguments.scratch)
    for precision in arguments.precisions.split(","):
        results.measured[precision] = measure(bench, precision, arguments.shape, arguments.baseline, arguments.runs)
        results.save()
        say(f"{bench.name} {precision}: {results.measured[precision]}")
    print(results.save())


def measure(bench: Workbench, precision: str, shape: str, way: str, runs: int) -> dict[str, dict[str, float]]:
    """Milliseconds of a run by operator, of the baseline model and of a packed bundle."""
    ((batch, sequence),) = parse_shapes(shape)
    ids = random_ids(bench.base, batch, sequence)
    baseline = export_baselines(bench.base, bench.deltas[bench.task], bench.baseline_folder, precision).paths[way]
    bundle = bench.bundle(layout="packed", precision=precision)
    levels = ort.GraphOptimizationLevel
    return {
        "baseline": profile(baseline, ids, levels.ORT_ENABLE_ALL, runs),
        # As the runtime loads it: the compiler has optimised it.
        "bundle": profile(
            bundle / "model.onnx", {**row_feeds(bundle, bench.task), **ids}, levels.ORT_DISABLE_ALL, runs
        ),
    }


def profile(path: Path, feeds: Mapping[str, np.ndarray], level: Any, runs: int) -> dict[str, float]:
    """Milliseconds of a run that each operator takes."""
    times: dict[str, float] = defaultdict(float)
    for (operator, _), each in node_times(path, feeds, level, runs).items():
        times[operator] += sum(each) / len(each)
    return dict(times)


def node_times(
    path: Path, feeds: Mapping[str, np.ndarray], level: Any, runs: int, outputs: Sequence[str] | None = None
) -> dict[tuple[str, str], list[float]]:
    """Milliseconds of each node in each run, by its operator and its name; the first runs are left out."""
    with tempfile.TemporaryDirectory() as folder:
        options = ort.SessionOptions()
        options.intra_op_num_threads = 1
        options.graph_optimization_level = level
        options.log_severity_level = 3
        options.enable_profiling = True
        options.profile_file_prefix = str(Path(folder, "profile"))
        session = ort.InferenceSession(str(path), options, providers=["CPUExecutionProvider"])
        known = {each.name for each in session.get_inputs()}
        for _ in range(_WARM_UP + runs):
            session.run(outputs, {name: values for name, values in feeds.items() if name in known})
        events = json.loads(Path(session.end_profiling()).read_text())
    times: dict[tuple[str, str], list[float]] = defaultdict(list)
    for event in events:
        if event.get("cat") == "Node" and event["name"].endswith("_kernel_time"):
            times[event["args"]["op_name"], event["name"]].append(event["dur"] / 1e3)
    return {node: each[_WARM_UP:] for node, each in times.items()}


if __name__ == "__main__":
    main()
