"""Time a bundle beside the stock single-task model: the same fine-tuned model, its biases constant, exported as usual.

Everything is called in turn on the same ids, so a machine that slows down slows down all of it: trust the ratios.
"""

from __future__ import annotations

import functools
import statistics
import tempfile
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from bitfit_export.base_models import BaseModel
from bitfit_export.delta import TaskDelta
from bitfit_export.quiet import quiet_exporters
from bitfit_export.runtime import BiasSession

__all__ = ["SHAPES", "ShapeTimes", "bench_bundle", "time_in_turn"]

#: Batch and sequence.
SHAPES = ((1, 16), (1, 128), (8, 16), (8, 128))
_WARM_UP = 3


@dataclass(frozen=True)
class ShapeTimes:
    """Median seconds of a run at one shape.

    Attributes:
        stock: the single-task model, by the exporter that made it.
        single: the bundle, one task for the whole batch.
        mixed: the bundle, another task in each row.
    """

    batch: int
    sequence: int
    stock: Mapping[str, float]
    single: float
    mixed: float

    @property
    def fastest_stock(self) -> float:
        """What the bundle is compared with."""
        return min(self.stock.values())


def time_in_turn(work: Mapping[str, Callable[[], object]], *, rounds: int) -> dict[str, float]:
    """Median seconds of each callable, all of them called in turn, after some rounds that do not count."""
    seconds: dict[str, list[float]] = {name: [] for name in work}
    for number in range(rounds + _WARM_UP):
        for name, call in work.items():
            started = time.perf_counter()
            call()
            if number >= _WARM_UP:
                seconds[name].append(time.perf_counter() - started)
    return {name: statistics.median(values) for name, values in seconds.items()}


def bench_bundle(
    bundle: Path,
    base: BaseModel,
    task: str,
    delta: TaskDelta,
    *,
    threads: int = 1,
    rounds: int = 30,
    shapes: Sequence[tuple[int, int]] = SHAPES,
) -> Iterator[ShapeTimes]:
    """Time the bundle and three stock exports of one of its tasks, shape by shape.

    Args:
        task: the task that the stock models run, and the bundle in its single-task runs.
        delta: that task's.
    """
    session = BiasSession(bundle, threads=threads)
    with tempfile.TemporaryDirectory() as folder:
        exported = export_stock(base, delta, Path(folder))
        stock = {name: _open_session(path, threads) for name, path in exported.items()}
        for batch, sequence in shapes:
            feeds = _random_ids(base, batch, sequence)
            mixed = [session.tasks[row % len(session.tasks)] for row in range(batch)]
            work: dict[str, Callable[[], object]] = {
                name: functools.partial(each.run, None, feeds) for name, each in stock.items()
            }
            work["single"] = functools.partial(session.run, task, **feeds)
            work["mixed"] = functools.partial(session.run, mixed, **feeds)
            seconds = time_in_turn(work, rounds=rounds)
            times = {name: seconds[name] for name in stock}
            yield ShapeTimes(batch, sequence, times, seconds["single"], seconds["mixed"])


def export_stock(base: BaseModel, delta: TaskDelta, folder: Path) -> dict[str, Path]:
    """Export the task's model with its biases as constants, by the ways that a user has; name -> ONNX file.

    transformers' exporter takes the bare encoder alone. The head that its models lack makes them a little faster than
    they would be, never slower.
    """
    import onnx_ir
    import torch
    from transformers.exporters.exporter_onnx import OnnxConfig, OnnxExporter

    from bitfit_export.task_model import merged_model

    model = merged_model(base, delta)
    feeds = {name: torch.from_numpy(value) for name, value in _random_ids(base, 2, 7).items()}
    axes = {0: torch.export.Dim("batch"), 1: torch.export.Dim("sequence", max=base.max_positions)}
    paths: dict[str, Path] = {}
    with quiet_exporters():
        for name, fusions in (("transformers", None), ("transformers, fused", "cpu")):
            config = OnnxConfig(dynamic=True, dynamic_shapes=dict.fromkeys(feeds, axes), ort_fusions=fusions)
            program = OnnxExporter().export(model.base, dict(feeds), config=config).program
            paths[name] = folder / f"{'fused' if fusions else 'plain'}.onnx"
            onnx_ir.save(program, paths[name], external_data=f"{paths[name].name}.data")
        paths["torch"] = folder / "torch.onnx"
        torch.onnx.export(
            model,
            kwargs=feeds,
            f=str(paths["torch"]),
            input_names=list(feeds),
            output_names=["logits"],
            dynamic_shapes=dict.fromkeys(feeds, axes),
            dynamo=True,
            verbose=False,
        )
    return paths


def _random_ids(base: BaseModel, batch: int, sequence: int) -> dict[str, np.ndarray]:
    """Random ids without padding: everything then has the same work to do."""
    ids = np.random.default_rng(0).integers(0, base.module.config.vocab_size, (batch, sequence))
    feeds = {"input_ids": ids, "attention_mask": np.ones_like(ids), "token_type_ids": np.zeros_like(ids)}
    return {name: value for name, value in feeds.items() if name in base.tokenizer.model_input_names}


def _open_session(path: Path, threads: int) -> Any:
    import onnxruntime as ort

    options = ort.SessionOptions()
    options.intra_op_num_threads = threads
    options.log_severity_level = 3
    return ort.InferenceSession(path, options, providers=["CPUExecutionProvider"])
