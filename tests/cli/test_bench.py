"""bitfit bench: the baseline models compute the same task, and everything is timed in turn."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import onnxruntime as ort
import pytest

from bitfit_export.base_model.loading import BaseModel
from bitfit_export.baselines.exports import BASELINE_WAYS, BaselineModels, export_baselines, random_ids
from bitfit_export.baselines.timing import Times, time_in_turn
from bitfit_export.compiler import CompileOptions
from bitfit_export.delta import TaskDelta
from bitfit_export.errors import CompileError
from bitfit_export.reference.task_model import merged_model
from tests.cli.conftest import Bitfit
from tests.traces import compile_bundle

torch = pytest.importorskip("torch")

FP32_WAYS = {"transformers", "transformers, fused", "torch", "torch, older exporter", "Olive's passes"}


@pytest.fixture(scope="module")
def baseline_folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("baseline")


@pytest.fixture(scope="module")
def baseline(tiny_base: BaseModel, tiny_deltas: dict[str, TaskDelta], baseline_folder: Path) -> BaselineModels:
    return export_baselines(tiny_base, tiny_deltas["two_way"], baseline_folder)


@pytest.mark.slow
@pytest.mark.usefixtures("baseline")
def test_a_bundle_is_timed_beside_baseline_models(
    bitfit: Bitfit,
    tiny_bundle: Path,
    model_folder: str,
    deltas_folder: Path,
    baseline_folder: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """The models that `baseline` has exported; the next test exports its own."""
    monkeypatch.setattr(
        "bitfit_export.baselines.timing.export_baselines",
        lambda base, delta, folder, *others: export_baselines(base, delta, baseline_folder, *others),
    )
    words = ["bench", tiny_bundle, "--model", model_folder, "--deltas", deltas_folder, "--task", "two_way"]
    done = bitfit(*words, "--shapes", "1x4,3x8", "--rounds", 2, "--json")
    assert done.status == 0, done.err
    measured = json.loads(done.out)
    assert list(measured) == ["1x4", "3x8"]
    for shape in measured.values():
        baseline = [each for name, each in shape.items() if name.startswith("baseline: ")]
        assert len(baseline) == len(FP32_WAYS)
        assert sorted(each["of baseline"] for each in baseline)[0] <= 1.0
        assert shape["bundle, mixed"]["ms"] > 0
    assert "1 x 4" in done.err


@pytest.mark.slow
def test_a_packed_bundle_of_fixed_shape_is_timed_at_its_shape_and_not_mixed(
    bitfit: Bitfit,
    tiny_base: BaseModel,
    tiny_deltas: dict[str, TaskDelta],
    model_folder: str,
    deltas_folder: Path,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    one_way = "torch, older exporter"  # the quickest
    monkeypatch.setattr("bitfit_export.baselines.exports.BASELINE_WAYS", {one_way: BASELINE_WAYS[one_way]})
    compile_bundle(tiny_base, tiny_deltas, tmp_path, CompileOptions(layout="packed", static_shape=(2, 8)))
    words = ["--model", model_folder, "--deltas", deltas_folder, "--rounds", 1, "--json"]
    done = bitfit("bench", tmp_path, *words)
    assert done.status == 0, done.err
    measured = json.loads(done.out)
    assert list(measured) == ["2x8"]
    assert "bundle, one task" in measured["2x8"]
    assert "bundle, mixed" not in measured["2x8"]


@pytest.mark.slow
def test_the_baseline_models_answer_as_pytorch_does(
    baseline: BaselineModels, tiny_base: BaseModel, tiny_deltas: dict[str, TaskDelta]
) -> None:
    assert (set(baseline.paths), baseline.refused) == (FP32_WAYS, {})
    feeds = random_ids(tiny_base, 3, 9)
    expected = _pytorch(tiny_base, tiny_deltas["two_way"], feeds)
    for way in ("torch", "torch, older exporter", "Olive's passes"):  # the others have no head
        (logits,) = ort.InferenceSession(baseline.paths[way]).run(["logits"], feeds)
        np.testing.assert_allclose(logits, expected, atol=1e-5, err_msg=way)


@pytest.mark.slow
def test_int8_baseline_models_have_int8_products_and_about_the_same_answers(
    baseline: BaselineModels, tiny_base: BaseModel, tiny_deltas: dict[str, TaskDelta], baseline_folder: Path
) -> None:
    import onnx

    lowered = export_baselines(tiny_base, tiny_deltas["two_way"], baseline_folder, "int8")
    assert set(lowered.paths) == {*FP32_WAYS, "transformers, own quantizer"}, lowered.refused
    for way, path in lowered.paths.items():
        graph = onnx.load(path).graph
        assert {"MatMulInteger", "DynamicQuantizeMatMul"} & {node.op_type for node in graph.node}, way
    if int8_products_saturate():
        pytest.skip("this processor's int8 products saturate, and those of baseline models lose much by it")
    feeds = random_ids(tiny_base, 3, 9)
    (logits,) = ort.InferenceSession(lowered.paths["torch, older exporter"]).run(["logits"], feeds)
    difference = np.abs(logits - _pytorch(tiny_base, tiny_deltas["two_way"], feeds))
    assert 0 < difference.max() < 0.3


def int8_products_saturate() -> bool:
    """Whether ONNX Runtime adds products in 16 bits here, as it does on x86 without VNNI."""
    import onnx
    from onnx import helper

    kind = onnx.TensorProto
    graph = helper.make_graph(
        [helper.make_node("MatMulInteger", ["x", "w"], ["y"])],
        "product",
        [helper.make_tensor_value_info("x", kind.UINT8, [1, 4])],
        [helper.make_tensor_value_info("y", kind.INT32, [1, 1])],
        [helper.make_tensor("w", kind.INT8, [4, 1], [127] * 4)],
    )
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=8)
    (found,) = ort.InferenceSession(model.SerializeToString()).run(None, {"x": np.full((1, 4), 255, np.uint8)})
    return bool(found[0, 0] != 4 * 127 * 255)


def test_a_way_that_fails_is_named_with_its_reason_and_leaves_nothing(
    tiny_base: BaseModel, tiny_deltas: dict[str, TaskDelta], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def write(base: BaseModel, delta: TaskDelta, path: Path) -> None:
        path.write_bytes(b"a model")

    def fail(base: BaseModel, delta: TaskDelta, path: Path) -> None:
        path.write_bytes(b"half a model")
        raise ValueError("no such operator\nand more")

    ways = {"good": write, "bad": fail}
    monkeypatch.setattr("bitfit_export.baselines.exports.BASELINE_WAYS", ways)
    found = export_baselines(tiny_base, tiny_deltas["two_way"], tmp_path)
    assert found.refused == {"bad": "no such operator"}
    assert list(found.paths) == ["good"]
    assert sorted(path.name for path in tmp_path.iterdir()) == ["good-fp32"]
    del ways["good"]
    with pytest.raises(CompileError, match="bad: no such operator"):
        export_baselines(tiny_base, tiny_deltas["two_way"], tmp_path)


def test_the_ways_to_try_can_be_named(
    tiny_base: BaseModel, tiny_deltas: dict[str, TaskDelta], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def write(base: BaseModel, delta: TaskDelta, path: Path) -> None:
        path.write_bytes(b"a model")

    monkeypatch.setattr("bitfit_export.baselines.exports.BASELINE_WAYS", {"one": write, "two": write})
    found = export_baselines(tiny_base, tiny_deltas["two_way"], tmp_path, ways=["two"])
    assert list(found.paths) == ["two"]
    assert [path.name for path in tmp_path.iterdir()] == ["two-fp32"]


def test_a_model_that_is_there_is_not_exported_again(
    tiny_base: BaseModel, tiny_deltas: dict[str, TaskDelta], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    calls: list[Path] = []

    def write(base: BaseModel, delta: TaskDelta, path: Path) -> None:
        calls.append(path)
        path.write_bytes(b"a model")

    monkeypatch.setattr("bitfit_export.baselines.exports.BASELINE_WAYS", {"good": write})
    for _ in range(2):
        export_baselines(tiny_base, tiny_deltas["two_way"], tmp_path)
    assert len(calls) == 1


def test_the_ways_are_those_that_the_tests_name() -> None:
    assert set(BASELINE_WAYS) == FP32_WAYS


@pytest.mark.parametrize(("shapes", "message"), [("1", "'1'"), ("0x4", "'0x4'"), ("1x4,x", "'x'")])
def test_shapes_that_cannot_be_are_refused(bitfit: Bitfit, tiny_bundle: Path, shapes: str, message: str) -> None:
    done = bitfit("bench", tiny_bundle, "--shapes", shapes)
    assert done.status == 2
    assert f"--shapes has {message}, expected BATCHxSEQUENCE" in done.err


def test_a_shape_that_is_too_long_is_refused_before_anything_is_exported(
    bitfit: Bitfit, tiny_bundle: Path, model_folder: str, deltas_folder: Path
) -> None:
    words = ["bench", tiny_bundle, "--model", model_folder, "--deltas", deltas_folder]
    done = bitfit(*words, "--shapes", "1x4,1x65")
    assert done.status == 2
    assert "a sequence to time has 65 tokens, expected at most 64" in done.err


@pytest.mark.parametrize("task", ["other", "two_way,three_way"])
def test_a_task_that_the_bundle_lacks_is_refused(bitfit: Bitfit, tiny_bundle: Path, task: str) -> None:
    done = bitfit("bench", tiny_bundle, "--task", task)
    assert done.status == 2
    assert f"--task is {task!r}, expected one of the bundle's: " in done.err


def test_a_task_may_be_named_with_the_folder_of_its_delta(
    bitfit: Bitfit, tiny_bundle: Path, model_folder: str, deltas_folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    timed: list[str] = []

    def note(bundle: Path, base: BaseModel, task: str, delta: TaskDelta, **_: object) -> list[object]:
        timed.append(task)
        return []

    monkeypatch.setattr("bitfit_export.cli.bench.bench_bundle", note)
    monkeypatch.setattr("bitfit_export.cli.bench.print_times", lambda times: None)
    words = ["bench", tiny_bundle, "--model", model_folder, "--task", f"two_way={deltas_folder / 'two_way'}"]
    assert bitfit(*words).status == 0
    assert timed == ["two_way"]


def test_each_round_calls_each_once_in_changing_order() -> None:
    calls: list[str] = []
    work = {name: (lambda name=name: calls.append(name)) for name in "abcd"}
    times = time_in_turn(work, rounds=20)
    rounds = [tuple(calls[start : start + 4]) for start in range(0, len(calls), 4)]
    assert len(rounds) == 23  # three to warm up
    assert all(sorted(each) == list("abcd") for each in rounds)
    assert len(set(rounds)) > 5
    assert times.rounds == 20


def test_the_time_limit_ends_the_rounds_but_not_before_five() -> None:
    assert time_in_turn({"a": lambda: None}, rounds=50, limit=0.0).rounds == 5
    assert time_in_turn({"a": lambda: None}, rounds=50, limit=60.0).rounds == 50


def test_a_contenders_time_is_the_clocks() -> None:
    # A clock of whole seconds: the work of `slow` moves it by 3, that of `fast` by 1.
    now = [0.0]

    def work(seconds: float) -> None:
        now[0] += seconds

    times = time_in_turn({"slow": lambda: work(3), "fast": lambda: work(1)}, rounds=4, clock=lambda: now[0])
    assert (times.median("slow"), times.median("fast")) == (3, 1)
    assert times.ratio("slow", "fast") == 3
    assert times.fastest(["slow", "fast"]) == "fast"


def test_a_ratio_is_the_median_of_the_rounds_ratios() -> None:
    # A machine that slows down in the second half: the medians' quotient would be 2 / 10.
    times = Times({"a": [1, 2, 20], "b": [1, 10, 10]})
    assert times.ratio("a", "b") == 1.0


def _pytorch(base: BaseModel, delta: TaskDelta, feeds: dict[str, np.ndarray]) -> np.ndarray:
    with torch.inference_mode():
        output = merged_model(base, delta)(**{name: torch.from_numpy(value) for name, value in feeds.items()})
    return output["logits"].numpy()
