"""What the product is to reach, and where the results say what it reaches."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

from contenders import OPENVINO_BFLOAT16, OPENVINO_STATIC, PACKED, RAW, TABLE
from padding import RATIO
from serving_mix import BUNDLE, TIME_RATIO
from session_overhead import SESSION
from speed import TASK_PAIR

from bitfit_export.bundle.interface import LAYOUT_KINDS

__all__ = ["TARGETS", "Reading", "Report", "Target", "find", "read_results", "shapes_of"]


@dataclass(frozen=True)
class Target:
    """A bound on one measured figure.

    Attributes:
        limit: the largest value that is good.
        place: the result's name and the keys that lead to the figure.
        divisor: the figure by this is in the target's unit.
    """

    name: str
    limit: float
    place: tuple[str, ...]
    unit: str = ""
    divisor: float = 1.0

    def read(self, results: Mapping[str, Any]) -> Reading:
        """Find the figure among the results."""
        value = find(results, self.place)
        return Reading(self, None if value is None else float(value) / self.divisor)


@dataclass(frozen=True)
class Reading:
    """What was measured for a target; None where nothing was."""

    target: Target
    value: float | None

    @property
    def verdict(self) -> str:
        """`pass`, `shortfall` or `not measured`."""
        if self.value is None:
            return "not measured"
        return "pass" if self.value <= self.target.limit else "shortfall"

    def cells(self) -> tuple[str, str, str, str]:
        """The target, its bound, the figure and the verdict, as a table has them."""
        return (self.target.name, self._text(self.target.limit), self._text(self.value), self.verdict)

    def _text(self, value: float | None) -> str:
        # Three digits, so that a figure just beyond its bound does not look as if it met it.
        return "" if value is None else f"{value:.3f} {self.target.unit}".rstrip()


@dataclass(frozen=True)
class Report:
    """The files of a folder of results.

    Attributes:
        measured: what each file says was measured, by the file's name without its ending.
        circumstances: where and with what; several lines where files differ.
        elsewhere: the folders in the folder, by name: what was measured on other kinds of processors.
    """

    measured: Mapping[str, Any]
    circumstances: Sequence[str]
    elsewhere: Mapping[str, Report] = field(default_factory=dict)


def read_results(folder: Path) -> Report:
    """Read all files of a folder of results, and those of the folders in it that have any."""
    elsewhere = {each.name: _read(each) for each in sorted(folder.iterdir()) if each.is_dir()}
    return replace(_read(folder), elsewhere={name: report for name, report in elsewhere.items() if report.measured})


def _read(folder: Path) -> Report:
    files = {path.stem: json.loads(path.read_text()) for path in sorted(folder.glob("*.json"))}
    files = {name: content for name, content in files.items() if isinstance(content, dict) and "measured" in content}
    lines: dict[str, list[str]] = {}
    for name, content in files.items():
        lines.setdefault(_circumstances(content), []).append(name)
    only = len(lines) == 1
    shown = [line if only else f"{line}: {', '.join(names)}" for line, names in lines.items()]
    return Report({name: content["measured"] for name, content in files.items()}, shown)


def _circumstances(content: Mapping[str, Any]) -> str:
    machine, versions = content["machine"], content["versions"]
    libraries = ", ".join(f"{name} {versions[name]}" for name in ("onnxruntime", "torch", "transformers"))
    return f"{_processor(machine)}, {machine['cores']} cores; {libraries}; code {content.get('code', 'unknown')}"


def _processor(machine: Mapping[str, Any]) -> str:
    """The processor with its instruction sets; older results have them in its name."""
    if "instruction sets" not in machine:
        return str(machine["processor"])
    sets = machine["instruction sets"]
    known = "instruction sets unknown" if sets is None else ", ".join(sets) or "no known vector instructions"
    return f"{machine['processor']} ({known})"


def find(results: Mapping[str, Any], place: tuple[str, ...]) -> Any:
    """What the keys lead to, or None."""
    value: Any = results
    for key in place:
        if not isinstance(value, Mapping) or key not in value:
            return None
        value = value[key]
    return value


def shapes_of(measured: Mapping[str, Any], precision: str) -> dict[str, Any]:
    """What `speed.py` measured in a precision, by shape, the smallest batch and sequence first."""
    shapes = find(measured, ("shapes", precision)) or {}
    return dict(sorted(shapes.items(), key=lambda item: tuple(map(int, item[0].split("x")))))


def _speed(model: str, precision: str, shape: str, contender: str) -> tuple[str, ...]:
    return (f"speed-{model}-1", "shapes", precision, shape, "contenders", contender, "ratio")


def _speed_targets() -> list[Target]:
    """Of one thread, by the fastest baseline of the precision."""
    found = []
    for precision, limits in (("int8", (0.85, 0.90, 0.92)), ("fp32", (0.87, 0.96, 0.99))):
        for shape, limit in zip(("1x16", "1x64", "8x32"), limits, strict=True):
            name = f"MiniLM, {precision}, {shape}, raw session: time / {precision} baseline"
            found.append(Target(name, limit, _speed("minilm-l6", precision, shape, RAW)))
    for name, limit, precision, contender in (
        ("int8, table", 0.90, "int8", TABLE),
        ("int8, packed", 0.88, "int8", PACKED),
        ("fp32 on OpenVINO in bfloat16", 0.55, "fp32", OPENVINO_BFLOAT16),
        ("int8-static on OpenVINO", 0.88, "int8", OPENVINO_STATIC),
    ):
        place = _speed("bert-base", precision, "1x128", contender)
        found.append(Target(f"BERT-base, {name}, 1x128: time / {precision} baseline", limit, place))
    for shape in ("8x16", "8x32", "8x128"):
        place = ("speed-bert-base-1", "shapes", "fp32", shape, "pairs", TASK_PAIR)
        found.append(Target(f"BERT-base, 8 tasks mixed, {shape}: time / one task", 1.02, place))
    return found


def _session_targets() -> list[Target]:
    """What the runtime takes beside its engine."""
    found = []
    for layout in LAYOUT_KINDS:
        place = ("session_overhead", layout, "1x16", SESSION, "beyond ONNX Runtime, CPU (us)")
        found.append(Target(f"BiasSession.run beyond its engine, {layout}", 50, place, "us"))
    for precision in ("fp32", "int8"):
        place = ("load-minilm-l6", precision, "opened", "bundle", "seconds / baseline")
        found.append(Target(f"MiniLM, {precision}: load / baseline load", 0.45, place))
    return found


def _mixed_targets() -> list[Target]:
    """Of MiniLM, with the lengths of real texts."""
    found = []
    for threads, limits in (("1", {"8": 0.55, "32": 0.42}), ("2", {"8": 0.70, "32": 0.50})):
        for size, limit in limits.items():
            name = f"MiniLM, fp32, {threads} threads, real lengths, batches of {size}: time / padding kept"
            kept = (f"padding-minilm-l6-{threads}", "fp32", f"real lengths, batches of {size}", RATIO)
            found.append(Target(name.replace("1 threads", "1 thread"), limit, kept))
    for precision in ("fp32", "int8"):
        for size in ("8", "32"):
            mixed = ("serving_mix-minilm-l6-1", precision, size, "contenders", BUNDLE, TIME_RATIO)
            found.append(Target(f"MiniLM, {precision}, mixed requests, batches of {size}: {TIME_RATIO}", 0.5, mixed))
    return found


def _learning_targets() -> list[Target]:
    """Of a step of `BiasTrainer` on MiniLM."""
    found = []
    for threads in ("1 thread", "2 threads"):
        step = ("learning_step", f"minilm-l6, {threads}")
        time, memory = (*step, "seconds, program / torch"), (*step, "peak (MB), program / torch")
        found.append(Target(f"learning step, MiniLM, {threads}: time / PyTorch's", 0.70, time))
        found.append(Target(f"learning step, MiniLM, {threads}: peak memory / PyTorch's", 0.6, memory))
    return found


TARGETS = (
    *_speed_targets(),
    *_mixed_targets(),
    *_session_targets(),
    *_learning_targets(),
    Target("switch of task, 5 tasks", 10, ("switch_tasks", "5", "choosing a row (us)"), "us"),
    Target("switch of task, 1,000 tasks", 10, ("switch_tasks", "1000", "choosing a row (us)"), "us"),
    Target("row with fp16 values, 2 labels", 135, ("compile_models", "bert-base", "fp16 row (bytes)"), "KB", 1000),
    Target("compiling 8 tasks: time / torch.onnx.export", 2, ("compile_models", "bert-base", "compiling / alone")),
    Target("training step: time / full", 0.55, ("training_step", "bert-base", "seconds, bitfit / full")),
    Target("training step: growth of memory / full", 0.4, ("training_step", "bert-base", "growth, bitfit / full")),
    *(
        Target(f"{precision}, {task}: points lost", limit, ("accuracy", precision, task, "lost"))
        for precision, limit in (("int8", 0.5), ("int8-static", 0.5), ("int4", 1.5))
        for task in ("sst2", "mrpc", "cola", "stsb", "rte")
    ),
)
