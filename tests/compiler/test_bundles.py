"""Every text family, compiled in the layouts for the targets, passes verification with its own kind of head.

BERT is compiled in every way. The others, whose biases and heads the same passes lift, are compiled in some of them, so
that each way is met by several families.
"""

from __future__ import annotations

import functools
import itertools
from collections.abc import Callable
from pathlib import Path

import numpy as np
import onnx
import pytest

from bitfit_export.base_model.loading import BaseModel
from bitfit_export.bundle import encode_row, read_manifest
from bitfit_export.compiler import CompileOptions
from bitfit_export.delta import TaskDelta
from bitfit_export.reference.task_model import default_head
from bitfit_export.runtime import BiasSession
from bitfit_export.verification.bundle import PROBE, verify_bundle
from tests.conftest import MakeDelta
from tests.families import TEXT_GRAPHS, tiny_base
from tests.traces import compile_bundle, compile_model

pytestmark = pytest.mark.slow

WAYS = [
    CompileOptions(layout=layout, target=target)
    for layout in ("table", "packed", "named")
    for target in ("ort", "portable")
]
WAYS += [
    CompileOptions(fold=False),
    CompileOptions(prepack=True),
    CompileOptions(layout="packed", static_shape=(4, 32), target="portable"),
    CompileOptions(layout="named", overridable=True, static_shape=(4, 32)),
]
PRECISIONS = ("fp16", "int8", "int8-static", "int4")
#: The ways of the family at each place in `TEXT_GRAPHS`.
CHOSEN = [
    (family, options)
    for place, family in enumerate(TEXT_GRAPHS)
    for number, options in enumerate(WAYS)
    if family == "bert" or (number - place) % 4 == 0
]
#: Each family in two precisions, each in one of two layouts.
LOWER = [
    (family, precision, ("table", "packed")[place // 2 % 2])
    for place, family in enumerate(TEXT_GRAPHS)
    for number, precision in enumerate(PRECISIONS)
    if (number - place) % 2 == 0
]


@pytest.fixture(scope="module")
def base(family: str) -> BaseModel:
    return tiny_base(family)


@pytest.fixture(scope="module")
def deltas(base: BaseModel, make_delta: MakeDelta) -> dict[str, TaskDelta]:
    """A sentence task with the family's own head, a regression on the mean, and a token task."""
    pooling, activation = default_head(base.module)
    most = base.max_positions
    return {
        "own": make_delta(base, "own", pooling=pooling, activation=activation, max_length=most, seed=1),
        "score": make_delta(
            base, "score", labels=(), problem_type="regression", pooling="mean", max_length=most, seed=2
        ),
        "tags": make_delta(base, "tags", problem_type="token", labels=("A", "B", "C"), max_length=most, seed=3),
    }


@pytest.fixture(scope="module")
def rows_in_float32(base: BaseModel, deltas: dict[str, TaskDelta]) -> Callable[[str], dict[str, bytes]]:
    """The row of each task, as a file, in a layout."""

    @functools.cache
    def rows(layout: str) -> dict[str, bytes]:
        packer = compile_model(base, deltas, CompileOptions(layout=layout)).packer
        return {task: encode_row(packer.pack(delta, task=task)) for task, delta in deltas.items()}

    return rows


def check_opset(bundle: Path) -> None:
    """The manifest's opset is the model's."""
    model = onnx.load(str(bundle / "model.onnx"), load_external_data=False)
    assert [each.version for each in model.opset_import if not each.domain] == [read_manifest(bundle).opset]


def test_every_way_is_met_by_several_families() -> None:
    families = {options: {family for family, each in CHOSEN if each == options} for options in WAYS}
    assert min(map(len, families.values())) >= 3
    assert {each[1:] for each in LOWER} == set(itertools.product(PRECISIONS, ("table", "packed")))


@pytest.mark.parametrize(("family", "options"), CHOSEN, ids=str, scope="module")
def test_a_family_verifies(
    options: CompileOptions, base: BaseModel, deltas: dict[str, TaskDelta], tmp_path: Path
) -> None:
    compiled = compile_bundle(base, deltas, tmp_path, options)
    report = verify_bundle(tmp_path, base, deltas, packer=compiled.packer)
    check_opset(tmp_path)
    names = [each.name for each in report.comparisons]
    assert names == [*deltas, PROBE, *(["mixed"] if options.layout == "table" else [])]
    assert all(each.passed for each in report.comparisons)
    # Deltas and heads are random: a model that ignored them would give other logits than this.
    session = BiasSession(tmp_path)
    first, second = (session.run(task, **session.encode("One text.")) for task in ("own", "score"))
    assert not np.allclose(first[:, :1], second[:, :1], atol=1e-3)


@pytest.mark.parametrize(("family", "precision", "layout"), LOWER, scope="module")
def test_a_family_runs_in_a_lower_precision(
    precision: str,
    layout: str,
    base: BaseModel,
    deltas: dict[str, TaskDelta],
    rows_in_float32: Callable[[str], dict[str, bytes]],
    tmp_path: Path,
) -> None:
    """The same rows as in float32; verification fails where the made-up task's decisions are too often others."""
    compiled = compile_bundle(base, deltas, tmp_path, CompileOptions(precision=precision, layout=layout))
    verify_bundle(tmp_path, base, deltas, packer=compiled.packer)
    check_opset(tmp_path)
    for task, row in rows_in_float32(layout).items():
        assert (tmp_path / "tasks" / f"{task}.bias").read_bytes() == row


@pytest.mark.parametrize("precision", ["int8", "int4"])
def test_matrices_that_layers_share_are_stored_once(precision: str, make_delta: MakeDelta, tmp_path: Path) -> None:
    sizes = []
    for layers in (1, 3):
        base = tiny_base("albert", num_hidden_layers=layers, hidden_size=128, intermediate_size=512)
        folder = tmp_path / str(layers)
        folder.mkdir()
        compiled = compile_bundle(base, {"a": make_delta(base, "a")}, folder, CompileOptions(precision=precision))
        sizes.append(sum(path.stat().st_size for path in folder.glob("model.onnx*")))
    matrices = 4 * 128 * 128 + 2 * 128 * 512
    # What layers add is nodes, and that is less than the smaller of the two kinds of matrices would be once more.
    assert sizes[1] - sizes[0] < 2 * matrices / 2
    reasons = set(compiled.not_quantized.values())
    assert reasons == (set() if precision == "int8" else {"16 rows are not a multiple of the block, 32"})
