"""Personalise a classifier on the device: a row for a new task from 25, 50, 100 and 200 examples, without PyTorch.

    bitfit-export --model minilm-l6 --tasks mrpc --trainable --output bundles/learning
    python examples/personalise.py bundles/learning --task sst2 --data glue/ --output personal/

Writes the row of the most examples, the scores (personalise.json) and a plot of them over examples and
seconds of the processor. The plot needs `pip install 'bitfit-export[plot]'`; without it there is none.
"""

from __future__ import annotations

import argparse
import json
import time
from pathlib import Path
from typing import Any

from bitfit_export.runtime import BiasSession
from bitfit_export.runtime.learning import BiasTrainer, LabelledTexts, LearningSettings
from bitfit_export.training.data import Examples, load_task_data

SIZES = (25, 50, 100, 200)
#: Few examples need more epochs and a higher rate than a whole data set.
SETTINGS = LearningSettings(learning_rate=2e-3, epochs=12, batch_size=8, schedule="linear", warmup=0.1, max_length=64)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("bundle", type=Path)
    parser.add_argument("--task", default="sst2")
    parser.add_argument("--data", type=Path, required=True)
    parser.add_argument("--held-out", type=int, default=200, help="examples that choose the epoch and are scored")
    parser.add_argument("--output", type=Path, default=Path("personal"))
    parser.add_argument("--threads", type=int)
    options = parser.parse_args()
    trainer = BiasTrainer(BiasSession(options.bundle, threads=options.threads, tasks=[]))
    options.output.mkdir(parents=True, exist_ok=True)
    results = []
    for size in SIZES:
        data = load_task_data(
            options.task, data=options.data, train_examples=size, validation_examples=options.held_out
        )
        started = time.process_time()
        learnt = trainer.learn(
            options.task,
            _labelled(data.train),
            _labelled(data.validation),
            labels=data.spec.labels,
            problem_type=data.spec.problem_type,
            settings=SETTINGS,
        )
        seconds = time.process_time() - started
        results.append({"examples": size, "processor seconds": round(seconds, 1), **learnt.scores})
        print(json.dumps(results[-1]), flush=True)
    learnt.save(options.output / f"{options.task}.bias")
    (options.output / "personalise.json").write_text(json.dumps(results, indent=2) + "\n")
    _plot(results, options.output / "personalise.png")


def _labelled(examples: Examples) -> LabelledTexts:
    return LabelledTexts(examples.texts, examples.labels)


def _plot(results: list[dict[str, Any]], path: Path) -> None:
    try:
        from matplotlib import pyplot
    except ImportError:
        return
    score = next(name for name in results[0] if name not in ("examples", "processor seconds"))
    figure, axes = pyplot.subplots(1, 2, figsize=(8, 3), sharey=True, layout="constrained")
    for axis, name in zip(axes, ("examples", "processor seconds"), strict=True):
        axis.plot([each[name] for each in results], [each[score] for each in results], marker="o")
        axis.set_xlabel(name)
        axis.set_ylim(0, 1)
    axes[0].set_ylabel(score)
    figure.savefig(path, dpi=150)


if __name__ == "__main__":
    main()
