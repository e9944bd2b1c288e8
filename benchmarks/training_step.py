"""What a training step costs with BitFit and with full fine-tuning: time, and growth of memory over the loaded model.

    python benchmarks/training_step.py [--model bert-base] [--threads 2] [--rounds 3] [--bf16]

Each method runs some steps in a process of its own, in turn. A step is what bitfit-train's is: forward, backward,
clipped gradients, AdamW. Writes results/benchmarks/training_step.json.
"""

from __future__ import annotations

import argparse
import copy
import json
import os
import statistics
import time
from collections.abc import Sequence

import memory
import torch
from common import Results, make_parser, say
from models import MODELS, prepare
from processes import run_json

from bitfit_export.task_model import TaskModel
from bitfit_export.training.methods import create_method
from bitfit_export.training.settings import TrainingSettings

METHODS = ("bitfit", "full")
_WARM_UP = 1


def main(words: Sequence[str] | None = None) -> None:
    parser = make_parser(__doc__)
    parser.add_argument("--model", choices=MODELS, default="bert-base")
    parser.add_argument("--threads", type=int, default=os.cpu_count())
    parser.add_argument("--batch", type=int, default=16)
    parser.add_argument("--sequence", type=int, default=64)
    parser.add_argument("--steps", type=int, default=3, help="in each process (%(default)s)")
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--bf16", action="store_true", help="as bitfit-train --bf16")
    parser.add_argument("--method", choices=METHODS, help="measure this method in this process, and print it")
    arguments = parser.parse_args(words)
    if arguments.method is not None:
        print(json.dumps(measure_steps(arguments)))
        return
    settings = {name: getattr(arguments, name) for name in ("threads", "batch", "sequence", "steps", "rounds")}
    results = Results(arguments.results, "training_step", settings)
    name = arguments.model + (", bf16" if arguments.bf16 else "")
    if name not in results.measured:
        results.measured[name] = measure(arguments)
        say(f"{name}: {results.measured[name]}")
    print(results.save())


def measure(arguments: argparse.Namespace) -> dict[str, float]:
    """Both methods in turn, each in fresh processes."""
    prepare(arguments.model, arguments.scratch)
    words = ["--model", arguments.model, "--scratch", str(arguments.scratch), *(["--bf16"] if arguments.bf16 else [])]
    for name in ("threads", "batch", "sequence", "steps"):
        words += [f"--{name}", str(getattr(arguments, name))]
    found: dict[str, list[dict[str, float]]] = {method: [] for method in METHODS}
    for _ in range(arguments.rounds):
        for method in METHODS:
            found[method].append(run_json("training_step.py", *words, "--method", method))

    def ratio(key: str) -> float:
        return statistics.median(one[key] / two[key] for one, two in zip(found["bitfit"], found["full"], strict=True))

    described = {
        f"{method}: {key}": statistics.median(each[key] for each in found[method])
        for method in METHODS
        for key in ("seconds", "growth (MB)")
    }
    return described | {"seconds, bitfit / full": ratio("seconds"), "growth, bitfit / full": ratio("growth (MB)")}


def measure_steps(arguments: argparse.Namespace) -> dict[str, float]:
    """The median step of one method, and by how much memory grew in the steps."""
    torch.set_num_threads(arguments.threads)
    torch.manual_seed(0)
    base = prepare(arguments.model, arguments.scratch).base
    model = TaskModel(copy.deepcopy(base.module), "pooler", 2, autocast=arguments.bf16)
    create_method(TrainingSettings(method=arguments.method)).prepare(model)
    trained = [parameter for parameter in model.parameters() if parameter.requires_grad]
    # As the trainer chooses: over a whole model the fused step is the faster one.
    optimiser = torch.optim.AdamW(trained, weight_decay=0.0, fused=arguments.method == "full")
    ids = torch.randint(0, base.module.config.vocab_size, (arguments.batch, arguments.sequence))
    labels = torch.randint(0, 2, (arguments.batch,))
    model.train()
    memory.reset_peak()
    before = memory.resident()
    seconds = []
    for _ in range(_WARM_UP + arguments.steps):
        started = time.perf_counter()
        model(ids, torch.ones_like(ids), labels=labels)["loss"].backward()
        torch.nn.utils.clip_grad_norm_(trained, 1.0)
        optimiser.step()
        model.zero_grad()
        seconds.append(time.perf_counter() - started)
    return {"seconds": statistics.median(seconds[_WARM_UP:]), "growth (MB)": (memory.peak() - before) / 1e6}


if __name__ == "__main__":
    main()
