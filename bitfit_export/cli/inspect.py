"""Show what is in a bundle, a bias row or a task delta.

example: bitfit inspect bundles/minilm-l6
         bitfit inspect bundles/minilm-l6/tasks/rte.bias --json
         bitfit inspect deltas/minilm-l6/rte --plot rte.png
"""

from __future__ import annotations

import argparse
import os
from pathlib import Path
from typing import Any

from bitfit_export.bundle import MANIFEST_FILE, Manifest, check_files, read_manifest, read_recorded_row, read_row
from bitfit_export.cli.streams import json_text, say
from bitfit_export.cli.text_tables import size_text
from bitfit_export.delta import CONFIG_FILE, TaskDelta
from bitfit_export.delta.change_plot import PLOT_FORMATS, draw_change, mean_absolute_change
from bitfit_export.errors import OutputError, UsageError, shown
from bitfit_export.files import write_bytes
from bitfit_export.files.outputs import refuse_overlap


def add_arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("path", type=Path, metavar="PATH", help="a bundle, a .bias file or a delta's folder")
    parser.add_argument("--json", action="store_true", help="one JSON object on stdout")
    parser.add_argument(
        "--plot", type=Path, metavar="FILE", help="plot how much each bias term of a delta changed, as .png or .svg"
    )
    parser.add_argument("--overwrite", action="store_true", help="replace the plot if it exists")


def run(options: argparse.Namespace) -> int:
    if options.plot is not None:
        plot_delta(options.path, options.plot, overwrite=options.overwrite)
        say(f"wrote {options.plot}")
    description = describe(options.path)
    if options.json:
        print(json_text(description, indent=2, sort_keys=True))
    else:
        _print(description)
    return 0


def plot_delta(path: Path, plot: Path, *, overwrite: bool = False) -> None:
    """Draw the delta at `path` into the file `plot`, in the format that its name ends with.

    Raises:
        UsageError: no delta, or another ending than .png and .svg.
        OutputError: the file exists, is in the delta's folder, or cannot be written.
        MissingExtraError: matplotlib is not installed.
    """
    kind = plot.suffix.removeprefix(".").lower()
    if kind not in PLOT_FORMATS:
        raise UsageError(f"--plot {plot} ends with {plot.suffix!r}, expected .png or .svg")
    if os.path.lexists(plot) and not overwrite:
        raise OutputError(
            f"the plot {plot} exists already, expected a new name",
            hint="choose another --plot, or pass --overwrite to replace it",
        )
    if not (path / CONFIG_FILE).is_file():
        raise UsageError(
            f"{path} is not a delta, and only a delta can be plotted: it has no {CONFIG_FILE}",
            hint="pass the folder that bitfit-train wrote, for example deltas/minilm-l6/rte",
        )
    refuse_overlap(plot, [path])
    write_bytes(plot, draw_change(TaskDelta.load(path), kind))


def describe(path: Path) -> dict[str, Any]:
    """Returns what is at `path`, checked completely, as plain values.

    Raises:
        UsageError: neither a bundle, nor a row, nor a delta.
        BundleError, RowError, DeltaError: one that is damaged.
    """
    if (path / MANIFEST_FILE).is_file():
        return _describe_bundle(path)
    if (path / CONFIG_FILE).is_file():
        return _describe_delta(path)
    if path.is_file():
        return _describe_row(path)
    raise UsageError(
        f"{path} is not a bundle, row or delta",
        hint=f"expected a folder with {MANIFEST_FILE} or {CONFIG_FILE}, or a file",
    )


def _describe_bundle(path: Path) -> dict[str, Any]:
    manifest = read_manifest(path)
    check_files(path, manifest, hash_files=True)
    rows = {name: read_recorded_row(path, manifest, task) for name, task in manifest.tasks.items()}
    return {
        "kind": "bundle",
        "base": manifest.base.name,
        "base digest": manifest.base.digest,
        "layout": manifest.layout_kind,
        "layout digest": manifest.layout.digest,
        "target": manifest.target,
        "precision": manifest.precision,
        "opset": manifest.opset,
        "inputs": list(manifest.infer.input_names),
        "outputs": list(manifest.infer.output_names),
        "poolings": list(manifest.layout.poolings),
        "longest sequence": manifest.max_positions,
        "bias terms": len(manifest.layout.biases),
        "bias values a row": manifest.layout.bias_count,
        "model size": sum(record.size for record in manifest.files.values()),
        **_describe_accelerator(manifest),
        "tasks": {
            name: {
                "problem type": task.problem_type,
                "labels": list(task.labels),
                "version": task.task_version,
                "metrics": task.metrics,
                "row size": rows[name].file_size,
                "head values": sum(tensor.size for tensor in rows[name].head),
            }
            for name, task in manifest.tasks.items()
        },
    }


def _describe_accelerator(manifest: Manifest) -> dict[str, Any]:
    """What was compiled ahead of time, and for what; nothing where that is nothing."""
    record = manifest.accelerator
    if record is None:
        return {}
    return {
        "binary": record.binary,
        "binary size": manifest.files[record.binary].size,
        "chip": f"{record.soc} (soc_model {record.soc_model})",
        "HTP arch": record.arch,
        "QNN SDK": record.sdk,
        "nodes on the NPU": record.nodes,
        "nodes on the CPU": 0,
    }


def _describe_row(path: Path) -> dict[str, Any]:
    row = read_row(path)
    return {
        "kind": "bias row",
        "task": row.task,
        "problem type": row.problem_type,
        "labels": row.labels,
        "version": row.task_version,
        "layout digest": row.layout_digest,
        "dtype": str(row.biases.dtype),
        "bias values": row.biases.size,
        "head shapes": [list(tensor.shape) for tensor in row.head],
        "size": row.file_size,
    }


def _describe_delta(path: Path) -> dict[str, Any]:
    delta = TaskDelta.load(path)
    config = delta.config
    return {
        "kind": "task delta",
        "task": config.task,
        "problem type": config.problem_type,
        "labels": list(config.labels),
        "base": config.base_model,
        "base digest": config.base_digest,
        "method": config.method,
        "pooling": config.pooling,
        "activation": config.activation,
        "metrics": config.metrics,
        "bias values": sum(value.size for value in delta.biases.values()),
        "head shapes": {name: list(value.shape) for name, value in sorted(delta.head.items())},
        "mean absolute change": mean_absolute_change(delta),
    }


def _print(description: dict[str, Any]) -> None:
    for key, value in description.items():
        if not isinstance(value, dict):
            print(f"{key}: {_text(key, value)}")
            continue
        print(f"{key}:")
        for name, inner in value.items():
            print(f"  {shown(name)}: {_text(name, inner)}")


def _text(key: str, value: Any) -> str:
    if key.endswith("size") and isinstance(value, int):
        return size_text(value)
    if isinstance(value, float):
        return f"{value:.3g}"
    if isinstance(value, dict):
        return ", ".join(f"{shown(name)} {_text(name, inner)}" for name, inner in value.items())
    if isinstance(value, list):
        return ", ".join(shown(str(each)) for each in value) or "none"
    return shown(str(value))
