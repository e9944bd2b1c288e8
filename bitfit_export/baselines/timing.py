"""Time a bundle beside single-task baselines: the same fine-tuned model, its biases constant, exported as usual.

Everything is called in turn on the same ids, so a machine that slows down slows down all of it: trust the ratios.
"""

from __future__ import annotations

import functools
import itertools
import statistics
import tempfile
import time
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from bitfit_export.base_model.loading import BaseModel
from bitfit_export.baselines.exports import export_baselines, random_ids
from bitfit_export.bundle import Manifest
from bitfit_export.delta import TOKEN_PROBLEMS, TaskDelta
from bitfit_export.errors import InputError
from bitfit_export.runtime import BiasSession

__all__ = ["SHAPES", "ShapeTimes", "Times", "bench_bundle", "open_baseline", "time_in_turn"]

#: Batch and sequence.
SHAPES = ((1, 16), (1, 128), (8, 16), (8, 128))
BASELINE = "baseline: "
ONE_TASK = "bundle, one task"
MIXED = "bundle, mixed"
#: However little time there is, a median of fewer rounds says nothing.
_LEAST_ROUNDS = 5


@dataclass(frozen=True)
class Times:
    """The seconds that each contender took in each round."""

    seconds: Mapping[str, Sequence[float]]

    @property
    def rounds(self) -> int:
        """The number of rounds that count."""
        return len(next(iter(self.seconds.values())))

    def median(self, name: str) -> float:
        """The median seconds of a contender."""
        return statistics.median(self.seconds[name])

    def ratios(self, name: str, other: str) -> list[float]:
        """A contender's time by another's, round by round."""
        return [one / two for one, two in zip(self.seconds[name], self.seconds[other], strict=True)]

    def ratio(self, name: str, other: str) -> float:
        """The median of `ratios`: each quotient is of two runs a moment apart."""
        return statistics.median(self.ratios(name, other))

    def fastest(self, names: Iterable[str]) -> str:
        """The contender with the least median among these."""
        return min(names, key=self.median)


@dataclass(frozen=True)
class ShapeTimes:
    """The times at one shape. Baseline models' names begin with `BASELINE`."""

    batch: int
    sequence: int
    times: Times

    @property
    def fastest_baseline(self) -> str:
        """The name of the fastest baseline, which the bundle is compared with."""
        return self.times.fastest(name for name in self.times.seconds if name.startswith(BASELINE))

    def describe(self) -> dict[str, dict[str, float]]:
        """For each contender milliseconds (`ms`) and the ratio to the fastest baseline (`of baseline`); medians."""
        times, baseline = self.times, self.fastest_baseline
        return {
            name: {"ms": times.median(name) * 1e3, "of baseline": times.ratio(name, baseline)} for name in times.seconds
        }


def time_in_turn(
    work: Mapping[str, Callable[[], object]],
    *,
    rounds: int,
    warm_up: int = 3,
    clock: Callable[[], float] = time.perf_counter,
    limit: float | None = None,
    pause: float = 0.0,
) -> Times:
    """Time callables in rounds: each round calls each once, in an order of its own, so none always follows the same.

    Args:
        warm_up: rounds before, that do not count.
        clock: gives seconds.
        limit: stop after this number of seconds, but not before some rounds are done.
        pause: seconds to wait before each call, in which the threads of the last one come to rest.
    """
    order = np.random.default_rng(0)
    seconds: dict[str, list[float]] = {name: [] for name in work}
    begun = time.monotonic()
    for number in range(rounds + warm_up):
        counted = number - warm_up
        if limit is not None and counted >= _LEAST_ROUNDS and time.monotonic() - begun > limit:
            break
        for name in order.permutation(list(work)).tolist():
            if pause:
                time.sleep(pause)
            started = clock()
            work[name]()
            elapsed = clock() - started
            if counted >= 0:
                seconds[name].append(elapsed)
    return Times(seconds)


def bench_bundle(
    bundle: Path,
    base: BaseModel,
    task: str,
    delta: TaskDelta,
    *,
    engine: str | None = None,
    engine_options: Mapping[str, str] | None = None,
    threads: int = 1,
    rounds: int = 30,
    shapes: Sequence[tuple[int, int]] | None = None,
    check_hashes: bool = False,
    on_refused: Callable[[str, str], object] | None = None,
) -> Iterator[ShapeTimes]:
    """Time the bundle and baseline exports of one of its tasks in the bundle's precision, shape by shape.

    A bundle that runs one task at a time has no mixed batches.

    Args:
        task: the task that the baseline models run, and the bundle in its single-task runs.
        delta: that task's.
        engine, engine_options: as for `BiasSession`; the baselines run in ONNX Runtime.
        shapes: batch and sequence; by default the bundle's own if they are fixed, else `SHAPES`.
        check_hashes: as for `BiasSession`.
        on_refused: called with the name and the reason of each baseline export that does not work.

    Raises:
        CompileError: no baseline export works.
        InputError: a sequence that is longer than the bundle takes.
    """
    session = BiasSession(
        bundle, engine=engine, engine_options=engine_options, threads=threads, check_hashes=check_hashes
    )
    manifest = session.manifest
    shapes = shapes or ([manifest.static_shape] if manifest.static_shape else SHAPES)
    longest = max(sequence for _, sequence in shapes)
    if longest > manifest.max_positions:
        raise InputError(f"a sequence to time has {longest} tokens, expected at most {manifest.max_positions}")
    with tempfile.TemporaryDirectory() as folder:
        exported = export_baselines(base, delta, Path(folder), manifest.precision)
        for name, reason in exported.refused.items():
            if on_refused is not None:
                on_refused(name, reason)
        baseline = {f"{BASELINE}{name}": open_baseline(path, threads) for name, path in exported.paths.items()}
        for batch, sequence in shapes:
            feeds = random_ids(base, batch, sequence)
            work: dict[str, Callable[[], object]] = {
                name: functools.partial(each.run, None, feeds) for name, each in baseline.items()
            }
            work[ONE_TASK] = functools.partial(session.run, task, **feeds)
            if manifest.layout_kind == "table":
                mixed = list(itertools.islice(itertools.cycle(_mixable(manifest, task)), batch))
                work[MIXED] = functools.partial(session.run, mixed, **feeds)
            yield ShapeTimes(batch, sequence, time_in_turn(work, rounds=rounds))


def _mixable(manifest: Manifest, task: str) -> list[str]:
    """The tasks that read the same output of the model as `task` does."""
    reads_tokens = {name: each.problem_type in TOKEN_PROBLEMS for name, each in manifest.tasks.items()}
    return [name for name, tokens in reads_tokens.items() if tokens == reads_tokens[task]]


def open_baseline(path: Path, threads: int, *, spin: bool = True) -> Any:
    """An ONNX Runtime session at full optimisation, its default.

    Args:
        spin: its threads wait for work busily, ONNX Runtime's default; they disturb those of other sessions.
    """
    import onnxruntime as ort

    options = ort.SessionOptions()
    options.intra_op_num_threads = threads
    options.log_severity_level = 3
    options.add_session_config_entry("session.intra_op.allow_spinning", str(int(spin)))
    return ort.InferenceSession(path, options, providers=["CPUExecutionProvider"])
