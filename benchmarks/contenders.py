"""Who runs in `speed.py`: for each precision the baseline models, our bundles, and other runtimes on both.

A contender is a function that is given ids and gives a call to time, or None where it has nothing to do at a shape. One
that cannot be made is left out, and the lineup says why.
"""

from __future__ import annotations

import functools
import importlib
import itertools
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, TypeAlias

import numpy as np
import torch
from models import Workbench
from raw_session import open_raw

from bitfit_export.baselines.exports import export_baselines
from bitfit_export.baselines.timing import BASELINE, open_baseline
from bitfit_export.bundle import read_manifest, read_row, row_file
from bitfit_export.bundle.row_arrays import row_arrays
from bitfit_export.errors import first_line
from bitfit_export.reference.task_model import merged_model
from bitfit_export.runtime import BiasSession

__all__ = [
    "MIXED",
    "ONE_BY_ONE",
    "OPENVINO_BFLOAT16",
    "OPENVINO_STATIC",
    "PACKED",
    "RAW",
    "RAW_PADDED",
    "STATIC",
    "TABLE",
    "Lineup",
    "make_lineup",
    "row_feeds",
]

TABLE = "bundle: table, one task"
MIXED = "bundle: table, another task in each item"
ONE_BY_ONE = "bundle: table, item by item"
PACKED = "bundle: packed"
#: The same model, as ONNX Runtime's own session runs it: what `BiasSession.run` adds is left out.
RAW = "bundle: table, raw session"
RAW_PADDED = "bundle: table with its padding, raw session"
STATIC = "int8-static bundle: table"
OPENVINO_STATIC = "OpenVINO: int8-static portable bundle"
OPENVINO_BFLOAT16 = "OpenVINO, bfloat16: portable bundle"
#: Running items one by one is for short texts, where a single one leaves the processor waiting.
_ONE_BY_ONE_SEQUENCE = 16
_OPENVINO_BASELINE = "torch, older exporter"

Ids: TypeAlias = Mapping[str, np.ndarray]
Contender: TypeAlias = Callable[[Ids], Callable[[], object] | None]


@dataclass
class Lineup:
    """The contenders of one precision.

    Attributes:
        contenders: by the names that results have; those of baseline models begin with `BASELINE`.
        refused: name -> why it does not run.
        left_out: words; a contender whose name has one of them does not run.
    """

    contenders: dict[str, Contender] = field(default_factory=dict)
    refused: dict[str, str] = field(default_factory=dict)
    left_out: Sequence[str] = ()

    def add(self, name: str, make: Callable[[], Contender]) -> None:
        """Make a contender, or note why it is not made."""
        if any(word in name for word in self.left_out):
            self.refused[name] = "left out by --leave-out"
            return
        try:
            self.contenders[name] = make()
        except Exception as error:  # of any library: the others still run
            self.refused[name] = first_line(error)

    def work(self, ids: Ids) -> dict[str, Callable[[], object]]:
        """What to time at the shape of these ids. A contender that fails here is left out from now on."""
        calls: dict[str, Callable[[], object]] = {}
        for name, contender in list(self.contenders.items()):
            try:
                call = contender(ids)
                if call is not None:
                    call()
                    calls[name] = call
            except Exception as error:  # as above
                self.refused[name] = first_line(error)
                del self.contenders[name]
        return calls


def make_lineup(bench: Workbench, precision: str, threads: int, left_out: Sequence[str] = ()) -> Lineup:
    """All contenders of a precision. In fp32 PyTorch runs, too, and OpenVINO in bfloat16 where the processor has it.

    Args:
        left_out: as `Lineup.left_out`.
    """
    lineup = Lineup(left_out=left_out)
    baseline = export_baselines(bench.base, bench.deltas[bench.task], bench.baseline_folder, precision)
    lineup.refused |= {f"{BASELINE}{way}": reason for way, reason in baseline.refused.items()}
    for way, path in baseline.paths.items():
        lineup.add(f"{BASELINE}{way}", functools.partial(_baseline, path, threads))
    _add_bundles(lineup, bench, precision, threads)
    _add_openvino(lineup, bench, baseline.paths, precision, threads)
    if precision == "fp32":
        lineup.add("PyTorch", functools.partial(_pytorch, bench, threads))
    return lineup


def _add_bundles(lineup: Lineup, bench: Workbench, precision: str, threads: int) -> None:
    @functools.cache
    def session(layout: str) -> BiasSession:
        return BiasSession(bench.bundle(layout=layout, precision=precision), threads=threads)

    def one_by_one() -> Contender:
        run = session("table").run

        def prepare(ids: Ids) -> Callable[[], object] | None:
            items, sequence = ids["input_ids"].shape
            if items == 1 or sequence > _ONE_BY_ONE_SEQUENCE:
                return None
            each = [{name: values[item : item + 1] for name, values in ids.items()} for item in range(items)]
            return lambda: [run(task, **one) for task, one in zip(_cycle(bench, items), each, strict=True)]

        return prepare

    lineup.add(TABLE, lambda: _one_task(session("table"), bench))
    lineup.add(MIXED, lambda: _mixed(session("table"), bench))
    lineup.add(ONE_BY_ONE, one_by_one)
    lineup.add(PACKED, lambda: _one_task(session("packed"), bench))
    for name, keep_padding in ((RAW, False), (RAW_PADDED, True)):
        lineup.add(name, functools.partial(_raw, bench, precision, threads, keep_padding=keep_padding))
    if precision == "int8":
        lineup.add(STATIC, lambda: _static(bench, "ort", threads))


def _add_openvino(lineup: Lineup, bench: Workbench, baseline: Mapping[str, Path], precision: str, threads: int) -> None:
    """OpenVINO on portable bundles and on a baseline model, whose graph has standard operators alone."""
    hints = {"f32": "OpenVINO"}
    if precision == "fp32":
        hints["bf16"] = "OpenVINO, bfloat16"

    def contender(make: Callable[[BiasSession, Workbench], Contender], layout: str, hint: str) -> Contender:
        folder = bench.bundle(layout=layout, target="portable", precision=precision)
        options = {"precision": hint}
        return make(BiasSession(folder, engine="openvino", engine_options=options, threads=threads), bench)

    for hint, name in hints.items():
        for layout, way, make in (("packed", "portable bundle", _one_task), ("table", "portable table, mixed", _mixed)):
            lineup.add(f"{name}: {way}", functools.partial(contender, make, layout, hint))
        if _OPENVINO_BASELINE in baseline:
            stock = functools.partial(_openvino, baseline[_OPENVINO_BASELINE], hint, threads)
            lineup.add(f"{name}: baseline, {_OPENVINO_BASELINE}", stock)
    if precision == "int8":
        lineup.add(OPENVINO_STATIC, lambda: _static(bench, "portable", threads))


def _static(bench: Workbench, target: str, threads: int) -> Contender:
    """A bundle with calibrated ranges, on the engine of its target."""
    options = {"layout": "table"} if target == "ort" else {"layout": "packed", "target": target}
    engine = {"ort": "onnxruntime", "portable": "openvino"}[target]
    folder = bench.bundle(precision="int8-static", **options)
    return _one_task(BiasSession(folder, engine=engine, threads=threads), bench)


def _raw(bench: Workbench, precision: str, threads: int, *, keep_padding: bool) -> Contender:
    options = {"keep_padding": True} if keep_padding else {}
    run = open_raw(bench.bundle(layout="table", precision=precision, **options), threads)
    return lambda ids: run([bench.task], ids)


def _one_task(session: BiasSession, bench: Workbench) -> Contender:
    return lambda ids: functools.partial(session.run, bench.task, **ids)


def _mixed(session: BiasSession, bench: Workbench) -> Contender:
    """Another task in each item; nothing to do where there is one item."""

    def prepare(ids: Ids) -> Callable[[], object] | None:
        items = len(ids["input_ids"])
        return functools.partial(session.run, _cycle(bench, items), **ids) if items > 1 else None

    return prepare


def _cycle(bench: Workbench, items: int) -> list[str]:
    return list(itertools.islice(itertools.cycle(bench.deltas), items))


def _baseline(path: Path, threads: int) -> Contender:
    session = open_baseline(path, threads)
    return lambda ids: functools.partial(session.run, None, dict(ids))


def row_feeds(folder: Path, task: str) -> dict[str, np.ndarray]:
    """What a graph of one task at a time is fed beside the text."""
    manifest = read_manifest(folder)
    row = read_row(folder / row_file(task), layout=manifest.layout)
    return row_arrays(row, manifest.layout, manifest.layout_kind, labels=None)


def _openvino(path: Path, hint: str, threads: int) -> Contender:
    openvino: Any = importlib.import_module("openvino")  # it has no types

    core = openvino.Core()
    if hint == "bf16" and "BF16" not in core.get_property("CPU", "OPTIMIZATION_CAPABILITIES"):
        raise RuntimeError("the processor has no bfloat16 arithmetic")
    settings: dict[str, Any] = {
        "INFERENCE_PRECISION_HINT": hint,
        "INFERENCE_NUM_THREADS": threads,
        "PERFORMANCE_HINT": "LATENCY",
        "ENABLE_CPU_PINNING": False,
    }
    request = core.compile_model(str(path), "CPU", settings).create_infer_request()
    return lambda ids: functools.partial(request.infer, dict(ids), share_inputs=True)


def _pytorch(bench: Workbench, threads: int) -> Contender:
    torch.set_num_threads(threads)
    model = merged_model(bench.base, bench.deltas[bench.task])

    def run(inputs: dict[str, torch.Tensor]) -> object:
        with torch.inference_mode():
            return model(**inputs)

    return lambda ids: functools.partial(run, {name: torch.from_numpy(value) for name, value in ids.items()})
