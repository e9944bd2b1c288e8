"""The benchmarks' scripts: what they write down, how they judge it, and that they run on a model of no size."""

from __future__ import annotations

import importlib
import importlib.util
import json
from collections.abc import Callable
from pathlib import Path
from types import ModuleType
from typing import Any

import numpy as np
import pytest

pytest.importorskip("torch", reason="needs bitfit-export[export]")

SCRIPTS = Path(__file__).parents[1] / "benchmarks"
TABLE = "bundle: table, one task"
MIXED = "bundle: table, another task in each item"


def shape(**ratios: float) -> dict[str, Any]:
    """What speed.py writes for a shape: these contenders, and a baseline model of 10 ms."""
    times = {"baseline: torch": 1.0, **ratios}
    contenders = {name: {"ms": 10 * ratio, "ratio": ratio, "quartiles": [ratio] * 2} for name, ratio in times.items()}
    return {
        "rounds": 5,
        "fastest baseline": "baseline: torch",
        "contenders": contenders,
        "pairs": {"mixed / one task": 1.03},
    }


@pytest.fixture
def results(tmp_path: Path) -> Path:
    """Made-up results: good at one shape and not at the other, and not so good at mixing tasks."""
    mixing = {"fp32": {"8x128": shape(**{TABLE: 0.91, MIXED: 0.92}), "1x128": shape(**{TABLE: 0.90})}, "int8": {}}
    raw = "bundle: table, raw session"
    files = {
        "speed-bert-base-1": {"shapes": mixing, "refused": {}},
        "speed-minilm-l6-1": {"shapes": {"int8": {"1x64": shape(**{raw: 0.90}), "8x32": shape(**{raw: 0.93})}}},
        "compile_models": {"bert-base": {"fp16 row (bytes)": 135_001, "compiling / alone": 1.5}},
        "switch_tasks": {"5": {"choosing a row (us)": 10.0}},
    }
    versions = {"onnxruntime": "1.2.3", "torch": "4.5", "transformers": "6.7"}
    for name, measured in files.items():
        content = {"machine": {"cores": 2, "processor": "a processor"}, "versions": versions, "code": "abc"}
        (tmp_path / f"{name}.json").write_text(json.dumps({**content, "measured": measured}))
    return tmp_path


def test_each_target_is_met_missed_or_not_measured(
    script: Callable[[str], ModuleType], results: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    script("report").main(["--results", str(results)])
    lines = capsys.readouterr().out.splitlines()
    assert _line_of(lines, "MiniLM, int8, 1x64, raw session").split()[-3:] == ["0.900", "0.900", "pass"]
    assert _line_of(lines, "MiniLM, int8, 8x32, raw session").split()[-3:] == ["0.920", "0.930", "shortfall"]
    assert _line_of(lines, "BERT-base, int8, packed, 1x128").endswith("not measured")
    assert _line_of(lines, "BERT-base, 8 tasks mixed, 8x128").split()[-3:] == ["1.020", "1.030", "shortfall"]
    assert _line_of(lines, "row with fp16 values").endswith("shortfall")  # 135.001 KB
    assert _line_of(lines, "switch of task, 5 tasks").endswith("pass")
    assert _line_of(lines, "compiling 8 tasks").split()[-3:] == ["2.000", "1.500", "pass"]
    assert lines[-1] == "a processor, 2 cores; onnxruntime 1.2.3, torch 4.5, transformers 6.7; code abc"


def test_the_design_names_no_figure_that_no_target_bounds(script: Callable[[str], ModuleType]) -> None:
    limits = {target.limit for target in script("targets").TARGETS}
    assert {0.85, 0.90, 0.92, 0.87, 0.96, 0.99, 0.88, 0.55, 0.42, 0.70, 0.50, 1.5, 10, 50, 0.45, 135, 2} <= limits


def test_a_page_gets_tables_and_figure_between_its_marks(
    script: Callable[[str], ModuleType], results: Path, tmp_path: Path
) -> None:
    report = script("report")
    page = tmp_path / "page.md"
    page.write_text(f"# before\n{report.BEGIN}\nold\n{report.END}\nafter\n")
    words = ["--results", str(results), "--update", str(page)]
    report.main(words)
    text = page.read_text()
    assert text.startswith(f"# before\n{report.BEGIN}\n")
    assert text.endswith(f"{report.END}\nafter\n")
    assert "old" not in text
    assert "| 1x128 | 10.00 ms (torch) | 0.900 |  |" in text
    assert text.index("| 1x128 | 10.00 ms") < text.index("| 8x128 | 10.00 ms")
    assert (tmp_path / "page.png").read_bytes().startswith(b"\x89PNG")
    drawn = (tmp_path / "page.svg").read_bytes()
    report.main(words)
    assert page.read_text() == text
    assert (tmp_path / "page.svg").read_bytes() == drawn


def test_a_page_without_marks_is_left_alone(script: Callable[[str], ModuleType], results: Path, tmp_path: Path) -> None:
    page = tmp_path / "page.md"
    page.write_text("# no marks\n")
    with pytest.raises(SystemExit, match="expected both"):
        script("report").main(["--results", str(results), "--update", str(page)])
    assert page.read_text() == "# no marks\n"


def test_a_page_gets_tables_in_short_where_it_has_marks_for_them(
    script: Callable[[str], ModuleType], results: Path, tmp_path: Path
) -> None:
    page = tmp_path / "page.md"
    marks = "<!-- {0}: written by benchmarks/report.py -->\nold\n<!-- {0}: to here -->\n"
    page.write_text(f"before\n{marks.format('speed')}between\n{marks.format('serving')}after\n")
    script("report").main(["--results", str(results), "--update", str(page)])
    text = page.read_text()
    assert "| BERT-base, 1 x 128 | 10.0 ms | 0.90 |  |  |  |\n| BERT-base, 8 x 128 |" in text
    assert "benchmarks/report.py -->\n\nNot measured yet.\n\n<!-- serving: to here -->\nafter\n" in text
    assert "old" not in text
    assert not page.with_suffix(".png").exists()
    page.write_text(marks.format("nothing"))
    with pytest.raises(SystemExit, match="speed: written by"):
        script("report").main(["--results", str(results), "--update", str(page)])


@pytest.mark.parametrize("name", ["learning.md", "performance.md", "results.md"])
def test_the_tables_of_the_documents_are_those_of_the_committed_results(
    script: Callable[[str], ModuleType], tmp_path: Path, name: str
) -> None:
    committed = (SCRIPTS.parent / "docs" / name).read_text()
    (tmp_path / name).write_text(committed)
    script("report").main(["--update", str(tmp_path / name)])
    assert (tmp_path / name).read_text() == committed


def test_no_legend_hides_a_bar(script: Callable[[str], ModuleType]) -> None:
    from matplotlib.backends.backend_agg import FigureCanvasAgg

    shapes = {size: shape(**{TABLE: 0.9, MIXED: 0.9, "bundle: packed": 0.8}) for size in ("1x16", "8x128")}
    figure = script("speed_plot").draw_panels({"fp32": shapes, "int8": shapes})
    canvas = FigureCanvasAgg(figure)
    canvas.draw()
    (legend,) = figure.legends
    place = legend.get_window_extent()
    for axes in figure.axes:
        assert axes.get_legend() is None
        assert not place.overlaps(axes.get_tightbbox())
    assert [text.get_text() for text in legend.get_texts()].count(TABLE) == 1


LINUX_ON_X86 = "processor : 0\nmodel name : A processor\nflags : fpu avx2 avx512f avx512_vnni avx512_bf16 amx_int8\n"
LINUX_ON_ARM = "processor : 0\nFeatures : fp asimd asimddp bf16\n"


@pytest.mark.parametrize(
    ("cpuinfo", "name", "instructions"),
    [
        (LINUX_ON_X86, "A processor", ["AVX2", "AVX-512", "AVX-512 VNNI", "AVX-512 BF16", "AMX INT8"]),
        (LINUX_ON_X86.replace("avx", "sse"), "A processor", ["AMX INT8"]),
        (LINUX_ON_ARM, "known to Python", ["dot product", "BF16"]),
        (None, "known to Python", None),
    ],
)
def test_results_name_the_processor_and_its_instruction_sets(
    script: Callable[[str], ModuleType],
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    cpuinfo: str | None,
    name: str,
    instructions: list[str] | None,
) -> None:
    monkeypatch.setattr("platform.processor", lambda: "known to Python")
    path = tmp_path / "cpuinfo"
    if cpuinfo is not None:
        path.write_text(cpuinfo)
    common = script("common")
    assert common.processor(path) == (name, instructions)
    monkeypatch.setattr(common, "processor", lambda: (name, instructions))
    common.Results(tmp_path, "some", {}).save()
    machine = json.loads((tmp_path / "some.json").read_text())["machine"]
    assert (machine["processor"], machine["instruction sets"]) == (name, instructions)
    (line,) = script("targets").read_results(tmp_path).circumstances
    shown = "instruction sets unknown" if instructions is None else ", ".join(instructions)
    assert line.startswith(f"{name} ({shown}), ")


def test_results_go_on_only_in_the_same_circumstances(
    script: Callable[[str], ModuleType], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    common = script("common")
    first = common.Results(tmp_path, "some", {"rounds": 3})
    first.measured["a"] = 1
    first.save()
    assert common.Results(tmp_path, "some", {"rounds": 3}).measured == {"a": 1}
    assert common.Results(tmp_path, "some", {"rounds": 4}).measured == {}
    monkeypatch.setattr(common, "code_digest", lambda: "0" * 64)
    assert common.Results(tmp_path, "some", {"rounds": 3}).measured == {}


def test_what_was_measured_elsewhere_is_shown_under_its_name(
    script: Callable[[str], ModuleType], tmp_path: Path
) -> None:
    common, targets = script("common"), script("targets")
    for folder, microseconds in ((tmp_path, 3.0), (tmp_path / "avx2", 12.0)):
        results = common.Results(folder, "switch_tasks", {})
        results.measured["5"] = {"choosing a row (us)": microseconds}
        results.save()
    (tmp_path / "scratch").mkdir()
    (tmp_path / "scratch" / "manifest.json").write_text('{"format_version": 2}')
    shown = script("report").markdown(targets.read_results(tmp_path))
    assert "scratch" not in shown
    here, elsewhere = shown.split("## Measured again: avx2\n")
    assert "| switch of task, 5 tasks | 10.000 us | 3.000 us | pass |" in here
    assert "| switch of task, 1,000 tasks | 10.000 us |  | not measured |" in here
    assert "### Targets (avx2)" in elsewhere
    assert "| switch of task, 5 tasks | 10.000 us | 12.000 us | shortfall |" in elsewhere
    assert "not measured" not in elsewhere


def test_a_contender_that_is_left_out_is_not_made_and_says_so(script: Callable[[str], ModuleType]) -> None:
    lineup = script("contenders").Lineup(left_out=["OpenVINO", "int8-static"])

    def make() -> Callable[[Any], None]:
        return lambda ids: None

    for name in ("bundle: packed", "OpenVINO: portable bundle", "int8-static bundle: table"):
        lineup.add(name, make)
    assert list(lineup.contenders) == ["bundle: packed"]
    assert lineup.refused == dict.fromkeys(
        ("OpenVINO: portable bundle", "int8-static bundle: table"), "left out by --leave-out"
    )


@pytest.mark.slow
def test_a_model_without_weights_of_its_precision_is_not_measured(
    script: Callable[[str], ModuleType], tiny_bundle: Path
) -> None:
    from bitfit_export.errors import CompileError

    models = script("models")
    models._check_precision(tiny_bundle / "model.onnx", "fp32")
    for precision in ("int8", "int4", "fp16"):
        with pytest.raises(CompileError, match=f"expected {precision}"):
            models._check_precision(tiny_bundle / "model.onnx", precision)


@pytest.mark.slow
def test_speed_measures_every_contender_shape_by_shape_and_goes_on(
    script: Callable[[str], ModuleType],
    minilm_folder: Path,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    from bitfit_export.baselines import exports as baseline

    one_way = "torch, older exporter"  # the quickest
    monkeypatch.setattr(baseline, "BASELINE_WAYS", {one_way: baseline.BASELINE_WAYS[one_way]})
    words = ["--model", "tiny", "--rounds", "2", "--openings", "2", "--precisions", "fp32", "--results", str(tmp_path)]
    words += ["--scratch", str(tmp_path / "scratch")]
    speed = script("speed")
    speed.main([*words, "--shapes", "2x4"])
    path = Path(capsys.readouterr().out.strip())
    content = json.loads(path.read_text())
    measured = content["measured"]["shapes"]["fp32"]
    contenders = measured["2x4"]["contenders"]
    expected = {TABLE, MIXED, "bundle: table, item by item", "bundle: packed", "PyTorch", f"baseline: {one_way}"}
    if importlib.util.find_spec("openvino"):
        expected |= {"OpenVINO: portable bundle", "OpenVINO: portable table, mixed"}
    assert expected <= set(contenders), content["measured"]["refused"]
    assert contenders[f"baseline: {one_way}"]["ratio"] == 1.0
    assert all(each["ms"] > 0 for each in contenders.values())
    assert set(measured["2x4"]["pairs"]) == {"mixed / one task", "mixed / item by item"}
    speed.main([*words, "--shapes", "2x4,1x4"])
    capsys.readouterr()
    again = json.loads(path.read_text())["measured"]["shapes"]["fp32"]
    assert again["2x4"] == measured["2x4"]
    assert MIXED not in again["1x4"]["contenders"]


def _line_of(lines: list[str], name: str) -> str:
    return next(line for line in lines if line.startswith(name))


@pytest.mark.slow
def test_operators_says_what_each_operator_takes(
    script: Callable[[str], ModuleType],
    minilm_folder: Path,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    from bitfit_export.baselines import exports as baseline

    one_way = "torch, older exporter"
    monkeypatch.setattr(baseline, "BASELINE_WAYS", {one_way: baseline.BASELINE_WAYS[one_way]})
    words = ["--model", "tiny", "--shape", "1x4", "--runs", "2", "--precisions", "fp32"]
    script("operators").main([*words, "--results", str(tmp_path), "--scratch", str(tmp_path / "scratch")])
    measured = json.loads(Path(capsys.readouterr().out.strip()).read_text())["measured"]["fp32"]
    for times in measured.values():
        assert times["MatMul"] > 0
    script("report").main(["--results", str(tmp_path), "--markdown"])
    assert "### tiny, fp32, 1x4, 1 thread: milliseconds of a run by operator" in capsys.readouterr().out


@pytest.mark.slow
def test_session_overhead_measures_each_layout_and_shape(
    script: Callable[[str], ModuleType], minilm_folder: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    words = ["--model", "tiny", "--shapes", "1x4,2x4", "--rounds", "2"]
    script("session_overhead").main([*words, "--results", str(tmp_path), "--scratch", str(tmp_path / "scratch")])
    measured = json.loads(Path(capsys.readouterr().out.strip()).read_text())["measured"]
    assert set(measured) == {"table", "packed", "named"}
    assert "session, mixed tasks" in measured["table"]["2x4"]
    for shapes in measured.values():
        assert set(shapes) == {"1x4", "2x4"}
        for contenders in shapes.values():
            assert contenders["session, one task"]["around the library, CPU (us)"] > 0
            assert "beyond ONNX Runtime, wall (us)" in contenders["session, one task"]


@pytest.mark.slow
def test_batch_tokens_measures_each_limit(
    script: Callable[[str], ModuleType], minilm_folder: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    words = ["--model", "tiny", "--limits", "64,256", "--texts", "4", "--rounds", "1"]
    script("batch_tokens").main([*words, "--results", str(tmp_path), "--scratch", str(tmp_path / "scratch")])
    measured = json.loads(Path(capsys.readouterr().out.strip()).read_text())["measured"]
    assert set(measured) == {"64 tokens", "256 tokens", "no limit"}
    assert measured["no limit"]["time / no limit"] == 1.0
    assert measured["64 tokens"]["peak memory (MB)"] > 0


@pytest.mark.slow
def test_step_profile_says_what_a_step_does_and_keeps_for_frozen_weights(
    script: Callable[[str], ModuleType], minilm_folder: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    words = ["--model", "tiny", "--batch", "2", "--sequence", "8", "--steps", "1"]
    script("step_profile").main([*words, "--results", str(tmp_path), "--scratch", str(tmp_path / "scratch")])
    measured = json.loads(Path(capsys.readouterr().out.strip()).read_text())["measured"]["tiny"]
    kept, times = measured["kept (MB)"], measured["milliseconds"]
    assert all("backward: mm" in times[method] and "forward: addmm" in times[method] for method in ("bitfit", "full"))
    # Two layers: the inputs [16, 32] of q, k, v (one tensor), of the two dense layers, and [16, 64] of the second
    # feed-forward product, float32. The pooler reads the first tokens of the last layer's output [16, 32].
    linear_inputs = 2 * (3 * 16 * 32 + 16 * 64) * 4 / 1e6
    assert kept["full"]["Addmm"] - kept["bitfit"]["Addmm"] == pytest.approx(linear_inputs + 16 * 32 * 4 / 1e6)
    assert kept["full"]["Gelu"] == kept["bitfit"]["Gelu"] == pytest.approx(2 * 16 * 64 * 4 / 1e6)
    script("report").main(["--results", str(tmp_path), "--markdown"])
    assert "### tiny: kept (MB) of a training step" in capsys.readouterr().out


def test_graphs_for_an_npu_take_any_length_and_round_to_half(script: Callable[[str], ModuleType]) -> None:
    """A graph of 4 tokens: x + the positions as floats, then a third, [1, 4] -> [4, 1]."""
    import onnx
    import onnxruntime as ort
    from onnx import TensorProto, helper, numpy_helper

    npu = script("npu_accuracy")
    nodes = [
        helper.make_node("Cast", ["positions_of_4"], ["places"], to=TensorProto.FLOAT),
        helper.make_node("Add", ["x", "places"], ["sum"]),
        helper.make_node("Mul", ["sum", "third"], ["product"]),
        helper.make_node("Reshape", ["product", "shape"], ["y"]),
    ]
    constants = {"positions_of_4": np.arange(4)[None], "third": np.float32(1 / 3), "shape": np.array([4, 1])}
    graph = helper.make_graph(
        nodes,
        "g",
        [helper.make_tensor_value_info("x", TensorProto.FLOAT, [1, 4])],
        [helper.make_tensor_value_info("y", TensorProto.FLOAT, [None, 1])],
        [numpy_helper.from_array(np.asarray(values), name) for name, values in constants.items()],
    )
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 20)], ir_version=9)
    npu.free_length(model.graph, 4)
    npu.round_to_half(model)
    onnx.checker.check_model(model)
    options = ort.SessionOptions()
    options.graph_optimization_level = ort.GraphOptimizationLevel.ORT_DISABLE_ALL
    session = ort.InferenceSession(model.SerializeToString(), options, providers=["CPUExecutionProvider"])
    (found,) = session.run(None, {"x": np.float32([[0.1, 0.2]]), "positions": np.array([[0, 1]])})
    sums = (np.float16([0.1, 0.2]).astype(np.float32) + np.float32([0, 1])).astype(np.float16)
    expected = (sums.astype(np.float32) * np.float32(np.float16(1 / 3))).astype(np.float16)
    np.testing.assert_array_equal(found[:, 0], expected.astype(np.float32))


def test_what_errors_lose_by_chance_is_what_they_lose_on_average(script: Callable[[str], ModuleType]) -> None:
    """One error of two turns its example around: a right one in half of the deals, a wrong one in the others."""
    accuracy = script("accuracy")
    labels, reference = np.array([1, 1]), np.float32([[0, 1], [1, 0]])
    errors = np.float32([[2, 0], [0, 0]])

    def metric(logits: np.ndarray) -> float:
        return 100 * float((logits.argmax(-1) == labels).mean())

    found = accuracy.lost_by_chance(reference, errors, metric)
    assert found["mean"] == pytest.approx(25, abs=5)
    assert found["deviation"] == pytest.approx(25, abs=1)
    assert accuracy.lost_by_chance(reference, 0 * errors, metric) == {"mean": 0, "deviation": 0}
