"""Compile and verify BERT-base and BERT-large at full size: seconds, and the largest memory of the process.

    python benchmarks/compile_big_models.py [--sizes base,large] [--tasks 2]

The weights are seeded random numbers, with random biases: time and memory do not depend on them. Each size runs as the
command bitfit-export in a process of its own, which verifies, too. Beside it, torch.onnx.export of the same encoder,
alone. Writes results/benchmarks/compile_big_models.json.
"""

from __future__ import annotations

import argparse
import os
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

import numpy as np
import torch
import transformers
from common import write_results

from bitfit_export.base_models import BaseModel, load_base_model
from bitfit_export.delta import DeltaConfig, TaskDelta

SIZES: dict[str, dict[str, int]] = {
    "base": {},
    "large": {"hidden_size": 1024, "num_hidden_layers": 24, "num_attention_heads": 16, "intermediate_size": 4096},
}
EXPORT = "from bitfit_export.cli import main_export; raise SystemExit(main_export())"
EXPORT_ALONE = """
import sys, torch, transformers
model = transformers.AutoModel.from_pretrained(sys.argv[1]).eval()
ids = torch.arange(14).reshape(2, 7)
axes = {0: torch.export.Dim("batch"), 1: torch.export.Dim("sequence", max=512)}
torch.onnx.export(model, (ids, torch.ones_like(ids)), sys.argv[2], dynamic_shapes=(axes, axes), dynamo=True)
"""


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--sizes", default="base,large")
    parser.add_argument("--tasks", type=int, default=2)
    parser.add_argument("--tokenizer", default="minilm-l6", help="the model whose tokenizer the random models get")
    arguments = parser.parse_args()
    measured = {}
    for size in arguments.sizes.split(","):
        with tempfile.TemporaryDirectory() as folder:
            make_model(size, arguments.tasks, arguments.tokenizer, Path(folder))
            measured[f"bert-{size}"] = measure(arguments.tasks, Path(folder))
        print(size, measured[f"bert-{size}"], file=sys.stderr)
    print(write_results("compile_big_models", measured))


def make_model(size: str, tasks: int, tokenizer: str, folder: Path) -> None:
    """Write a random BERT to `model` and random deltas for it to `deltas`."""
    torch.manual_seed(0)
    module = transformers.BertModel(transformers.BertConfig(**SIZES[size]))
    for name, parameter in module.named_parameters():
        if name.endswith(".bias"):
            torch.nn.init.normal_(parameter, std=0.1)
    module.save_pretrained(folder / "model")
    load_base_model(tokenizer).tokenizer.save_pretrained(folder / "model")
    base = load_base_model(str(folder / "model"))
    for number in range(tasks):
        make_delta(base, f"task-{number}", number).save(folder / "deltas" / f"task-{number}", card="")


def make_delta(base: BaseModel, task: str, seed: int) -> TaskDelta:
    """A delta that changes every bias term, with a head of two labels."""
    random = np.random.default_rng(seed)
    hidden = int(base.module.config.hidden_size)
    config = DeltaConfig(
        base_model=base.source.name,
        base_revision=None,
        base_digest=base.digest,
        task=task,
        problem_type="single_label",
        labels=("no", "yes"),
        bias_terms=tuple(base.biases),
        method="bitfit",
        pooling="pooler",
        max_length=128,
    )
    return TaskDelta(
        config,
        {name: random.normal(0, 0.1, value.shape).astype(np.float32) for name, value in base.biases.items()},
        {
            "classifier.weight": random.normal(0, 0.1, (2, hidden)).astype(np.float32),
            "classifier.bias": random.normal(0, 0.1, 2).astype(np.float32),
        },
    )


def measure(tasks: int, folder: Path) -> dict[str, Any]:
    """Seconds and peak memory of bitfit-export, and of torch.onnx.export alone."""
    model, out = str(folder / "model"), folder / "out"
    names = ",".join(f"task-{number}" for number in range(tasks))
    words = ["--model", model, "--tasks", names, "--deltas", str(folder / "deltas"), "--output", str(out)]
    ours = run_measured([sys.executable, "-c", EXPORT, *words])
    alone = run_measured([sys.executable, "-c", EXPORT_ALONE, model, str(folder / "alone.onnx")])
    return {
        "tasks": tasks,
        "bitfit-export": {name: ours[name] for name in ("seconds", "peak memory (GB)")},
        "torch.onnx.export alone": {name: alone[name] for name in ("seconds", "peak memory (GB)")},
        "report": [line for line in ours["stderr"].splitlines() if line.startswith(("largest diff", "compiled in"))],
        "model files (MB)": round(sum(path.stat().st_size for path in out.glob("model.onnx*")) / 1e6, 1),
    }


def run_measured(command: list[str]) -> dict[str, Any]:
    """Run a command to its end: wall-clock seconds, peak resident memory, and what it said on stderr."""
    with tempfile.TemporaryFile() as log:
        started = time.monotonic()
        process = subprocess.Popen(command, stdout=subprocess.DEVNULL, stderr=log)
        _, status, usage = os.wait4(process.pid, 0)
        seconds = time.monotonic() - started
        log.seek(0)
        stderr = log.read().decode()
    if status:
        sys.exit(stderr)
    return {"seconds": round(seconds, 1), "peak memory (GB)": round(usage.ru_maxrss * 1024 / 1e9, 2), "stderr": stderr}


if __name__ == "__main__":
    main()
