"""What the benchmarks share: their options, and files of results that say where and with what they were measured.

A script that is run again resumes where it stopped: what its file has already is not measured again, unless the
machine, a library, the compiler's or the runtime's code, or the script's settings are others.
"""

from __future__ import annotations

import argparse
import functools
import hashlib
import json
import os
import platform
import sys
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from importlib.metadata import version
from pathlib import Path
from typing import Any

import bitfit_export
from bitfit_export.files import canonical_json, write_bytes

__all__ = ["RESULTS", "Clock", "Results", "clock_for", "code_digest", "make_parser", "processor", "say"]

_ROOT = Path(__file__).resolve().parents[1]
RESULTS = _ROOT / "results" / "benchmarks"
#: Models and bundles, a few gigabytes. They are kept for the next script, and may be deleted.
_SCRATCH = _ROOT / "demo" / "benchmarks"
_LIBRARIES = ("numpy", "onnxruntime", "torch", "transformers", "onnx")
_CPUINFO = Path("/proc/cpuinfo")
#: Instruction sets by which kernels differ: Linux' word -> its usual name.
_INSTRUCTIONS = {
    "avx2": "AVX2",
    "avx_vnni": "AVX-VNNI",
    "avx512f": "AVX-512",
    "avx512_vnni": "AVX-512 VNNI",
    "avx512_bf16": "AVX-512 BF16",
    "avx512_fp16": "AVX-512 FP16",
    "amx_int8": "AMX INT8",
    "amx_bf16": "AMX BF16",
    "asimddp": "dot product",
    "i8mm": "I8MM",
    "bf16": "BF16",
    "sve": "SVE",
}
#: Until the threads of the last call rest: ONNX Runtime's spin for a while.
_REST = 0.005
#: The parts of the product that decide how fast a bundle is.
_CODE = ("bundle", "compiler", "runtime")


class Results:
    """What one script measured.

    Attributes:
        measured: fill it in and `save`; it has what the file had, if that was measured in the same circumstances.
    """

    def __init__(self, folder: Path, name: str, settings: Mapping[str, Any]) -> None:
        folder.mkdir(parents=True, exist_ok=True)
        self._path = folder / f"{name}.json"
        name_of_processor, instructions = processor()
        self._circumstances = {
            "machine": {
                "cores": os.cpu_count(),
                "processor": name_of_processor,
                "instruction sets": instructions,
                "platform": platform.platform(),
            },
            "versions": {library: version(library) for library in _LIBRARIES} | {"python": platform.python_version()},
            "code": code_digest()[:12],
            "settings": json.loads(json.dumps(dict(settings))),
        }
        self.measured: dict[str, Any] = self._measured_before()

    def save(self) -> Path:
        """Write the file, and give its path."""
        write_bytes(self._path, canonical_json({**self._circumstances, "measured": self.measured}))
        return self._path

    def _measured_before(self) -> dict[str, Any]:
        try:
            found = json.loads(self._path.read_text())
        except (OSError, ValueError):
            return {}
        same = isinstance(found, dict) and all(found.get(key) == value for key, value in self._circumstances.items())
        measured: dict[str, Any] = found["measured"] if same else {}
        return measured


def make_parser(description: str | None) -> argparse.ArgumentParser:
    """A parser with the options that every benchmark has."""
    parser = argparse.ArgumentParser(description=description, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--results", type=Path, default=RESULTS, help="the folder of the results (%(default)s)")
    parser.add_argument("--scratch", type=Path, default=_SCRATCH, help="the folder for models (%(default)s)")
    return parser


def say(text: str) -> None:
    """Progress, on stderr."""
    print(text, file=sys.stderr, flush=True)


@dataclass(frozen=True)
class Clock:
    """How contenders are timed.

    Attributes:
        name: as results have it.
        seconds: reads the clock.
        pause: seconds to wait before each call.
    """

    name: str
    seconds: Callable[[], float]
    pause: float


def clock_for(threads: int) -> Clock:
    """Returns CPU time for one thread, which other processes disturb less, and wall-clock time for more."""
    if threads == 1:
        return Clock("CPU time of the process", time.process_time, 0.0)
    return Clock("wall clock", time.perf_counter, _REST)


@functools.cache
def code_digest() -> str:
    """SHA-256 over the code by which bundles are made and run, as this process found it."""
    digest = hashlib.sha256()
    package = Path(bitfit_export.__file__).parent
    for part in _CODE:
        for path in sorted((package / part).rglob("*.py")):
            digest.update(path.relative_to(package).as_posix().encode() + b"\0" + path.read_bytes())
    return digest.hexdigest()


def processor(cpuinfo: Path = _CPUINFO) -> tuple[str, list[str] | None]:
    """Returns the processor's name and those of its instruction sets that decide about speed.

    Args:
        cpuinfo: what Linux says about the processor. On a system without it the name is what Python knows, and the
            instruction sets are None.
    """
    known = platform.processor() or platform.machine() or "unknown"
    try:
        lines = cpuinfo.read_text().splitlines()
    except OSError:
        return known, None
    found = {key.strip(): value.strip() for key, _, value in (line.partition(":") for line in lines)}
    flags = found.get("flags", found.get("Features", "")).split()
    return found.get("model name", known), [name for flag, name in _INSTRUCTIONS.items() if flag in flags]
