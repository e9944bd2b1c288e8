"""Engines execute a program at run time. Each is one module here and one line of `ENGINES`."""

from __future__ import annotations

import importlib

from bitfit_export.errors import BundleError, UsageError, quoted
from bitfit_export.runtime.engines.base import Engine

__all__ = ["ENGINES", "choose_engine"]

#: The module that has `ENGINE`, by the engine's name; the first that runs a bundle's target is its default.
ENGINES = {
    "onnxruntime": "bitfit_export.runtime.engines.onnxruntime",
}


def choose_engine(target: str, name: str | None = None) -> Engine:
    """Returns the engine for a bundle.

    Args:
        target: what the bundle was compiled for.
        name: the engine that the caller wants; by default the first that runs the target.

    Raises:
        UsageError: no engine has that name.
        BundleError: the engine does not run bundles of this target, or none does.
    """
    if name is not None and name not in ENGINES:
        raise UsageError(f"the engine is {quoted(name)}, expected one of {', '.join(ENGINES)}")
    engines = [_load(each) for each in ([name] if name else ENGINES)]
    for engine in engines:
        if target in engine.targets:
            return engine
    runs = "; ".join(f"{engine.name} runs {', '.join(sorted(engine.targets))}" for engine in engines)
    raise BundleError(
        f"the bundle is for the target {quoted(target)}, which the engine does not run ({runs})",
        hint="export the bundle for another --target, or name another engine",
    )


def _load(name: str) -> Engine:
    engine: Engine = importlib.import_module(ENGINES[name]).ENGINE
    return engine
