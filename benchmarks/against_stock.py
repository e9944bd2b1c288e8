"""The bundle beside the stock single-task model: the same fine-tuned model with constant biases, exported as usual.

    python benchmarks/against_stock.py [--model minilm-l6] [--task sst2]

Three stock exports are made: transformers' exporter, transformers' exporter with its ONNX Runtime fusions, and
torch.onnx.export. The fastest one at each shape is "stock". Writes results/benchmarks/against_stock-<model>.json.
"""

from __future__ import annotations

import argparse
import contextlib
import functools
import io
import logging
import sys
import tempfile
import warnings
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import onnxruntime as ort
import torch
from common import time_in_turn, write_results

from bitfit_export.base_models import BaseModel, load_base_model
from bitfit_export.compiler import compile_bundle
from bitfit_export.delta import TaskDelta
from bitfit_export.delta_store import find_deltas, load_deltas
from bitfit_export.runtime import BiasSession
from bitfit_export.task_model import TaskModel, merged_model

SHAPES = ((1, 16), (1, 128), (8, 16), (8, 128))


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
    with tempfile.TemporaryDirectory() as folder:
        measured = measure(base, deltas, Path(folder), arguments.threads, arguments.rounds)
    print(write_results(f"against_stock-{base.source.short_name}", measured))


def measure(base: BaseModel, deltas: dict[str, TaskDelta], folder: Path, threads: int, rounds: int) -> dict[str, Any]:
    """Milliseconds at each shape, and ratios to the fastest stock model."""
    bundle = folder / "bundle"
    bundle.mkdir()
    compile_bundle(base, deltas, bundle)
    task, delta = next(iter(deltas.items()))
    sessions = {name: open_session(path, threads) for name, path in export_stock(base, delta, folder).items()}
    session = BiasSession(bundle, threads=threads)
    figures: dict[str, Any] = {"task": task, "tasks": len(deltas), "threads": threads, "rounds": rounds, "shapes": {}}
    for rows, length in SHAPES:
        seconds = time_shape(sessions, session, task, list(deltas), make_feeds(base, rows, length), rounds)
        stock = min(seconds[name] for name in sessions)
        shape = {name: {"ms": value * 1e3, "of stock": value / stock} for name, value in seconds.items()}
        figures["shapes"][f"{rows}x{length}"] = shape
        shown = ", ".join(f"{name} {each['ms']:.2f} ms ({each['of stock']:.2f})" for name, each in shape.items())
        print(f"batch {rows}, sequence {length}: {shown}", file=sys.stderr)
    return figures


def time_shape(
    stock: dict[str, ort.InferenceSession],
    bundle: BiasSession,
    task: str,
    tasks: list[str],
    feeds: dict[str, np.ndarray],
    rounds: int,
) -> dict[str, float]:
    """Median seconds of every stock model and of the bundle, in turn, on the same ids."""
    mixed = [tasks[number % len(tasks)] for number in range(len(feeds["input_ids"]))]
    work: dict[str, Callable[[], object]] = {
        name: functools.partial(each.run, None, feeds) for name, each in stock.items()
    }
    work["bundle, one task"] = functools.partial(bundle.run, task, **feeds)
    work["bundle, mixed"] = functools.partial(bundle.run, mixed, **feeds)
    return time_in_turn(work, rounds=rounds)


def make_feeds(base: BaseModel, rows: int, length: int) -> dict[str, np.ndarray]:
    """Random ids without padding: every implementation then has the same work to do."""
    random = np.random.default_rng(0)
    ids = random.integers(1000, base.module.config.vocab_size, (rows, length))
    return {"input_ids": ids, "attention_mask": np.ones_like(ids), "token_type_ids": np.zeros_like(ids)}


class _Logits(torch.nn.Module):
    """The task's model with a plain tensor as its output, as exporters like it."""

    def __init__(self, model: TaskModel) -> None:
        super().__init__()
        self.model = model

    def forward(
        self, input_ids: torch.Tensor, attention_mask: torch.Tensor, token_type_ids: torch.Tensor
    ) -> torch.Tensor:
        logits: torch.Tensor = self.model(input_ids, attention_mask, token_type_ids)["logits"]
        return logits


def export_stock(base: BaseModel, delta: TaskDelta, folder: Path) -> dict[str, Path]:
    """The single-task models; a task that reads the pooler is exported as transformers' own class by the first two."""
    import onnx_ir
    from transformers.exporters.exporter_onnx import OnnxConfig, OnnxExporter

    model = merged_model(base, delta)
    feeds = {name: torch.from_numpy(value) for name, value in make_feeds(base, 2, 7).items()}
    axes = {0: torch.export.Dim("batch"), 1: torch.export.Dim("sequence", max=base.max_positions)}
    paths: dict[str, Path] = {}
    logging.disable(logging.ERROR)
    with warnings.catch_warnings(), contextlib.redirect_stdout(io.StringIO()):
        warnings.simplefilter("ignore")
        for name, fusions in (("transformers", None), ("transformers, fused", "cpu")):
            config = OnnxConfig(dynamic=True, dynamic_shapes=dict.fromkeys(feeds, axes), ort_fusions=fusions)
            paths[name] = folder / f"{'fused' if fusions else 'plain'}.onnx"
            # The bare encoder: transformers' exporter takes its own classes only. The head that is missing here
            # makes the stock model faster by a little, never slower.
            program = OnnxExporter().export(model.base, dict(feeds), config=config).program
            onnx_ir.save(program, paths[name], external_data=f"{paths[name].name}.data")
        paths["torch"] = folder / "torch.onnx"
        torch.onnx.export(
            _Logits(model).eval(),
            tuple(feeds.values()),
            str(paths["torch"]),
            input_names=list(feeds),
            output_names=["logits"],
            dynamic_shapes=tuple(axes for _ in feeds),
            dynamo=True,
            verbose=False,
        )
    logging.disable(logging.NOTSET)
    return paths


def open_session(path: Path, threads: int) -> ort.InferenceSession:
    options = ort.SessionOptions()
    options.intra_op_num_threads = threads
    options.log_severity_level = 3
    return ort.InferenceSession(path, options, providers=["CPUExecutionProvider"])


if __name__ == "__main__":
    main()
