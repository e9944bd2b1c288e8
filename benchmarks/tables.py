"""Results as tables: rows of text under a header, in Markdown or plain."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, TypeAlias

from contenders import MIXED, ONE_BY_ONE, PACKED, RAW, RAW_PADDED, STATIC, TABLE
from padding import RATIO
from serving_mix import ALONE, BASELINES, BUNDLE, KEPT, PYTORCH, TIME_RATIO
from targets import TARGETS, find, shapes_of

from bitfit_export.baselines.timing import BASELINE
from bitfit_export.training.tasks import GLUE_TASKS

__all__ = ["SUMMARIES", "Table", "detail_tables", "target_table"]

#: An operator that takes less in either model is left out.
_SHOWN_MS = 0.1

Measured: TypeAlias = Mapping[str, Any]


@dataclass(frozen=True)
class Table:
    """A title, a header, and rows as long as the header."""

    title: str
    header: tuple[str, ...]
    rows: Sequence[Sequence[str]]

    def markdown(self) -> str:
        """As Markdown has it, the title, if there is one, as a heading."""
        heading = [f"### {self.title}", ""] if self.title else []
        lines = [*heading, _line(self.header), _line(["---"] * len(self.header))]
        return "\n".join([*lines, *map(_line, self.rows), ""])


def target_table(results: Measured, *, measured_only: bool = False) -> Table:
    """Each target with what was measured."""
    readings = [target.read(results) for target in TARGETS]
    rows = [each.cells() for each in readings if each.value is not None or not measured_only]
    return Table("Targets", ("", "at most", "measured", ""), rows)


def detail_tables(results: Measured) -> Iterator[Table]:
    """Everything else that was measured and bears a look."""
    for name, measured in results.items():
        kind, _, rest = name.partition("-")
        if kind == "speed":
            yield from _speed_tables(rest, measured)
        elif kind == "operators":
            yield from _operator_tables(rest, measured)
        elif kind == "load":
            yield from _load_tables(rest, measured)
        elif kind == "cpp":
            yield from _cpp_tables(rest, measured)
        elif kind == "serving_mix":
            yield from _serving_tables(rest, measured)
        elif kind == "serving":
            yield _service_table(rest, measured)
        elif kind == "padding":
            yield from _padding_tables(rest, measured)
    if "session_overhead" in results:
        yield from _overhead_tables(results["session_overhead"])
    if "batch_tokens" in results:
        yield _figures("Predictions by the most tokens of a batch", results["batch_tokens"])
    if "compile_models" in results:
        yield _figures("Compiling", results["compile_models"])
    if "training_step" in results:
        yield _figures("A training step", results["training_step"])
    if "learning_step" in results:
        yield _figures("A step of learning on a device, beside PyTorch's BitFit step", results["learning_step"])
    for model, sides in results.get("learning_profile", {}).items():
        yield _step_profile(f"{model}, 1 thread: milliseconds of a step of learning by operator", sides)
    for model, measured in results.get("step_profile", {}).items():
        for unit, methods in measured.items():
            yield _step_profile(f"{model}: {unit} of a training step", methods)
    if "accuracy" in results:
        yield _accuracy(results["accuracy"])
    of_npu = {name.partition("-")[2]: each for name, each in results.items() if name.startswith("npu_accuracy-")}
    if of_npu:
        yield _npu_accuracy(of_npu)
    for rows, measured in results.get("peak", {}).items():
        yield _peak(rows, measured)


def _speed_tables(name: str, measured: Measured) -> Iterator[Table]:
    model, _, threads = name.rpartition("-")
    for precision in measured.get("shapes", {}):
        shapes = shapes_of(measured, precision)
        names = dict.fromkeys(name for shape in shapes.values() for name in shape["contenders"])
        ours = [each for each in (RAW, RAW_PADDED, TABLE, MIXED, PACKED, ONE_BY_ONE, STATIC) if each in names]
        others = [each for each in names if each not in ours and not each.startswith(BASELINE)]
        rows = []
        for shape, each in shapes.items():
            baseline = each["fastest baseline"]
            first = f"{each['contenders'][baseline]['ms']:.2f} ms ({baseline.removeprefix(BASELINE)})"
            cells = [find(each, ("contenders", contender, "ratio")) for contender in (*ours, *others)]
            rows.append([shape, first, *("" if cell is None else f"{cell:.3f}" for cell in cells)])
        title = f"{model}, {precision}, {_threads(threads)}: time / fastest baseline"
        if shapes:
            yield Table(title, ("batch x sequence", "fastest baseline", *ours, *others), rows)


def _serving_tables(name: str, measured: Measured) -> Iterator[Table]:
    model, _, threads = name.rpartition("-")
    for precision, sizes in measured.items():
        for size, each in sizes.items():
            rows = []
            for contender in (BUNDLE, KEPT, BASELINES, ALONE, PYTORCH):
                found = each["contenders"].get(contender)
                if found is not None:
                    chosen = each["baselines"].get(contender)
                    first = f"{contender} ({chosen})" if chosen else contender
                    rows.append([first, *(cell(found) for cell in _SERVING.values())])
            title = f"{model}, {precision}, {_threads(threads)}, batches of {size}: requests of mixed tasks"
            yield Table(title, ("", *_SERVING), rows)


_SERVING: Mapping[str, Callable[[Measured], str]] = {
    "items per second": lambda found: f"{found['items per second']:,.1f}",
    TIME_RATIO: lambda found: f"{found[TIME_RATIO]:.3f}" if TIME_RATIO in found else "",
    "padding in its batches": lambda found: f"{found['padding']:.0%}",
    "peak memory (MB)": lambda found: f"{found['peak memory (MB)']:,.0f}",
}


def _service_table(name: str, measured: Measured) -> Table:
    if name.endswith("-swaps"):
        return _swaps_table(name.removesuffix("-swaps"), measured)
    rows = []
    for contender, counts in measured.items():
        for tasks, found in counts.items():
            for callers, each in found["callers"].items():
                latencies = (f"{each[key]:,.1f}" for key in ("answers per second", "p50 (ms)", "p99 (ms)"))
                counted = f"{each['wrong']} of {each['answers']:,}"
                memory = f"{found['peak memory (MB)']:,.0f}"
                rows.append([contender, tasks, callers, *latencies, counted, memory])
    header = ("", "tasks", "callers", "answers per second", "p50 (ms)", "p99 (ms)", "wrong", "peak memory (MB)")
    return Table(f"{name}: bitfit serve", header, rows)


def _swaps_table(model: str, measured: Measured) -> Table:
    """Counts alone: how fast it is does not matter here."""
    rows = [
        [contender, tasks, callers, f"{each['answers']:,}", str(each["wrong"]), str(sum(each["refused"].values()))]
        for contender, counts in measured.items()
        for tasks, found in counts.items()
        for callers, each in found["callers"].items()
    ]
    header = ("", "tasks", "callers", "answers", "wrong", "refused")
    return Table(f"{model}: bitfit serve while rows are replaced all the time", header, rows)


def _padding_tables(name: str, measured: Measured) -> Iterator[Table]:
    model, _, threads = name.rpartition("-")
    for precision, cases in measured.items():
        rows = [
            [case, f"{each['padding']:.0%}", *(f"{each[key]:.3f}" for key in ("removed (ms)", "kept (ms)", RATIO))]
            for case, each in cases.items()
        ]
        header = ("", "padding", "removed (ms)", "kept (ms)", RATIO)
        yield Table(f"{model}, {precision}, {_threads(threads)}: padding removed and kept", header, rows)


def _operator_tables(name: str, measured: Measured) -> Iterator[Table]:
    model, _, shape = name.rpartition("-")
    for precision, each in measured.items():
        names = sorted({*each["baseline"], *each["bundle"]}, key=lambda name: -_of_both(each, name))
        shown = [name for name in names if _of_both(each, name) >= _SHOWN_MS]
        rows = [[name, *(_number(each[kind].get(name)) for kind in ("baseline", "bundle"))] for name in shown]
        rows.append(["**all**", *(_number(sum(each[kind].values())) for kind in ("baseline", "bundle"))])
        title = f"{model}, {precision}, {shape}, 1 thread: milliseconds of a run by operator"
        yield Table(title, ("", "baseline", "bundle"), rows)


def _of_both(each: Measured, name: str) -> float:
    return float(max(each["baseline"].get(name, 0.0), each["bundle"].get(name, 0.0)))


def _load_tables(model: str, measured: Measured) -> Iterator[Table]:
    for precision, each in measured.items():
        keys = list(next(iter(each["opened"].values())))
        rows = [[name, *(f"{figures[key]:.3f}" for key in keys)] for name, figures in each["opened"].items()]
        yield Table(f"{model}, {precision}: loading; baseline by {each['fastest baseline']}", ("", *keys), rows)


def _cpp_tables(model: str, measured: Measured) -> Iterator[Table]:
    for precision, each in measured.items():
        keys = ("C++", "Python", "C++ / Python")
        rows = [[name, *(_number(figures[key]) for key in keys)] for name, figures in each["figures"].items()]
        rows += [[name, _number(value), "", ""] for name, value in each["only C++"].items()]
        yield Table(f"{model}, {precision}: the C++ runtime and the Python session, one thread", ("", *keys), rows)


def _overhead_tables(measured: Measured) -> Iterator[Table]:
    for layout, shapes in measured.items():
        for shape, contenders in shapes.items():
            yield _figures(f"BiasSession.run and the engine alone, {layout}, {shape}", contenders)


def _figures(title: str, measured: Mapping[str, Mapping[str, float]]) -> Table:
    keys = dict.fromkeys(key for figures in measured.values() for key in figures)
    rows = [[key, *(_number(figures.get(key)) for figures in measured.values())] for key in keys]
    return Table(title, ("", *measured), rows)


def _step_profile(title: str, methods: Mapping[str, Mapping[str, float]]) -> Table:
    names = {name: max(each.get(name, 0.0) for each in methods.values()) for each in methods.values() for name in each}
    rows = [
        [name, *(_number(each.get(name)) for each in methods.values())]
        for name in sorted(names, key=lambda name: -names[name])
    ]
    rows.append(["**all**", *(_number(sum(each.values())) for each in methods.values())])
    return Table(title, ("", *methods), rows)


def _accuracy(measured: Measured) -> Table:
    rows = [
        [
            *(task, each["metric"], precision, f"{each['value']:.2f}", f"{each['lost']:.2f}"),
            *(_by_chance(each), f"{each['agreement']:.2f}"),
        ]
        for precision, tasks in measured.items()
        for task, each in tasks.items()
        if task != "refused"
    ]
    header = ("task", "metric (x 100)", "precision", "value", "lost", "lost by chance", "agreement with fp32 (%)")
    return Table("Accuracy of the shipped tasks", header, sorted(rows))


def _by_chance(measured: Measured) -> str:
    """What the same errors lose at random, with its standard deviation."""
    lost = measured["lost by chance"]
    return f"{lost['mean']:.2f} ± {lost['deviation']:.2f}"


def _npu_accuracy(measured: Measured) -> Table:
    difference = "largest difference of a logit to the engine"
    rows = [
        [task, each["metric"], precision, f"{each['value']:.2f}", f"{each['lost']:.2f}", _number(each[difference])]
        for precision, tasks in measured.items()
        for task, each in tasks.items()
    ]
    header = ("task", "metric (x 100)", "precision", "value", "lost", difference)
    return Table("Accuracy of the shipped tasks, target qnn", header, sorted(rows))


def _peak(rows: str, measured: Measured) -> Table:
    peak = measured["peak (GOP/s)"]
    cells = [
        [name, f"{each['ms']:.2f} ms", f"{each['of peak']:.1%}", f"{peak[name.split(',')[0]]:.0f} GOP/s"]
        for name, each in measured["all of BERT-base's"].items()
    ]
    header = ("by", "all products of a run", "of the core's peak", "peak")
    return Table(f"BERT-base's matrix products alone, {rows}", header, cells)


def _threads(count: str) -> str:
    return f"{count} thread" if count == "1" else f"{count} threads"


def _number(value: float | None) -> str:
    return "" if value is None else f"{value:,.3f}".removesuffix(".000")


def _line(cells: Sequence[str]) -> str:
    return f"| {' | '.join(cells)} |"


# --- in short

_MODELS = {"bert-base": "BERT-base", "minilm-l6": "MiniLM"}
_SHORT_SHAPES = ("1x16", "1x128", "8x16", "8x128")


def _speed_summary(results: Measured) -> Table:
    """Time of bundles by that of the fastest baseline, on one thread."""
    rows = []
    for model, shown in _MODELS.items():
        found = {each: shapes_of(results.get(f"speed-{model}-1", {}), each) for each in ("fp32", "int8")}
        for shape in _SHORT_SHAPES:
            cells = [
                *_baseline_and_ratios(found["fp32"].get(shape), (TABLE,)),
                *_baseline_and_ratios(found["int8"].get(shape), (TABLE, PACKED)),
            ]
            if any(cells):
                rows.append([f"{shown}, {shape.replace('x', ' x ')}", *cells])
    columns = ("fp32 baseline", "fp32 bundle", "int8 baseline", "int8 bundle", "int8 bundle, packed")
    return Table("", ("model, batch x sequence", *columns), rows)


def _baseline_and_ratios(shape: Measured | None, contenders: Sequence[str]) -> list[str]:
    if shape is None:
        return [""] * (1 + len(contenders))
    milliseconds = float(shape["contenders"][shape["fastest baseline"]]["ms"])
    ratios = [find(shape, ("contenders", contender, "ratio")) for contender in contenders]
    return [
        f"{milliseconds:,.{0 if milliseconds >= 1000 else 1}f} ms",
        *("" if ratio is None else f"{ratio:.2f}" for ratio in ratios),
    ]


def _serving_summary(results: Measured) -> Table:
    """Items per second of requests of mixed tasks and their memory, on one thread."""
    header = ("items per second (peak memory)", *(name for name in (BUNDLE, KEPT, BASELINES, ALONE, PYTORCH)))
    rows = []
    for model, shown in _MODELS.items():
        for precision, sizes in results.get(f"serving_mix-{model}-1", {}).items():
            for size, each in sizes.items():
                found = [each["contenders"].get(name) for name in header[1:]]
                rows.append([f"{shown}, {precision}, batches of {size}", *map(_items_and_memory, found)])
    return Table("", header, rows)


def _items_and_memory(found: Measured | None) -> str:
    return "" if found is None else f"{found['items per second']:,.1f} ({found['peak memory (MB)']:,.0f} MB)"


_TASKS = {"sst2": "SST-2", "mrpc": "MRPC"}


def _learning_summary(results: Measured) -> Table:
    """What three programs score after each epoch, by the metric that chooses the epoch; and the accuracy beside it."""
    rows = []
    for task, shown in _TASKS.items():
        metric = GLUE_TASKS[task].metrics[0]
        for program, found in results.get(f"learn_scores-{task}", {}).items():
            if "epochs" in found:
                scores = ", ".join(_score(epoch, metric) for epoch in found["epochs"])
                rows.append([f"{shown}, {metric}", program, scores, f"{found['CPU seconds']:,.0f}"])
    return Table("", ("task, metric (accuracy)", "program", "after each epoch", "CPU seconds"), rows)


def _score(epoch: Mapping[str, float], metric: str) -> str:
    accuracy = "" if metric == "accuracy" else f" ({epoch['accuracy']:.3f})"
    return f"{epoch[metric]:.3f}{accuracy}"


#: Tables that pages have by themselves, by the word in their marks.
SUMMARIES: Mapping[str, Callable[[Measured], Table]] = {
    "speed": _speed_summary,
    "serving": _serving_summary,
    "learning": _learning_summary,
}
