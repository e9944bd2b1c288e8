"""`--engine` and `--engine-option` of the commands that run a bundle."""

from __future__ import annotations

from pathlib import Path

import pytest

from bitfit_export.base_model.loading import BaseModel
from bitfit_export.compiler import CompileOptions
from bitfit_export.delta import TaskDelta
from tests import traces
from tests.cli.conftest import Bitfit

TEXT = ("--task", "two_way", "--text", "a text")


@pytest.fixture(scope="module")
def portable(tiny_base: BaseModel, tiny_deltas: dict[str, TaskDelta]) -> Path:
    return traces.bundle_of(tiny_base, tiny_deltas, CompileOptions(target="portable"))


def test_a_text_is_answered_by_the_engine_that_is_named(bitfit: Bitfit, engine: str, portable: Path) -> None:
    done = bitfit("run", portable, *TEXT, "--engine", engine)
    assert (done.status, done.out) == (0, bitfit("run", portable, *TEXT).out)


def test_options_reach_the_engine(bitfit: Bitfit, portable: Path, tmp_path: Path) -> None:
    pytest.importorskip("openvino", reason="needs bitfit-export[openvino]")
    options = ["--engine-option", f"cache_dir={tmp_path}/with=sign", "--engine-option", "precision=f32"]
    assert bitfit("run", portable, *TEXT, "--engine", "openvino", *options).status == 0
    assert list((tmp_path / "with=sign").iterdir())


def test_a_bundle_is_verified_on_the_engine_that_is_named(
    bitfit: Bitfit, engine: str, portable: Path, model_folder: str, deltas_folder: Path
) -> None:
    words = ["verify", portable, "--model", model_folder, "--deltas", deltas_folder, "--engine", engine]
    assert bitfit(*words).status == 0


def test_a_lower_precision_of_the_engine_is_reported_and_does_not_fail(
    bitfit: Bitfit, portable: Path, model_folder: str, deltas_folder: Path
) -> None:
    openvino = pytest.importorskip("openvino", reason="needs bitfit-export[openvino]")
    if "BF16" not in openvino.Core().get_property("CPU", "OPTIMIZATION_CAPABILITIES"):
        pytest.skip("needs a processor with bfloat16 arithmetic")
    words = ["verify", portable, "--model", model_folder, "--deltas", deltas_folder, "--engine", "openvino"]
    exact, lower = bitfit(*words), bitfit(*words, "--engine-option", "precision=bf16")
    assert (exact.status, lower.status) == (0, 0), lower.err
    assert exact.out + exact.err != lower.out + lower.err


@pytest.mark.parametrize("command", ["run", "verify", "bench"])
@pytest.mark.parametrize(
    ("words", "message"),
    [
        (["--engine", "tpu"], "the engine is 'tpu', expected one of onnxruntime, openvino"),
        (["--engine-option", "precision"], "--engine-option is 'precision', expected NAME=VALUE"),
        (["--engine-option", "=f32"], "--engine-option is '=f32', expected NAME=VALUE"),
        (["--engine-option", "a=1", "--engine-option", "a=2"], "--engine-option has a twice, expected one value"),
        (["--engine-option", "precision=bf16"], "the engine onnxruntime has no option 'precision', expected none"),
        (["--engine", "openvino", "--engine-option", "precision=fp8"], "openvino is 'fp8', expected f32 or bf16"),
    ],
)
def test_what_is_not_an_engine_or_an_option_is_refused(
    bitfit: Bitfit,
    portable: Path,
    model_folder: str,
    deltas_folder: Path,
    command: str,
    words: list[str],
    message: str,
) -> None:
    others = TEXT if command == "run" else ("--model", model_folder, "--deltas", deltas_folder)
    done = bitfit(command, portable, *others, *words)
    assert (done.status, done.out) == (2, "")
    assert message in done.err
