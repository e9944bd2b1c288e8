"""What a bundle of `--target qnn --keep-onnx` answers on whole dev sets, by its graph in ONNX Runtime's CPU kernels.

    python benchmarks/npu_accuracy.py BUNDLE --data glue/ [--tasks rte,cola] [--on-engine 2]

The engine may be an emulator that takes seconds per run, so it runs a sample of each task alone, and the largest
difference of a logit says whether both compute the same. "lost" is against the metric that the delta's own training
measured in float32. Metrics are percentages.
"""

from __future__ import annotations

import argparse
from collections.abc import Sequence
from pathlib import Path

import numpy as np
import onnxruntime as ort

from bitfit_export.bundle import read_row
from bitfit_export.bundle.row_arrays import integer_biases, row_arrays
from bitfit_export.runtime import BiasSession
from bitfit_export.training import metrics
from bitfit_export.training.data import load_task_data


def main(words: Sequence[str] | None = None) -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("bundle", type=Path)
    parser.add_argument("--data", type=Path, required=True, help="a folder with a folder of data for each task")
    parser.add_argument("--tasks", help="by default all of the bundle's")
    parser.add_argument("--on-engine", type=int, default=2, help="texts of each task to run on the engine too")
    options = parser.parse_args(words)
    session = BiasSession(options.bundle)
    record = session.manifest.accelerator
    if record is None or record.source is None:
        parser.error(f"{options.bundle} was not exported with --target qnn --keep-onnx")
    source = ort.InferenceSession(str(options.bundle / record.source), providers=["CPUExecutionProvider"])
    print(f"{session.manifest.precision}, engine: {session.device}")
    for task in options.tasks.split(",") if options.tasks else session.tasks:
        print(f"{task}: {compare(session, source, options.bundle, task, options.data, options.on_engine)}", flush=True)


def compare(
    session: BiasSession, source: ort.InferenceSession, bundle: Path, task: str, folder: Path, on_engine: int
) -> str:
    """The task's metric on its dev set, what it lost, and the difference to the engine on the first texts."""
    record, data = session.manifest.tasks[task], load_task_data(task, data=folder)
    feeds, logits, difference = feeds_of(session, bundle, task), [], 0.0
    for number, text in enumerate(data.validation.texts):
        encoded = session.encode([text[0] if len(text) == 1 else (text[0], text[1])], truncate=True)
        (found,) = source.run(["logits"], feeds | padded(session, encoded))
        logits.append(found[0, : record.label_count])
        if number < on_engine:
            difference = max(difference, float(np.abs(session.run(task, **encoded)[0] - logits[-1]).max()))
    values, name = np.array(logits), data.spec.metrics[0]
    predictions = values[:, 0] if record.problem_type == "regression" else values.argmax(-1)
    found = 100 * metrics.compute([name], record.problem_type, predictions, data.validation.labels)[name]
    return (
        f"{name} {found:.2f} of {len(values)} examples, lost {100 * record.metrics[name] - found:.2f}; "
        f"largest difference of a logit to the engine {difference:.4f} on {min(on_engine, len(values))} texts"
    )


def feeds_of(session: BiasSession, bundle: Path, task: str) -> dict[str, np.ndarray]:
    """What a task's row is to the graph."""
    manifest = session.manifest
    row = read_row(bundle / manifest.tasks[task].file, layout=manifest.layout)
    labels = max(each.label_count for each in manifest.tasks.values())
    arrays = row_arrays(row, manifest.layout, manifest.layout_kind, labels=labels)
    integer_biases(arrays, manifest.quantization.bias_scales)
    return dict(arrays)


def padded(session: BiasSession, text: dict[str, np.ndarray]) -> dict[str, np.ndarray]:
    """The text inputs at the length of the graph."""
    shape = session.manifest.static_shape
    assert shape is not None
    return {name: np.pad(ids, ((0, 0), (0, shape[1] - ids.shape[1]))) for name, ids in text.items()}


if __name__ == "__main__":
    main()
