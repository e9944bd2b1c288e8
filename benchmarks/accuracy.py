"""What precision costs: the five tasks that ship, on their whole dev sets, in fp32 and in lower precisions.

    python benchmarks/accuracy.py --data glue/ [--precisions fp32,int8,int8-static,int4]

Metrics are percentages. The agreement is the share of rows whose decision is fp32's, for a regression the correlation
with fp32's scores. "lost by chance" is what the same errors of the logits lose when they are dealt to the examples at
random: the mean, and the standard deviation, of many deals. It says how much of "lost" is luck. int8 measures the range
of a whole batch, so the batch size matters a little. Writes results/benchmarks/accuracy.json.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from common import Results, make_parser, say
from models import Workbench, prepare

from bitfit_export.delta import TaskDelta
from bitfit_export.errors import BitfitError
from bitfit_export.runtime import BiasSession
from bitfit_export.training import metrics
from bitfit_export.training.data import TaskData, load_task_data

_MODEL = "minilm-l6"
_TASKS = ("sst2", "mrpc", "cola", "stsb", "rte")
_REFERENCE = "fp32"
_DEALS, _SEED = 200, 0


def main(words: Sequence[str] | None = None) -> None:
    parser = make_parser(__doc__)
    parser.add_argument("--data", type=Path, required=True, help="a folder with a folder of data for each task")
    parser.add_argument("--precisions", default="fp32,int8,int8-static,int4", help="beside fp32 (%(default)s)")
    parser.add_argument("--tasks", default=",".join(_TASKS), help="(%(default)s)")
    parser.add_argument("--batch", type=int, default=8)
    parser.add_argument("--threads", type=int, default=2)
    arguments = parser.parse_args(words)
    results = Results(arguments.results, "accuracy", {"model": _MODEL, "batch": arguments.batch})
    bench = prepare(_MODEL, arguments.scratch)
    data = {task: load_task_data(task, data=arguments.data) for task in arguments.tasks.split(",")}
    precisions = dict.fromkeys([_REFERENCE, *arguments.precisions.split(",")])
    logits: dict[str, np.ndarray] = {}
    for precision in precisions:
        if precision != _REFERENCE and set(data) <= set(results.measured.get(precision, ())):
            continue
        try:
            folder = bench.bundle(layout="table", precision=precision)
        except BitfitError as error:
            results.measured[precision] = {"refused": error.message}
            say(f"{precision}: {error.message}")
            continue
        session = BiasSession(folder, threads=arguments.threads)
        found = {task: run_rows(session, task, rows, bench, arguments.batch) for task, rows in data.items()}
        logits = logits or found
        before = results.measured.get(precision, {})
        compared = {task: compare(bench.deltas[task], data[task], found[task], logits[task]) for task in data}
        results.measured[precision] = {task: each for task, each in before.items() if task != "refused"} | compared
        results.save()
        say(f"{precision}: {shown(compared)}")
    print(results.save())


def run_rows(session: BiasSession, task: str, data: TaskData, bench: Workbench, batch: int) -> np.ndarray:
    """Logits float32 [rows, labels], in the rows' order; texts of about one length run together."""
    texts = data.validation.texts
    order = sorted(range(len(texts)), key=lambda row: sum(map(len, texts[row])))
    config = bench.deltas[task].config
    logits = np.empty((len(texts), config.output_size), np.float32)
    for start in range(0, len(order), batch):
        rows = order[start : start + batch]
        chosen = [texts[row][0] if len(texts[row]) == 1 else (texts[row][0], texts[row][1]) for row in rows]
        logits[rows] = session.run(task, **session.encode(chosen, truncate=True, max_length=config.max_length))
    return logits


def compare(delta: TaskDelta, data: TaskData, logits: np.ndarray, reference: np.ndarray) -> dict[str, Any]:
    """The task's metric, what it lost against the reference, and how far the two agree."""
    problem, name = delta.config.problem_type, data.spec.metrics[0]

    def metric(values: np.ndarray) -> float:
        predictions = values[:, 0] if problem == "regression" else values.argmax(-1)
        return 100 * metrics.compute([name], problem, predictions, data.validation.labels)[name]

    if problem == "regression":
        agreement = float(np.corrcoef(logits[:, 0], reference[:, 0])[0, 1])
    else:
        agreement = float((logits.argmax(-1) == reference.argmax(-1)).mean())
    return {
        "metric": name,
        "value": metric(logits),
        "lost": metric(reference) - metric(logits),
        "agreement": 100 * agreement,
        "mean difference of logits": float(np.abs(logits - reference).mean()),
        "lost by chance": lost_by_chance(reference, logits - reference, metric),
    }


def lost_by_chance(
    reference: np.ndarray, errors: np.ndarray, metric: Callable[[np.ndarray], float]
) -> dict[str, float]:
    """What errors of logits [examples, labels] lose when each example gets another's: mean and standard deviation."""
    random, value = np.random.default_rng(_SEED), metric(reference)
    lost = [value - metric(reference + random.permutation(errors)) for _ in range(_DEALS)]
    return {"mean": float(np.mean(lost)), "deviation": float(np.std(lost))}


def shown(tasks: Mapping[str, Mapping[str, Any]]) -> str:
    """A line: each task's metric, and what it lost."""
    return ", ".join(f"{task} {each['value']:.2f} (lost {each['lost']:.2f})" for task, each in tasks.items())


if __name__ == "__main__":
    main()
