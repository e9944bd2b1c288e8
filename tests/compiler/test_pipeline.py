"""A compilation is a list of passes: it is checked, printed and written down, and others can join it."""

from __future__ import annotations

import sys
from pathlib import Path
from types import ModuleType
from typing import ClassVar

import onnx
import onnxruntime as ort
import pytest

from bitfit_export.base_model import BaseModel
from bitfit_export.bundle.interface import LAYOUT_KINDS
from bitfit_export.compiler import CompileOptions, compile_model
from bitfit_export.compiler.compilation import Compilation, Fact, Pass, Refusal
from bitfit_export.compiler.dump import GraphDump
from bitfit_export.compiler.pipeline import check_order, describe_passes, plan_passes, run_passes
from bitfit_export.compiler.targets import TARGETS, load_target
from bitfit_export.compiler.targets.base import PrecisionPasses, Target
from bitfit_export.delta import TaskDelta
from bitfit_export.errors import CompileError
from tests import traces

Deltas = dict[str, TaskDelta]


def options(target: str, precision: str, layout: str) -> CompileOptions:
    shape = None if layout == "table" else (1, 8)
    return CompileOptions(target=target, precision=precision, layout=layout, static_shape=shape)


#: Target, precision and layout: all that go together.
KINDS = [
    (target, precision, layout)
    for target in sorted(TARGETS)
    for precision in load_target(target).precisions
    for layout in LAYOUT_KINDS
    if (target, layout) != ("qnn", "table")  # it runs one task at a time
]


@pytest.mark.parametrize(("target", "precision", "layout"), KINDS)
def test_each_pass_has_what_it_requires(target: str, precision: str, layout: str) -> None:
    check_order(plan_passes(options(target, precision, layout)))


def test_a_pass_that_would_run_too_early_or_too_late_is_found() -> None:
    passes = plan_passes(CompileOptions(precision="int8"))
    names = [each.name for each in passes]
    early = [passes[names.index("lift_biases")], *passes]
    with pytest.raises(CompileError, match=r"the pass lift_biases runs where this does not hold: .*sites"):
        check_order(early)
    late = [*passes, passes[names.index("collect_activation_stats")]]
    with pytest.raises(CompileError, match="the pass collect_activation_stats runs where this does not hold"):
        check_order(late)


def test_the_list_says_what_holds_after_each_pass() -> None:
    lines = describe_passes(plan_passes(CompileOptions(precision="int8"))).splitlines()
    assert [line.split()[1] for line in lines[:5]] == [
        "canonicalize_bias_uses",
        "propagate_batch_axis",
        "find_bias_sites",
        "fold_biases",
        "canonicalize_mask",
    ]
    assert lines[2].endswith(Fact.SITES.value)
    assert lines[-1].split()[1] == "check_invariants"


class Count(Pass):
    """A pass that changes nothing."""

    name = "count"

    def __init__(self) -> None:
        self.nodes = 0

    def run(self, compilation: Compilation) -> bool:
        self.nodes = len(compilation.graph.nodes)
        return False


class Refuse(Pass):
    name = "refuse"

    def run(self, compilation: Compilation) -> Refusal:
        return Refusal("the graph has no gamma, expected one", hint="export the model again")


def test_a_refusal_ends_a_compilation_with_its_reason_and_hint(tiny_base: BaseModel, tiny_deltas: Deltas) -> None:
    import onnx_graphsurgeon as gs

    compilation = Compilation(tiny_base, tiny_deltas, CompileOptions(), gs.Graph())
    with pytest.raises(CompileError, match="the graph has no gamma") as caught:
        run_passes(compilation, [Count(), Refuse()])
    assert caught.value.hint == "export the model again"


class Plain(Target):
    """A target that adds a pass of its own and nothing else."""

    name = "plain"
    precisions: ClassVar[dict[str, PrecisionPasses]] = {"fp32": PrecisionPasses(store=(Count(),), at_load="all")}


def test_a_target_is_one_module_and_one_line(
    tiny_base: BaseModel, tiny_deltas: Deltas, traced: onnx.ModelProto, monkeypatch: pytest.MonkeyPatch
) -> None:
    module = ModuleType("plain_target")
    module.TARGET = Plain()  # type: ignore[attr-defined]
    monkeypatch.setitem(sys.modules, "plain_target", module)
    monkeypatch.setitem(TARGETS, "plain", "plain_target")
    compiled = compile_model(tiny_base, tiny_deltas, CompileOptions(target="plain"), traced=traced)
    assert Plain.precisions["fp32"].store[0].nodes > 50  # type: ignore[attr-defined]
    assert compiled.at_load == "all"


@pytest.fixture(scope="module")
def traced(tiny_base: BaseModel) -> onnx.ModelProto:
    return traces.traced(tiny_base)


def test_a_traced_graph_is_not_changed_by_a_compilation(
    tiny_base: BaseModel, tiny_deltas: Deltas, traced: onnx.ModelProto
) -> None:
    before = traced.SerializeToString(deterministic=True)
    compile_model(tiny_base, tiny_deltas, traced=traced)
    assert traced.SerializeToString(deterministic=True) == before


def test_the_dump_has_a_graph_for_each_pass_that_changed_something(
    tiny_base: BaseModel, tiny_deltas: Deltas, traced: onnx.ModelProto, tmp_path: Path
) -> None:
    compile_model(tiny_base, tiny_deltas, traced=traced, observe=GraphDump(tmp_path / "dump"))
    names = sorted(path.name for path in (tmp_path / "dump").glob("*.onnx"))
    assert names[0] == "04_fold_biases.onnx"
    assert "07_slice_first_token.onnx" not in names  # a task of this bundle reads the mean
    assert names[-1].endswith("add_biases_in_kernels.onnx") or names[-1].endswith("fuse_for_ort.onnx")
    weights = list((tmp_path / "dump" / "weights").iterdir())
    assert len({path.read_bytes() for path in weights}) == len(weights)
    for name in names:
        onnx.checker.check_model(tmp_path / "dump" / name)
    ort.InferenceSession(tmp_path / "dump" / names[-1], providers=["CPUExecutionProvider"])
