"""What the benchmarks share: writing down what was measured, where, and with what."""

from __future__ import annotations

import os
import platform
from collections.abc import Mapping
from importlib.metadata import version
from pathlib import Path
from typing import Any

from bitfit_export.files import canonical_json, write_bytes

RESULTS = Path(__file__).resolve().parents[1] / "results" / "benchmarks"
_LIBRARIES = ("numpy", "onnxruntime", "torch", "transformers", "onnx")


def write_results(name: str, measured: Mapping[str, Any]) -> Path:
    """Write measurements to `results/benchmarks/<name>.json` with the machine and the versions."""
    RESULTS.mkdir(parents=True, exist_ok=True)
    path = RESULTS / f"{name}.json"
    machine = {"cores": os.cpu_count(), "processor": _processor(), "platform": platform.platform()}
    versions = {library: version(library) for library in _LIBRARIES} | {"python": platform.python_version()}
    write_bytes(path, canonical_json({"machine": machine, "versions": versions, "measured": dict(measured)}))
    return path


def _processor() -> str:
    """The processor's name as Linux gives it; elsewhere what Python knows."""
    try:
        lines = Path("/proc/cpuinfo").read_text().splitlines()
    except OSError:
        return platform.processor()
    return next((line.partition(":")[2].strip() for line in lines if line.startswith("model name")), "unknown")
