"""What a training step costs with BitFit, with full fine-tuning, and with transformers' own Trainer as it comes: time,
and growth of memory over the loaded model.

    python benchmarks/training_step.py [--model bert-base] [--threads 2] [--rounds 3] [--bf16]

Each method runs some steps in a process of its own, in turn. A step is what bitfit-train's is: forward, backward,
clipped gradients, AdamW; "baseline" is `Trainer` on the family's own class, with its default settings. Writes
results/benchmarks/training_step.json.
"""

from __future__ import annotations

import argparse
import copy
import json
import os
import statistics
import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from typing import Any

import memory
import torch
import transformers
from common import Results, make_parser, say
from models import MODELS, prepare
from processes import run_json

from bitfit_export.base_model.loading import BaseModel
from bitfit_export.training.methods import create_method
from bitfit_export.training.settings import TrainingSettings
from bitfit_export.training.trainable import TrainableModel

METHODS = ("bitfit", "full", "baseline")
#: What decides how long a step takes: options of the scripts that measure one.
STEP_SETTINGS = ("threads", "batch", "sequence", "steps")
_WARM_UP = 1


def main(words: Sequence[str] | None = None) -> None:
    parser = make_step_parser(__doc__)
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--bf16", action="store_true", help="as bitfit-train --bf16")
    parser.add_argument("--method", choices=METHODS, help="measure this method in this process, and print it")
    arguments = parser.parse_args(words)
    if arguments.method is not None:
        print(json.dumps(measure_steps(arguments)))
        return
    settings = {name: getattr(arguments, name) for name in (*STEP_SETTINGS, "rounds")}
    results = Results(arguments.results, "training_step", settings)
    name = arguments.model + (", bf16" if arguments.bf16 else "")
    if name not in results.measured:
        results.measured[name] = measure(arguments)
        say(f"{name}: {results.measured[name]}")
    print(results.save())


def make_step_parser(description: str | None) -> argparse.ArgumentParser:
    """A parser with the options of every script that measures training steps."""
    parser = make_parser(description)
    parser.add_argument("--model", choices=MODELS, default="bert-base")
    parser.add_argument("--threads", type=int, default=os.cpu_count())
    parser.add_argument("--batch", type=int, default=16)
    parser.add_argument("--sequence", type=int, default=64)
    parser.add_argument("--steps", type=int, default=3, help="of each method (%(default)s)")
    return parser


def measure(arguments: argparse.Namespace) -> dict[str, float]:
    """Both methods in turn, each in fresh processes."""
    prepare(arguments.model, arguments.scratch)
    words = ["--model", arguments.model, "--scratch", str(arguments.scratch), *(["--bf16"] if arguments.bf16 else [])]
    for name in STEP_SETTINGS:
        words += [f"--{name}", str(getattr(arguments, name))]
    found: dict[str, list[dict[str, float]]] = {method: [] for method in METHODS}
    for _ in range(arguments.rounds):
        for method in METHODS:
            found[method].append(run_json("training_step.py", *words, "--method", method))

    def ratio(key: str, other: str) -> float:
        return statistics.median(one[key] / two[key] for one, two in zip(found["bitfit"], found[other], strict=True))

    described = {
        f"{method}: {key}": statistics.median(each[key] for each in found[method])
        for method in METHODS
        for key in ("seconds", "growth (MB)")
    }
    ratios = {
        f"{short}, bitfit / {other}": ratio(key, other)
        for other in METHODS[1:]
        for short, key in (("seconds", "seconds"), ("growth", "growth (MB)"))
    }
    return described | ratios


def measure_steps(arguments: argparse.Namespace) -> dict[str, float]:
    """The median step of one method, and by how much memory grew in the steps."""
    torch.set_num_threads(arguments.threads)
    torch.manual_seed(0)
    base = prepare(arguments.model, arguments.scratch).base
    run = _baseline_steps if arguments.method == "baseline" else _own_steps
    step = run(base, arguments)
    memory.reset_peak()
    before = memory.resident()
    seconds = list(step())
    return {"seconds": statistics.median(seconds[_WARM_UP:]), "growth (MB)": (memory.peak() - before) / 1e6}


@dataclass(frozen=True)
class Step:
    """A training step as bitfit-train's: forward, backward, clipped gradients, AdamW."""

    model: TrainableModel
    optimiser: torch.optim.Optimizer
    ids: torch.Tensor
    labels: torch.Tensor

    def loss(self) -> torch.Tensor:
        """The forward pass."""
        mask = torch.ones_like(self.ids)
        loss: torch.Tensor = self.model(input_ids=self.ids, attention_mask=mask, labels=self.labels)["loss"]
        return loss

    def update(self) -> None:
        """What comes after the backward pass."""
        trained = [parameter for parameter in self.model.parameters() if parameter.requires_grad]
        torch.nn.utils.clip_grad_norm_(trained, 1.0)
        self.optimiser.step()
        self.model.zero_grad()

    def run(self) -> None:
        """All of it."""
        torch.autograd.backward(self.loss())
        self.update()


def prepare_step(base: BaseModel, method: str, batch: int, sequence: int, *, bf16: bool = False) -> Step:
    """A step of this method on random ids [batch, sequence], with two labels."""
    model = TrainableModel(copy.deepcopy(base.module), "pooler", 2, autocast=bf16)
    chosen = create_method(TrainingSettings(method=method))
    chosen.prepare(model)
    # As the trainer chooses: over a whole model the fused step is the faster one.
    optimiser = torch.optim.AdamW(chosen.parameter_groups(model), weight_decay=0.0, fused=chosen.dense)
    ids = torch.randint(0, base.module.config.vocab_size, (batch, sequence))
    return Step(model.train(), optimiser, ids, torch.randint(0, 2, (batch,)))


def _own_steps(base: BaseModel, arguments: argparse.Namespace) -> Callable[[], Iterator[float]]:
    step = prepare_step(base, arguments.method, arguments.batch, arguments.sequence, bf16=arguments.bf16)

    def steps() -> Iterator[float]:
        for _ in range(_WARM_UP + arguments.steps):
            started = time.perf_counter()
            step.run()
            yield time.perf_counter() - started

    return steps


class _Clock(transformers.TrainerCallback):
    """The seconds of each step, from the batch to the new parameters."""

    def __init__(self) -> None:
        self.seconds: list[float] = []

    def on_step_begin(self, *_: Any, **__: Any) -> None:
        self._started = time.perf_counter()

    def on_step_end(self, *_: Any, **__: Any) -> None:
        self.seconds.append(time.perf_counter() - self._started)


def _baseline_steps(base: BaseModel, arguments: argparse.Namespace) -> Callable[[], Iterator[float]]:
    model = transformers.AutoModelForSequenceClassification.from_pretrained(base.source.location, num_labels=2)
    count = _WARM_UP + arguments.steps
    ids = torch.randint(0, base.module.config.vocab_size, (count * arguments.batch, arguments.sequence))
    rows = [
        {"input_ids": row, "attention_mask": torch.ones_like(row), "labels": index % 2} for index, row in enumerate(ids)
    ]
    clock = _Clock()
    trainer = transformers.Trainer(
        model=model,
        args=transformers.TrainingArguments(
            output_dir=str(arguments.scratch / "baseline-training"),
            max_steps=count,
            per_device_train_batch_size=arguments.batch,
            save_strategy="no",
            logging_strategy="no",
            report_to="none",
            disable_tqdm=True,
            use_cpu=True,
            bf16=arguments.bf16,
        ),
        train_dataset=rows,
        callbacks=[clock],
    )
    trainer.remove_callback(transformers.PrinterCallback)

    def steps() -> Iterator[float]:
        trainer.train()
        yield from clock.seconds

    return steps


if __name__ == "__main__":
    main()
