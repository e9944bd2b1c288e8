"""How near matrix products alone come to what one core can do: those of a BERT-base layer, in fp32 and in int8.

    python benchmarks/peak.py [--rows 128] [--rounds 30]

The peak is measured by peak.cpp, compiled for this machine: multiply-adds in registers. The products are ONNX Runtime's
MatMul and DynamicQuantizeMatMul; and for int8 the same by torch's own library, where it has one for this processor. All
of it on one thread, in turn. Writes results/benchmarks/peak.json.
"""

from __future__ import annotations

import json
import shutil
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import torch
from common import Results, make_parser, say
from onnx import TensorProto, helper, numpy_helper

from bitfit_export.baselines.timing import time_in_turn
from bitfit_export.errors import first_line

_SOURCE = Path(__file__).with_name("peak.cpp")
#: The products of one layer of BERT-base: inputs, outputs, and how many there are.
SHAPES = ((768, 768, 4), (768, 3072, 1), (3072, 768, 1))
_LAYERS = 12
_PEAK_RUNS = 10
_OPSET = 20


def main(words: Sequence[str] | None = None) -> None:
    parser = make_parser(__doc__)
    parser.add_argument("--rows", type=int, default=128, help="tokens in a batch (%(default)s)")
    parser.add_argument("--rounds", type=int, default=30)
    arguments = parser.parse_args(words)
    results = Results(arguments.results, "peak", {"rounds": arguments.rounds})
    name = f"{arguments.rows} rows"
    if name not in results.measured:
        results.measured[name] = measure(arguments.rows, arguments.rounds)
        say(json.dumps(results.measured[name], indent=2))
    print(results.save())


def measure(rows: int, rounds: int) -> dict[str, Any]:
    """GOP/s of each kind of product at each shape, and of the core; and the time of a whole model's products."""
    torch.set_num_threads(1)
    peak = measure_peak()
    measured: dict[str, Any] = {"peak (GOP/s)": peak, "products": {}}
    totals: dict[str, float] = {}
    for inputs, outputs, count in SHAPES:
        work = make_products(rows, inputs, outputs)
        times = time_in_turn(work, rounds=rounds, clock=time.process_time)
        operations = 2 * rows * inputs * outputs
        measured["products"][f"{inputs}x{outputs}"] = {
            name: {"us": times.median(name) * 1e6, "GOP/s": operations / times.median(name) / 1e9} for name in work
        }
        for name in work:
            totals[name] = totals.get(name, 0.0) + times.median(name) * count * _LAYERS
    operations = sum(2 * rows * inputs * outputs * count for inputs, outputs, count in SHAPES) * _LAYERS
    measured["all of BERT-base's"] = {
        name: {"ms": seconds * 1e3, "of peak": operations / seconds / 1e9 / peak[name.split(",")[0]]}
        for name, seconds in totals.items()
        if name.split(",")[0] in peak
    }
    return measured


def measure_peak() -> dict[str, float]:
    """What a core can do in `fp32` and `int8`, in 1e9 operations a second; empty without a compiler."""
    compiler = shutil.which("g++") or shutil.which("clang++")
    if compiler is None:
        say("no C++ compiler, so no peak")
        return {}
    with tempfile.TemporaryDirectory() as folder:
        program = f"{folder}/peak"
        command = [compiler, "-std=c++17", "-O2", "-march=native", str(_SOURCE), "-o", program]
        built = subprocess.run(command, capture_output=True, text=True)
        if built.returncode:
            sys.exit(built.stderr)
        # A core that another process of the host shares does less, and for longer than one run.
        runs = [subprocess.run([program], capture_output=True, text=True, check=True) for _ in range(_PEAK_RUNS)]
    found: list[dict[str, float]] = [json.loads(run.stdout) for run in runs]
    return {name: max(each[name] for each in found) for name in found[0]}


def make_products(rows: int, inputs: int, outputs: int) -> dict[str, Callable[[], object]]:
    """The same product by each kernel; the part of a name before the comma is its arithmetic."""
    random = np.random.default_rng(0)
    x = random.normal(0, 1, (rows, inputs)).astype(np.float32)
    weight = random.normal(0, 0.02, (inputs, outputs)).astype(np.float32)
    scale = (np.abs(weight).max(axis=0) / 127).astype(np.float32)
    integers = np.rint(weight / scale).astype(np.int8)
    plain = _session("MatMul", "", {"weight": weight}, rows)
    quantized = _session("DynamicQuantizeMatMul", "com.microsoft", {"weight": integers, "scale": scale}, rows)
    work: dict[str, Callable[[], object]] = {
        "fp32, ONNX Runtime": lambda: plain.run(None, {"x": x}),
        "int8, ONNX Runtime": lambda: quantized.run(None, {"x": x}),
    }
    try:
        product = _torch_int8(torch.from_numpy(x), torch.from_numpy(weight))
        product()
        work["int8, torch"] = product
    except RuntimeError as error:  # no library for this processor
        say(f"int8 by torch: {first_line(error)}")
    return work


def _session(op: str, domain: str, constants: dict[str, np.ndarray], rows: int) -> Any:
    import onnxruntime as ort

    inputs, outputs = constants["weight"].shape
    graph = helper.make_graph(
        [helper.make_node(op, ["x", *constants], ["y"], domain=domain)],
        "product",
        [helper.make_tensor_value_info("x", TensorProto.FLOAT, [rows, inputs])],
        [helper.make_tensor_value_info("y", TensorProto.FLOAT, [rows, outputs])],
        [numpy_helper.from_array(values, name) for name, values in constants.items()],
    )
    opsets = [helper.make_opsetid("", _OPSET), helper.make_opsetid("com.microsoft", 1)]
    model: onnx.ModelProto = helper.make_model(graph, opset_imports=opsets, ir_version=10)
    options = ort.SessionOptions()
    options.intra_op_num_threads = 1
    return ort.InferenceSession(model.SerializeToString(), options, providers=["CPUExecutionProvider"])


def _torch_int8(x: torch.Tensor, weight: torch.Tensor) -> Callable[[], object]:
    """A linear layer with int8 weights and a range of activations measured in each run, as torch quantises one."""
    scale = weight.abs().amax(0).div(127).double()
    by_output = weight.T.contiguous()
    quantized = torch.quantize_per_channel(by_output, scale, torch.zeros_like(scale).long(), 0, torch.qint8)
    packed = torch.ops.quantized.linear_prepack(quantized, None)
    return lambda: torch.ops.quantized.linear_dynamic(x, packed)


if __name__ == "__main__":
    main()
