"""A bundle's model as a raw ONNX Runtime session: what the engine takes, and nothing of the runtime around it."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import TypeAlias

import onnxruntime as ort
from traffic import Ids

from bitfit_export.bundle import read_manifest, read_row, row_file
from bitfit_export.runtime.tasks.bias_table import BiasTable

__all__ = ["Raw", "open_raw"]

#: Prepares a run of the tasks of these items on these text inputs.
Raw: TypeAlias = Callable[[list[str], Ids], Callable[[], object]]


def open_raw(folder: Path, threads: int) -> Raw:
    """The model of a bundle as the runtime opens it, its table filled, and nothing of the runtime around a run."""
    manifest = read_manifest(folder)
    options = ort.SessionOptions()
    options.intra_op_num_threads = threads
    options.graph_optimization_level = ort.GraphOptimizationLevel.ORT_DISABLE_ALL  # the compiler has optimised it
    options.log_severity_level = 3
    session = ort.InferenceSession(folder / manifest.infer.file, options, providers=["CPUExecutionProvider"])
    rows = [read_row(folder / row_file(task), layout=manifest.layout) for task in manifest.tasks]
    table = BiasTable(manifest.layout, dict, rows=len(rows), labels=max(row.labels for row in rows))
    for row in rows:
        table.add(row)

    def prepare_run(tasks: list[str], ids: Ids) -> Callable[[], object]:
        with table.lease(tasks) as lease:
            feeds = lease.feeds()
        # Arrays that are read where they are, as the sessions that this is compared with get theirs.
        arrays = {**feeds.bound, **feeds.arrays, **ids}
        return lambda: session.run(["logits"], arrays)

    return prepare_run
