"""What it does to a score that folded biases are learnt instead of the original terms: MiniLM, without dropout.

    python benchmarks/folded_learning.py --data glue/ [--tasks sst2,mrpc] [--seeds 3]

Both bundles learn the same examples in the same order with the same settings; they differ in `--no-fold` alone. The
score is that of the best epoch on all held-out examples. Writes results/learning/folded_learning.json.
"""

from __future__ import annotations

import statistics
from collections.abc import Sequence
from dataclasses import asdict
from pathlib import Path

from common import RESULTS, Results, make_parser, say
from models import prepare

from bitfit_export.runtime import BiasSession
from bitfit_export.runtime.learning import BiasTrainer, LabelledTexts, LearningSettings
from bitfit_export.training.data import TaskData, load_task_data

_MODEL = "minilm-l6"
_WAYS = {"folded": True, "original": False}
#: Training examples of each task, None for all, and epochs.
_TASKS: dict[str, tuple[int | None, int]] = {"sst2": (2000, 3), "mrpc": (None, 2)}


def main(words: Sequence[str] | None = None) -> None:
    parser = make_parser(__doc__)
    parser.set_defaults(results=RESULTS.parent / "learning")
    parser.add_argument("--data", type=Path, required=True, help="a folder with a folder of data for each task")
    parser.add_argument("--tasks", default=",".join(_TASKS), help="(%(default)s)")
    parser.add_argument("--seeds", type=int, default=3)
    arguments = parser.parse_args(words)
    common = LearningSettings(learning_rate=1e-3, schedule="linear", warmup=0.1, max_length=64)
    # Each task has its own number of epochs, each run its own seed.
    shared = {name: value for name, value in asdict(common).items() if name not in ("epochs", "seed")}
    settings = {"model": _MODEL, "training examples and epochs": _TASKS, "learning": shared}
    results = Results(arguments.results, "folded_learning", settings)
    bench = prepare(_MODEL, arguments.scratch)
    trainers = {
        way: BiasTrainer(BiasSession(bench.bundle(layout="packed", trainable=True, fold=fold), threads=1, tasks=[]))
        for way, fold in _WAYS.items()
    }
    for task in arguments.tasks.split(","):
        size, epochs = _TASKS[task]
        data = load_task_data(task, data=arguments.data, train_examples=size)
        for seed in range(arguments.seeds):
            chosen = LearningSettings(**asdict(common) | {"epochs": epochs, "seed": seed})
            for way, trainer in trainers.items():
                found = results.measured.setdefault(task, {}).setdefault(way, {})
                if str(seed) not in found:
                    found[str(seed)] = learn(trainer, data, chosen)
                    say(f"{task}, {way}, seed {seed}: {found[str(seed)]}")
                    results.save()
        say(f"{task}: {summary(results.measured[task])}")
    print(results.save())


def learn(trainer: BiasTrainer, data: TaskData, settings: LearningSettings) -> dict[str, float]:
    """The scores of the best epoch, and the mean loss of the last one."""
    spec = data.spec
    train, validation = (LabelledTexts(each.texts, each.labels) for each in (data.train, data.validation))
    learnt = trainer.learn(
        spec.name, train, validation, labels=spec.labels, problem_type=spec.problem_type, settings=settings
    )
    return {**learnt.scores, "loss": learnt.history[-1]["loss"]}


def summary(measured: dict[str, dict[str, dict[str, float]]]) -> str:
    """Mean and spread over the seeds of both ways, by accuracy."""
    scores = {way: [each["accuracy"] for each in found.values()] for way, found in measured.items()}
    return ", ".join(
        f"{way} {statistics.mean(each):.4f} ({min(each):.4f} to {max(each):.4f})" for way, each in scores.items()
    )


if __name__ == "__main__":
    main()
