"""Where a step of learning spends its time: in the program `train_step`, and in PyTorch's BitFit step.

    python benchmarks/learning_profile.py [--models minilm-l6] [--batch 16] [--sequence 32]

The same steps as those of learning_step.py, on one thread, by the profilers of ONNX Runtime and PyTorch: of each
operator the least of some steps, for what else the machine does only adds time. Products with weights, which both sides
have, are listed apart from products of activations. Writes results/benchmarks/learning_profile.json.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Mapping, Sequence
from pathlib import Path

import onnx
import onnxruntime as ort
import torch
from common import Results, make_parser, say
from learning_step import first_row, one_batch, torch_step
from models import prepare
from operators import node_times
from step_profile import without_small

from bitfit_export.bundle import read_manifest
from bitfit_export.bundle.interface import GRADIENT_PREFIX, LOSS, TRAIN_STEP_FILE

WEIGHTS = "products with weights"
_PRODUCTS = ("FusedGemm", "FusedMatMul", "Gemm", "MatMul")
#: PyTorch's products of two matrices; those of activations are batches of them.
_TORCH_PRODUCTS = ("aten::addmm", "aten::mm")


def main(words: Sequence[str] | None = None) -> None:
    parser = make_parser(__doc__)
    parser.add_argument("--models", default="minilm-l6", help="(%(default)s)")
    for name, value in (("batch", 16), ("sequence", 32), ("steps", 10)):
        parser.add_argument(f"--{name}", type=int, default=value, help="(%(default)s)")
    arguments = parser.parse_args(words)
    sizes = {"threads": 1} | {name: getattr(arguments, name) for name in ("batch", "sequence", "steps")}
    results = Results(arguments.results, "learning_profile", sizes)
    for model in arguments.models.split(","):
        if model not in results.measured:
            bundle = prepare(model, arguments.scratch).bundle(layout="packed", trainable=True)
            found = {"program": of_program(bundle, sizes), "torch": of_torch(model, arguments.scratch, sizes)}
            results.measured[model] = without_small(found)
            say(f"{model}: { {side: round(sum(each.values())) for side, each in found.items()} } ms")
            results.save()
    print(results.save())


def of_program(bundle: Path, sizes: Mapping[str, int]) -> dict[str, float]:
    """Milliseconds of a step by operator, the least of each node."""
    manifest = read_manifest(bundle)
    row = first_row(bundle, manifest)
    outputs = [LOSS, *(GRADIENT_PREFIX + name for name in row.names)]
    path, level = bundle / TRAIN_STEP_FILE, ort.GraphOptimizationLevel.ORT_DISABLE_ALL
    feeds = {**row.feeds, **one_batch(manifest, sizes)}
    graph = onnx.load(path, load_external_data=False).graph
    matrices = {each.name for each in graph.initializer if len(each.dims) == 2}
    weighed = {node.name for node in graph.node if node.op_type in _PRODUCTS and matrices & set(node.input)}
    found: dict[str, float] = defaultdict(float)
    for (operator, name), each in node_times(path, feeds, level, sizes["steps"], outputs).items():
        found[WEIGHTS if name.removesuffix("_kernel_time") in weighed else operator] += min(each)
    return dict(found)


def of_torch(model: str, scratch: Path, sizes: Mapping[str, int]) -> dict[str, float]:
    """Milliseconds of a step by operator, without what it calls, the least of each."""
    step = torch_step(model, scratch, sizes)
    steps: dict[str, list[float]] = defaultdict(list)
    for _ in range(2 + sizes["steps"]):
        with torch.profiler.profile(activities=[torch.profiler.ProfilerActivity.CPU]) as profiler:
            step()
        for event in profiler.key_averages():
            steps[event.key].append(event.self_cpu_time_total / 1e3)
    found: dict[str, float] = defaultdict(float)
    for key, each in steps.items():
        found[WEIGHTS if key in _TORCH_PRODUCTS else key.removeprefix("aten::")] += min(each)
    return dict(found)


if __name__ == "__main__":
    main()
