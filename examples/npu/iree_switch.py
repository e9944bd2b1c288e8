"""Compile a bundle with IREE into one file with the weights inside, and run tasks by feeding their vectors.

    python examples/npu/iree_switch.py BUNDLE TEXT [--output model.vmfb] [--triple aarch64-linux-gnu]

BUNDLE comes from `bitfit-export --target portable --layout packed --static-shape 1,S`. A file for another processor is
written, and not run.
"""

from __future__ import annotations

import argparse
import platform
import subprocess
import sys
import tempfile
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


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("bundle", type=Path)
    parser.add_argument("text", metavar="TEXT")
    parser.add_argument("--output", type=Path, default=Path("model.vmfb"))
    parser.add_argument("--triple", default=OWN_TRIPLE, help="of the processor to compile for (%(default)s)")
    options = parser.parse_args()
    session = BiasSession(options.bundle)
    manifest = session.manifest
    if manifest.layout_kind != "packed" or manifest.static_shape is None:
        parser.error(f"{options.bundle} was not exported with --layout packed --static-shape")
    module = compile_module(options.bundle / manifest.infer.file, options.triple)
    options.output.write_bytes(module)
    print(f"fixed: {options.output}, {len(module):,} bytes")
    if options.triple != OWN_TRIPLE:
        return
    function: Any = iree.runtime.load_vm_flatbuffer(module, driver="local-task")["main_graph"]
    longest = manifest.static_shape[1]
    text = session.encode(options.text, truncate=True, max_length=longest)
    text = {name: np.pad(ids, ((0, 0), (0, longest - ids.shape[1]))) for name, ids in text.items()}
    for task, record in manifest.tasks.items():
        feeds = text | feeds_of(options.bundle, task, session)
        logits = function(*[feeds[name] for name in manifest.infer.input_names]).to_host()
        print(task, *(f"{value:.4f}" for value in logits[0, : record.label_count]))


if __name__ == "__main__":
    main()
