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
from collections.abc import Mapping
from importlib.metadata import version
from pathlib import Path
from typing import Any

import bitfit_export
from bitfit_export.files import canonical_json, write_bytes

__all__ = ["RESULTS", "Results", "code_digest", "make_parser", "say"]

_ROOT = Path(__file__).resolve().parents[1]
RESULTS = _ROOT / "results" / "benchmarks"
#: Models and bundles, a few gigabytes. They are kept for the next script, and may be deleted.
_SCRATCH = _ROOT / "demo" / "benchmarks"
_LIBRARIES = ("numpy", "onnxruntime", "torch", "transformers", "onnx")
#: Instruction sets by which kernels differ: Linux' word -> its usual name.
_INSTRUCTIONS = {
    "avx2": "AVX2",
    "avx_vnni": "AVX-VNNI",
    "avx512f": "AVX-512",
    "avx512_vnni": "AVX-512 VNNI",
    "avx512_bf16": "AVX-512 BF16",
    "amx_int8": "AMX",
    "asimddp": "dot product",
    "i8mm": "I8MM",
    "bf16": "BF16",
    "sve": "SVE",
}
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
        self._circumstances = {
            "machine": {"cores": os.cpu_count(), "processor": _processor(), "platform": platform.platform()},
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


@functools.cache
def code_digest() -> str:
    """SHA-256 over the code by which bundles are made and run, as this process found it."""
    digest = hashlib.sha256()
    package = Path(bitfit_export.__file__).parent
    for part in _CODE:
        for path in sorted((package / part).rglob("*.py")):
            digest.update(path.relative_to(package).as_posix().encode() + b"\0" + path.read_bytes())
    return digest.hexdigest()


def _processor() -> str:
    """The processor's name as Linux gives it, and what it has that decides about speed; elsewhere what Python knows."""
    try:
        lines = Path("/proc/cpuinfo").read_text().splitlines()
    except OSError:
        return platform.processor()
    found = {key.strip(): value.strip() for key, _, value in (line.partition(":") for line in lines)}
    flags = found.get("flags", found.get("Features", "")).split()
    sets = [name for flag, name in _INSTRUCTIONS.items() if flag in flags]
    return f"{found.get('model name', 'unknown')} ({', '.join(sets) or 'no known vector instructions'})"
