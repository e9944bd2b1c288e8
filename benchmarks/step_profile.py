"""Where a training step's time and memory go, with BitFit and with full fine-tuning.

    python benchmarks/step_profile.py [--model bert-base] [--threads 2] [--batch 16] [--sequence 64]

Time: the operators of forward pass, backward pass and update by PyTorch's own profiler, without what they call. Memory:
what the forward pass keeps for the backward pass, by the node of the graph that keeps it. Both methods take their steps
in turn, in one process. Writes results/benchmarks/step_profile.json.
"""

from __future__ import annotations

import argparse
from collections import defaultdict
from collections.abc import Callable, Iterator, Mapping, Sequence

import torch
from common import Results, say
from models import prepare
from training_step import STEP_SETTINGS, Step, make_step_parser, prepare_step

METHODS = ("bitfit", "full")
#: What takes a smaller share of both methods' steps is added up.
_SHOWN = 0.01


def main(words: Sequence[str] | None = None) -> None:
    parser = make_step_parser(__doc__)
    arguments = parser.parse_args(words)
    settings = {name: getattr(arguments, name) for name in STEP_SETTINGS}
    results = Results(arguments.results, "step_profile", settings)
    if arguments.model not in results.measured:
        results.measured[arguments.model] = measure(arguments)
        for what, methods in results.measured[arguments.model].items():
            sums = {method: round(sum(each.values())) for method, each in methods.items()}
            say(f"{what}: {sums}")
    print(results.save())


def measure(arguments: argparse.Namespace) -> dict[str, dict[str, dict[str, float]]]:
    """Milliseconds of a step by operator, and MB that are kept by node, of each method."""
    torch.set_num_threads(arguments.threads)
    torch.manual_seed(0)
    base = prepare(arguments.model, arguments.scratch).base
    steps = {method: prepare_step(base, method, arguments.batch, arguments.sequence) for method in METHODS}
    for step in steps.values():
        step.run()
    times: dict[str, dict[str, float]] = {method: defaultdict(float) for method in METHODS}
    for _ in range(arguments.steps):
        for method, step in steps.items():
            for name, milliseconds in profile(step):
                times[method][name] += milliseconds / arguments.steps
    return {
        "milliseconds": without_small(times),
        "kept (MB)": without_small({method: kept(step) for method, step in steps.items()}),
    }


def without_small(figures: Mapping[str, Mapping[str, float]]) -> dict[str, dict[str, float]]:
    """Each method's figures, those that are small in all of them added up as `others`."""
    shown = {name for each in figures.values() for name, value in each.items() if value >= _SHOWN * sum(each.values())}
    return {
        method: {name: value for name, value in each.items() if name in shown}
        | {"others": sum(value for name, value in each.items() if name not in shown)}
        for method, each in figures.items()
    }


def profile(step: Step) -> Iterator[tuple[str, float]]:
    """`part: operator` and the milliseconds that it took of one step."""
    loss: list[torch.Tensor] = []
    parts: Mapping[str, Callable[[], object]] = {
        "forward": lambda: loss.append(step.loss()),
        "backward": lambda: torch.autograd.backward(loss),
        "update": step.update,
    }
    for part, run in parts.items():
        with torch.profiler.profile(activities=[torch.profiler.ProfilerActivity.CPU]) as profiler:
            run()
        for event in profiler.key_averages():
            yield f"{part}: {event.key.removeprefix('aten::')}", event.self_cpu_time_total / 1e3


def kept(step: Step) -> dict[str, float]:
    """MB that each kind of node keeps for the backward pass; parameters, which are there anyway, are not counted."""
    seen = {tensor.untyped_storage().data_ptr() for tensor in (*step.model.parameters(), *step.model.buffers())}
    sizes: dict[str, float] = defaultdict(float)
    for node in _nodes(step.loss()):
        saved = (getattr(node, name) for name in dir(node) if name.startswith("_saved_"))
        for tensor in saved:
            if isinstance(tensor, torch.Tensor) and tensor.untyped_storage().data_ptr() not in seen:
                seen.add(tensor.untyped_storage().data_ptr())
                sizes[node.name().removesuffix("0").removesuffix("Backward")] += tensor.untyped_storage().nbytes() / 1e6
    return dict(sizes)


def _nodes(loss: torch.Tensor) -> Iterator[torch.autograd.graph.Node]:
    """Every node of the graph, once."""
    waiting: list[torch.autograd.graph.Node | None] = [loss.grad_fn]
    seen: set[torch.autograd.graph.Node] = set()
    while waiting:
        node = waiting.pop()
        if node is not None and node not in seen:
            seen.add(node)
            yield node
            waiting += [each for each, _ in node.next_functions]


if __name__ == "__main__":
    main()
