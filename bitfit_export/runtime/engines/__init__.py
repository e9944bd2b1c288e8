"""Engines execute a program at run time. Each is one module here and one line of `ENGINES`."""

from __future__ import annotations

import importlib
from collections.abc import Sequence

from bitfit_export.errors import BundleError, UsageError, quoted
from bitfit_export.runtime.engines.base import NO_OPTIONS, Engine, OptionValues

__all__ = ["ENGINES", "choose_engine"]

#: The module that has `ENGINE`, by the engine's name; the first that runs a bundle's target is its default.
ENGINES = {
    "onnxruntime": "bitfit_export.runtime.engines.onnxruntime",
    "openvino": "bitfit_export.runtime.engines.openvino",
    "qnn": "bitfit_export.runtime.engines.qnn",
}


def choose_engine(
    target: str, name: str | None = None, *, options: OptionValues = NO_OPTIONS, feeds_defaults: bool = False
) -> Engine:
    """Returns the engine for a bundle.

    Args:
        target: what the bundle was compiled for.
        name: the engine that the caller wants; by default the first that runs the bundle.
        options: what the caller wants of it.
        feeds_defaults: whether the bundle's biases are inputs with defaults (`--overridable`).

    Raises:
        UsageError: no engine has that name, or the engine does not take an option.
        BundleError: the engine does not run this bundle, or none does.
    """
    if name is not None and name not in ENGINES:
        raise UsageError(f"the engine is {quoted(name)}, expected one of {', '.join(ENGINES)}")
    engines = [_load(each) for each in ([name] if name else ENGINES)]
    able = [engine for engine in engines if target in engine.targets]
    if not able:
        raise BundleError(
            f"the bundle is for the target {quoted(target)}, which the engine does not run "
            f"({'; '.join(f'{engine.name} runs {engine.runs}' for engine in engines)})",
            hint=f"export the bundle with --target {_target_for(engines)}, or name another engine",
        )
    engine = next((engine for engine in able if engine.feeds_defaults or not feeds_defaults), None)
    if engine is None:
        raise BundleError(
            f"the bundle's biases are inputs with defaults, which the engine {able[0].name} makes constants",
            hint="export the bundle without --overridable, or name another engine",
        )
    _check_options(engine, options, named=name is not None)
    return engine


#: Every engine that compiles nothing ahead of time runs it.
_TARGET_FOR_MOST = "portable"


def _target_for(engines: Sequence[Engine]) -> str:
    """A target that the first engine runs."""
    targets = engines[0].targets
    return _TARGET_FOR_MOST if _TARGET_FOR_MOST in targets else min(targets, default=_TARGET_FOR_MOST)


def _check_options(engine: Engine, options: OptionValues, *, named: bool) -> None:
    for name, value in options.items():
        option = engine.options.get(name)
        if option is None:
            known = f"one of {', '.join(engine.options)}" if engine.options else "none, for it has no options"
            raise UsageError(
                f"the engine {engine.name} has no option {quoted(name)}, expected {known}",
                hint=None if named else "name the engine that has this option",
            )
        if not option.accepts(value):
            raise UsageError(
                f"the option {name} of the engine {engine.name} is {quoted(value)}, expected {option.expected}"
            )


def _load(name: str) -> Engine:
    engine: Engine = importlib.import_module(ENGINES[name]).ENGINE
    return engine
