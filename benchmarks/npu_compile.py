"""What it takes to compile a model for Qualcomm's HTP: time, memory, and the size of the binary.

    python benchmarks/npu_compile.py --model mpnet-base [--precision fp16] [--run]

The task is made up, with random biases: none of a bundle's sizes depends on their values. With --run the engine answers
one text, and its logits are compared with PyTorch's.
"""

from __future__ import annotations

import argparse
import resource
import tempfile
import time
from pathlib import Path

import numpy as np
import torch

from bitfit_export.base_model.loading import BaseModel, load_base_model
from bitfit_export.bundle import read_manifest
from bitfit_export.compiler import CompileOptions, compile_bundle
from bitfit_export.compiler.options import default_options
from bitfit_export.delta import DeltaConfig, TaskDelta
from bitfit_export.reference.task_model import merged_model
from bitfit_export.runtime import BiasSession

TEXT = "The ferry was cancelled because of the storm."


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--model", required=True)
    parser.add_argument("--precision", default="fp16")
    parser.add_argument("--run", action="store_true")
    options = parser.parse_args()
    base = load_base_model(options.model)
    delta = random_delta(base)
    settings = CompileOptions(
        target="qnn", **default_options("qnn", options.precision) | {"precision": options.precision}
    )
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        started, cpu = time.perf_counter(), time.process_time()
        compile_bundle(base, {"random": delta}, folder, settings)
        took, cpu = time.perf_counter() - started, time.process_time() - cpu
        peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 2**20
        manifest = read_manifest(folder)
        record = manifest.accelerator
        assert record is not None
        size = manifest.files[record.binary].size
        row = (folder / manifest.tasks["random"].file).stat().st_size
        print(f"{base.source.name}, {options.precision}: {took:.0f} s ({cpu:.0f} s of CPU time), peak {peak:.1f} GiB")
        print(f"binary {size:,} bytes, {record.nodes} nodes on the HTP, 0 on the CPU; a row {row:,} bytes", flush=True)
        if options.run:
            compare(BiasSession(folder), base, delta)


def compare(session: BiasSession, base: BaseModel, delta: TaskDelta) -> None:
    encoded = session.encode(TEXT)
    started = time.perf_counter()
    found = session.run("random", **encoded)
    took = time.perf_counter() - started
    with torch.inference_mode():
        text = {name: torch.from_numpy(ids) for name, ids in encoded.items()}
        expected = merged_model(base, delta)(**text)["logits"].numpy()
    difference = float(np.abs(found - expected).max())
    print(f"one run {took:.0f} s on {session.device}; logits {expected[0]}, largest difference {difference:.4f}")


def random_delta(base: BaseModel) -> TaskDelta:
    """A task that changes every bias term at random, with a random head."""
    random, hidden = np.random.default_rng(0), int(base.module.config.hidden_size)
    config = DeltaConfig(
        base_model=base.source.name,
        base_revision=base.revision,
        base_digest=base.digest,
        task="random",
        problem_type="single_label",
        labels=("no", "yes"),
        bias_terms=tuple(base.biases),
        method="random",
        pooling="mean",
        max_length=128,
    )
    biases = {name: random.normal(0, 0.02, value.shape).astype(np.float32) for name, value in base.biases.items()}
    weight = random.normal(0, hidden**-0.5, (2, hidden)).astype(np.float32)
    return TaskDelta(config, biases, {"classifier.weight": weight, "classifier.bias": np.zeros(2, np.float32)})


if __name__ == "__main__":
    main()
