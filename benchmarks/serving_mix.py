"""Requests of mixed tasks: how many items per second one bundle answers, and a baseline session for each task.

    python benchmarks/serving_mix.py --model minilm-l6 --threads 1 [--precisions fp32,int8] [--batches 8,32]

All requests are there at the start, in random order, with the lengths of real texts. The contenders answer them in turn
in one process: a bundle in batches of mixed tasks, the same bundle compiled with its padding kept, a baseline session
for each task in batches of its own, the same one by one, and in fp32 one PyTorch model that takes over the biases of
each batch's task. A baseline is of the fastest way for its batches. Times are as in `speed.py`; ratios are to the
baseline sessions in batches. The memory is the largest of a process of its own that answers the requests once. Writes
results/benchmarks/serving_mix-<model>-<threads>.json, and resumes where it stopped.
"""

from __future__ import annotations

import dataclasses
import functools
import gc
import json
import tempfile
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import torch
from common import Clock, Results, clock_for, make_parser, say
from models import MODELS, Workbench, prepare
from processes import run_json
from servers import Serve, Server, open_server, prepare_batches
from traffic import (
    BATCHINGS,
    Batch,
    Ids,
    Request,
    add_traffic_options,
    describe_traffic,
    make_requests,
    padding_of,
    read_lengths,
)

from bitfit_export.baselines.exports import export_baselines
from bitfit_export.baselines.timing import Times, time_in_turn
from bitfit_export.errors import BitfitError, first_line
from bitfit_export.reference.task_model import merged_model

__all__ = ["ALONE", "BASELINES", "BUNDLE", "KEPT", "PYTORCH", "TIME_RATIO"]

BUNDLE = "bundle, mixed tasks"
KEPT = "bundle with its padding, mixed tasks"
BASELINES = "baseline session for each task"
ALONE = "baseline session for each task, one by one"
PYTORCH = "PyTorch, one task in a batch"
TIME_RATIO = "time / baseline sessions"
#: The task that minilm-l6 has twice has no requests: its baseline session would be the same one.
_AGAIN = "-again"
#: Of the choice among baselines.
_ROUNDS_TO_CHOOSE = 5
_REQUESTS_TO_CHOOSE = 32
_TASKS_TO_CHOOSE = 2
_WAITING = (("spin", True), ("sleep", False))


@dataclass(frozen=True)
class Contender:
    """What answers, and how the requests become batches for it: one of `BATCHINGS`."""

    server: Server
    batching: str


def main(words: Sequence[str] | None = None) -> None:
    parser = make_parser(__doc__)
    parser.add_argument("--model", choices=MODELS, default="minilm-l6")
    parser.add_argument("--threads", type=int, default=1)
    parser.add_argument("--precisions", default="fp32,int8", help="(%(default)s)")
    parser.add_argument("--batches", default="8,32", help="the largest number of items in a batch (%(default)s)")
    parser.add_argument("--rounds", type=int, default=7, help="each is all requests by every contender (%(default)s)")
    add_traffic_options(parser, requests=256)
    arguments = parser.parse_args(words)
    bench = prepare(arguments.model, arguments.scratch)
    lengths = read_lengths(arguments.lengths, bench.base.tokenizer)
    requests = make_requests([task for task in bench.deltas if not task.endswith(_AGAIN)], lengths, arguments.requests)
    clock = clock_for(arguments.threads)
    settings = {"model": bench.name, "threads": arguments.threads, "rounds": arguments.rounds, "clock": clock.name}
    settings |= describe_traffic(requests, lengths)
    results = Results(arguments.results, f"serving_mix-{bench.name}-{arguments.threads}", settings)
    for precision in arguments.precisions.split(","):
        for size in map(int, arguments.batches.split(",")):
            done = results.measured.setdefault(precision, {})
            if str(size) not in done:
                with tempfile.TemporaryDirectory() as folder:
                    mix = Mix(bench, precision, requests, size, arguments.threads, Path(folder))
                    done[str(size)] = mix.measure(arguments.rounds, clock)
                results.save()
                say(f"{bench.name} {precision}, batches of {size}: {shown(done[str(size)])}")
                gc.collect()
    print(results.save())


@dataclass(frozen=True)
class Mix:
    """The requests at one precision, in batches of one size.

    Attributes:
        size: the largest number of items in a batch.
        folder: for files that the measured processes read.
        chosen: which baseline was the fastest, for each contender that is one.
    """

    bench: Workbench
    precision: str
    requests: Sequence[Request]
    size: int
    threads: int
    folder: Path
    chosen: dict[str, str] = field(default_factory=dict)

    def measure(self, rounds: int, clock: Clock) -> dict[str, Any]:
        """Time the contenders in turn, then measure the memory of each; one that does not run is left out."""
        contenders, refused = self._contenders()
        work = self._work(contenders, refused)
        times = time_in_turn(work, rounds=rounds, warm_up=0, clock=clock.seconds, pause=clock.pause)
        work.clear()
        gc.collect()
        found = {name: self._describe(times, name, contenders[name]) for name in times.seconds}
        return {"contenders": found, "baselines": self.chosen, "refused": refused}

    def _contenders(self) -> tuple[dict[str, Contender], dict[str, str]]:
        makers: dict[str, Callable[[], Contender]] = {
            BUNDLE: lambda: Contender(self._bundle(), "mixed"),
            KEPT: lambda: Contender(self._bundle(keep_padding=True), "mixed"),
            BASELINES: lambda: Contender(self._baselines(BASELINES, "by task"), "by task"),
            ALONE: lambda: Contender(self._baselines(ALONE, "alone"), "alone"),
        }
        if self.precision == "fp32":
            makers[PYTORCH] = lambda: Contender(self._torch(), "by task")
        made: dict[str, Contender] = {}
        refused: dict[str, str] = {}
        for name, make in makers.items():
            try:
                made[name] = make()
            except BitfitError as error:
                refused[name] = first_line(error)
        return made, refused

    def _work(self, contenders: Mapping[str, Contender], refused: dict[str, str]) -> dict[str, Callable[[], object]]:
        """A call for each contender that answers all requests; sessions that are the same are opened once."""
        opened: dict[Server, Serve] = {}
        work: dict[str, Callable[[], object]] = {}
        for name, contender in contenders.items():
            batches = self._prepare(self._batches(contender.batching))
            try:
                if contender.server not in opened:
                    opened[contender.server] = open_server(contender.server, self.threads)
                serve = opened[contender.server]
                answer_all(serve, list({tasks[0]: (tasks, ids) for tasks, ids in batches}.values()))
            except Exception as error:  # of any library: the others still run
                refused[name] = first_line(error)
            else:
                work[name] = functools.partial(answer_all, serve, batches)
        return work

    def _describe(self, times: Times, name: str, contender: Contender) -> dict[str, float]:
        described = {
            "items per second": len(self.requests) / times.median(name),
            "padding": padding_of(self._batches(contender.batching)),
            "peak memory (MB)": self._peak(contender) / 1e6,
        }
        if BASELINES in times.seconds:
            described[TIME_RATIO] = times.ratio(name, BASELINES)
        return described

    def _peak(self, contender: Contender) -> float:
        plan = {
            "server": dataclasses.asdict(contender.server),
            "threads": self.threads,
            "batches": [[(each.task, each.length) for each in batch] for batch in self._batches(contender.batching)],
            "inputs": self.bench.base.input_names,
            "vocabulary": self.bench.base.module.config.vocab_size,
        }
        path = self.folder / "plan.json"
        path.write_text(json.dumps(plan))
        return float(run_json("serve_once.py", str(path))["peak"])

    def _batches(self, batching: str) -> list[Batch]:
        return BATCHINGS[batching](self.requests, self.size)

    def _prepare(self, batches: Sequence[Batch]) -> list[tuple[list[str], Ids]]:
        base = self.bench.base
        return prepare_batches(batches, base.input_names, base.module.config.vocab_size)

    @property
    def _tasks(self) -> list[str]:
        asked = {request.task for request in self.requests}
        return [task for task in self.bench.deltas if task in asked]

    def _bundle(self, **options: bool) -> Server:
        folder = self.bench.bundle(layout="table", precision=self.precision, **options)
        return Server("bundle", (("", str(folder)),))

    def _baselines(self, name: str, batching: str) -> Server:
        """Each task's model by the way that is fastest for such batches.

        The threads of a session go on waiting busily after a run, and take the processor from those of the next task's
        session. Where there is more than one thread, it is tried whether they should.
        """
        bench, precision = self.bench, self.precision
        first = export_baselines(bench.base, bench.deltas[bench.task], bench.baseline_folder, precision)
        ways = {way: Server("baselines", ((bench.task, str(path)),)) for way, path in first.paths.items()}
        way = self._fastest(ways, batching, [bench.task])
        paths = [(bench.task, str(first.paths[way]))]
        for task in self._tasks[1:]:
            folder = bench.folder / "baselines" / task
            made = export_baselines(bench.base, bench.deltas[task], folder, precision, ways=[way])
            paths.append((task, str(made.paths[way])))
        server = Server("baselines", tuple(paths))
        self.chosen[name] = way
        if self.threads > 1:
            server, self.chosen[name] = self._with_best_threads(server, way, batching)
        say(f"{bench.name} {precision}, batches of {self.size}: {name}: {self.chosen[name]}")
        return server

    def _with_best_threads(self, server: Server, way: str, batching: str) -> tuple[Server, str]:
        """The sessions with threads that spin or sleep, and what is said about them."""
        few = server.paths[:_TASKS_TO_CHOOSE]
        candidates = {
            f"{way}, threads {word}": dataclasses.replace(server, spin=spin, paths=few) for word, spin in _WAITING
        }
        name = self._fastest(candidates, batching, [task for task, _ in few])
        return dataclasses.replace(candidates[name], paths=server.paths), name

    def _fastest(self, candidates: Mapping[str, Server], batching: str, tasks: Sequence[str]) -> str:
        """The name of the one that answers requests of these tasks the fastest."""
        few = [batch for batch in self._batches(batching) if batch[0].task in tasks]
        batches = self._prepare(few[: max(_REQUESTS_TO_CHOOSE // len(few[0]), len(tasks))])
        work: dict[str, Callable[[], object]] = {}
        for name, server in candidates.items():
            try:
                serve = open_server(server, self.threads)
                answer_all(serve, batches[:1])
            except Exception as error:  # of any library: the others still run
                say(f"{self.bench.name} {self.precision}, {name}: {first_line(error)}")
            else:
                work[name] = functools.partial(answer_all, serve, batches)
        clock = clock_for(self.threads)
        times = time_in_turn(work, rounds=_ROUNDS_TO_CHOOSE, warm_up=1, clock=clock.seconds, pause=clock.pause)
        return times.fastest(work)

    def _torch(self) -> Server:
        """One base model for all tasks, and each task's biases and head."""
        base = self.bench.base
        models = {}
        for task in self._tasks:
            model = merged_model(base, self.bench.deltas[task])
            biases = {name: model.base.get_parameter(name) for name in base.biases}
            model.base = base.module
            models[task] = model, biases
        path = self.folder / "models.pt"
        torch.save(models, path)
        return Server("torch", (("", str(path)),))


def answer_all(serve: Serve, batches: Sequence[tuple[list[str], Ids]]) -> None:
    """Answer batch after batch."""
    for tasks, ids in batches:
        serve(tasks, ids)


def shown(measured: Mapping[str, Any]) -> str:
    """Items per second of each, in a line."""
    return "; ".join(f"{name} {each['items per second']:.1f}" for name, each in measured["contenders"].items())


if __name__ == "__main__":
    main()
