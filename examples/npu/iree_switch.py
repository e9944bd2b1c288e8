"""Compile a bundle with IREE into one file with the weights inside, and run tasks by feeding their vectors.

    python examples/npu/iree_switch.py BUNDLE TEXT [--output model.vmfb] [--triple aarch64-linux-gnu [--runner COMMAND]]

BUNDLE comes from `bitfit-export --target portable --layout packed --static-shape 1,S`. A file for another processor is
run by COMMAND, and without it only written. COMMAND is IREE's iree-run-module of that processor, and what starts it
here: "qemu-aarch64 -L /usr/aarch64-linux-gnu iree-run-module".
"""

from __future__ import annotations

import argparse
import platform
import shlex
import subprocess
import sys
import tempfile
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import iree.compiler
import iree.runtime
import numpy as np
import onnx

from bitfit_export.bundle import read_row
from bitfit_export.bundle.row_arrays import row_arrays
from bitfit_export.runtime import BiasSession

OWN_TRIPLE = f"{platform.machine()}-linux-gnu"


def compile_module(model: Path, triple: str) -> bytes:
    """A module of IREE's virtual machine: weights are in it, biases and head are arguments of its function."""
    with tempfile.TemporaryDirectory() as folder:
        whole, imported = Path(folder, "model.onnx"), Path(folder, "model.mlir")
        onnx.save(onnx.load(str(model)), str(whole))  # the weights go into the model's own file
        importer = [sys.executable, "-m", "iree.compiler.tools.import_onnx", str(whole), "-o", str(imported)]
        subprocess.run(importer, check=True, capture_output=True)
        module: bytes = iree.compiler.compile_file(
            str(imported),
            target_backends=["llvm-cpu"],
            input_type="onnx",
            extra_args=[f"--iree-llvmcpu-target-triple={triple}", "--iree-llvmcpu-target-cpu=generic"],
        )
    return module


def feeds_of(bundle: Path, task: str, session: BiasSession) -> dict[str, np.ndarray]:
    """A task's bias vector and head, by the names of the graph's inputs."""
    manifest = session.manifest
    labels = max(each.label_count for each in manifest.tasks.values())
    row = read_row(bundle / manifest.tasks[task].file, layout=manifest.layout)
    return dict(row_arrays(row, manifest.layout, manifest.layout_kind, labels=labels))


def run_by_command(command: str, module: Path, arrays: Sequence[np.ndarray]) -> np.ndarray:
    """What the module's function returns, by a program that reads and writes arrays as files."""
    with tempfile.TemporaryDirectory() as folder:
        paths = [Path(folder, f"{place}.npy") for place in range(len(arrays))]
        for path, array in zip(paths, arrays, strict=True):
            np.save(path, array)
        words = [f"--module={module}", "--device=local-task", "--function=main_graph"]
        words += [*(f"--input=@{path}" for path in paths), f"--output=@{folder}/logits.npy"]
        subprocess.run([*shlex.split(command), *words], check=True, stdout=subprocess.DEVNULL)
        logits: np.ndarray = np.load(f"{folder}/logits.npy")
    return logits


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("bundle", type=Path)
    parser.add_argument("text", metavar="TEXT")
    parser.add_argument("--output", type=Path, default=Path("model.vmfb"))
    parser.add_argument("--triple", default=OWN_TRIPLE, help="of the processor to compile for (%(default)s)")
    parser.add_argument("--runner", metavar="COMMAND", help="runs a module for another processor")
    options = parser.parse_args()
    session = BiasSession(options.bundle)
    manifest = session.manifest
    if manifest.layout_kind != "packed" or manifest.static_shape is None:
        parser.error(f"{options.bundle} was not exported with --layout packed --static-shape")
    module = compile_module(options.bundle / manifest.infer.file, options.triple)
    options.output.write_bytes(module)
    print(f"fixed: {options.output}, {len(module):,} bytes")
    if options.triple != OWN_TRIPLE and options.runner is None:
        return
    function: Any = None
    if options.runner is None:
        function = iree.runtime.load_vm_flatbuffer(module, driver="local-task")["main_graph"]
    longest = manifest.static_shape[1]
    text = session.encode(options.text, truncate=True, max_length=longest)
    text = {name: np.pad(ids, ((0, 0), (0, longest - ids.shape[1]))) for name, ids in text.items()}
    for task, record in manifest.tasks.items():
        feeds = text | feeds_of(options.bundle, task, session)
        arrays = [feeds[name] for name in manifest.infer.input_names]
        logits = (
            run_by_command(options.runner, options.output, arrays) if options.runner else function(*arrays).to_host()
        )
        print(task, *(f"{value:.4f}" for value in logits[0, : record.label_count]))


if __name__ == "__main__":
    main()
