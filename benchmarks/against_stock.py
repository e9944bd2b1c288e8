"""The bundle beside the stock single-task model, for the packaged model and its five tasks.

    python benchmarks/against_stock.py [--model minilm-l6] [--threads 1]

It does what `bitfit bench` does, and writes results/benchmarks/against_stock-<model>.json. "Stock" is the fastest, at
each shape, of three exports of one task's model: transformers' exporter, the same with its ONNX Runtime fusions, and
torch.onnx.export.
"""

from __future__ import annotations

import argparse
import tempfile
from pathlib import Path

from common import write_results

from bitfit_export.base_models import load_base_model
from bitfit_export.bench import bench_bundle
from bitfit_export.cli.bench import describe, print_times
from bitfit_export.compiler import compile_bundle
from bitfit_export.delta_store import find_deltas, load_deltas


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--model", default="minilm-l6")
    parser.add_argument("--tasks", default="sst2,mrpc,cola,stsb,rte", help="the first one is the stock model's")
    parser.add_argument("--deltas", type=Path)
    parser.add_argument("--threads", type=int, default=1)
    parser.add_argument("--rounds", type=int, default=30)
    arguments = parser.parse_args()
    base = load_base_model(arguments.model)
    deltas = load_deltas(find_deltas(base.source.short_name, arguments.tasks, arguments.deltas))
    task, delta = next(iter(deltas.items()))
    settings = {"threads": arguments.threads, "rounds": arguments.rounds}
    with tempfile.TemporaryDirectory() as folder:
        compile_bundle(base, deltas, Path(folder))
        times = list(bench_bundle(Path(folder), base, task, delta, **settings))
    print_times(times)
    shapes = {f"{each.batch}x{each.sequence}": describe(each) for each in times}
    measured = {"task": task, "tasks": len(deltas), **settings, "shapes": shapes}
    print(write_results(f"against_stock-{base.source.short_name}", measured))


if __name__ == "__main__":
    main()
