"""Part of pass 1, dropouts: the places where a model in training drops something are nodes of its graph.

Requires: a base model in training, and the graph that the exporter made of it.
Ensures: the graph has a Dropout node for each call of PyTorch's dropout, with its rate.
Does not: fire for a family with a dropout of its own making, or one that skips layers by chance: these are refused.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import onnx_ir as ir
import torch
from torch.nn import functional
from torch.overrides import TorchFunctionMode

from bitfit_export.base_model.loading import BaseModel
from bitfit_export.compiler.frontend.lengths import text_inputs
from bitfit_export.errors import CompileError

__all__ = ["ENGINE_HINT", "check_dropouts", "in_training"]

ENGINE_HINT = "train it with --engine torch"


@contextmanager
def in_training(module: torch.nn.Module, wanted: bool) -> Iterator[None]:
    """Puts a module that is in eval mode into training, where that is wanted."""
    module.train(wanted)
    try:
        yield
    finally:
        module.eval()


def check_dropouts(base: BaseModel, graph: ir.Graph) -> None:
    """Compare the graph's Dropout nodes with the dropouts that PyTorch computes.

    Raises:
        CompileError: the rates of the two differ, or the model skips layers by chance.
    """
    config: Any = base.module.config
    if any(getattr(config, name, 0) for name in ("layerdrop", "encoder_layerdrop")):
        raise CompileError(
            f"{base.source.name} skips layers by chance in training, which no graph does", hint=ENGINE_HINT
        )
    with _Rates() as expected, torch.no_grad(), torch.random.fork_rng():
        base.module(**text_inputs(base, 7))
    found = Counter(_rate_of(node) for node in graph if node.op_type == "Dropout")
    found.pop(0.0, None)
    if found != expected.rates:
        raise CompileError(
            f"{base.source.name} drops something at {expected.rates.total()} places in training, its graph does at "
            f"{found.total()}, expected the same places",
            hint=ENGINE_HINT,
        )


def _rate_of(node: ir.Node) -> float:
    value = None if len(node.inputs) < 2 or node.inputs[1] is None else node.inputs[1].const_value
    return 0.5 if value is None else _rounded(float(value.numpy()))


def _rounded(rate: float) -> float:
    """A rate as float32 has it and as Python has it are the same."""
    return round(rate, 6)


class _Rates(TorchFunctionMode):
    """Counts the dropouts that are computed in its context, by their rates."""

    def __init__(self) -> None:
        self.rates: Counter[float] = Counter()

    def __torch_function__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        """Called by PyTorch for each of its functions."""
        given = dict(zip(("input", "p", "training"), args, strict=False)) | (kwargs or {})
        if func is functional.dropout and given.get("training", True) and given.get("p", 0.5) > 0:
            self.rates[_rounded(given.get("p", 0.5))] += 1
        return func(*args, **(kwargs or {}))
