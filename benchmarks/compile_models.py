"""Compiling a model with eight tasks beside torch.onnx.export of the same encoder alone, and the size of a row.

    python benchmarks/compile_models.py [--models bert-base,bert-large] [--rounds 2]

Both run in turn as commands, each in a process of its own. `bitfit-export` verifies what it has compiled, which is
counted apart. The row is one of fp16 values, with a head of two labels. Writes results/benchmarks/compile_models.json.
"""

from __future__ import annotations

import re
import statistics
import sys
import tempfile
from collections.abc import Sequence
from typing import Any

from common import Results, make_parser, say
from models import TASKS, Workbench, prepare
from processes import run_measured

from bitfit_export.bundle import encode_row
from bitfit_export.compiler import CompileOptions, compile_model

_OURS = "from bitfit_export.cli import main_export; raise SystemExit(main_export())"
_ALONE = """
import sys, torch, transformers
model = transformers.AutoModel.from_pretrained(sys.argv[1]).eval()
ids = torch.arange(14).reshape(2, 7)
axes = {0: torch.export.Dim("batch"), 1: torch.export.Dim("sequence", max=512)}
torch.onnx.export(model, (ids, torch.ones_like(ids)), sys.argv[2], dynamic_shapes=(axes, axes), dynamo=True)
"""
_VERIFIED = re.compile(r"verified in ([0-9.]+) s")


def main(words: Sequence[str] | None = None) -> None:
    parser = make_parser(__doc__)
    parser.add_argument("--models", default="bert-base", help="random ones, see models.py (%(default)s)")
    parser.add_argument("--rounds", type=int, default=2)
    arguments = parser.parse_args(words)
    results = Results(arguments.results, "compile_models", {"tasks": TASKS, "rounds": arguments.rounds})
    for name in arguments.models.split(","):
        if name not in results.measured:
            bench = prepare(name, arguments.scratch)
            row = row_size(bench)
            results.measured[name] = measure(bench, arguments.rounds) | {"fp16 row (bytes)": row}
            results.save()
            say(f"{name}: {results.measured[name]}")
    print(results.save())


def measure(bench: Workbench, rounds: int) -> dict[str, Any]:
    """Seconds and peak memory of bitfit-export, and of torch.onnx.export alone."""
    ours, alone, verifying = [], [], []
    for _ in range(rounds):
        with tempfile.TemporaryDirectory() as folder:
            words = ["--model", bench.location, "--deltas", str(bench.folder / "deltas"), "--output", f"{folder}/out"]
            tasks = ",".join(bench.deltas)
            ours.append(run_measured(_OURS, *words, "--tasks", tasks))
            alone.append(run_measured(_ALONE, bench.location, f"{folder}/alone.onnx"))
        verifying.append(_seconds_verifying(ours[-1].stderr))
    compiling = [one.seconds - less for one, less in zip(ours, verifying, strict=True)]
    return {
        "compiling (s)": statistics.median(compiling),
        "verifying (s)": statistics.median(verifying),
        "peak memory (GB)": max(each.peak for each in ours),
        "torch.onnx.export alone (s)": statistics.median(each.seconds for each in alone),
        "torch.onnx.export alone, peak memory (GB)": max(each.peak for each in alone),
        "compiling / alone": statistics.median(a / b.seconds for a, b in zip(compiling, alone, strict=True)),
        "with verifying / alone": statistics.median(a.seconds / b.seconds for a, b in zip(ours, alone, strict=True)),
    }


def row_size(bench: Workbench) -> int:
    """Bytes of a task's row file with fp16 values."""
    compiled = compile_model(bench.base, bench.deltas, CompileOptions(row_dtype="fp16"))
    return len(encode_row(compiled.packer.pack(bench.deltas[bench.task], task=bench.task)))


def _seconds_verifying(stderr: str) -> float:
    found = _VERIFIED.search(stderr)
    if found is None:
        sys.exit(f"bitfit-export does not say how long it verified:\n{stderr}")
    return float(found[1])


if __name__ == "__main__":
    main()
