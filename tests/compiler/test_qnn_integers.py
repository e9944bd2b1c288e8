"""`--target qnn --precision w8a16`: biases in int32, whose scales are in the manifest and which the host converts."""

from __future__ import annotations

import warnings
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
import onnxruntime as ort
import pytest

from bitfit_export.bundle import read_manifest, read_row, write_row
from bitfit_export.compiler import CompileOptions
from bitfit_export.compiler.passes.quantize_for_htp import Form
from bitfit_export.compiler.targets import qnn
from bitfit_export.delta import TaskDelta
from bitfit_export.errors import UsageError
from bitfit_export.runtime import BiasSession
from bitfit_export.runtime.tasks.one_at_a_time import SaturationWarning
from tests.qnn_bundles import BATCH, HALF, LENGTH, NEEDS_QNN, in_integers, two_deltas
from tests.runtime.conftest import Reference
from tests.traces import bundle_of, compile_bundle

if TYPE_CHECKING:
    from bitfit_export.base_model.loading import BaseModel

pytest.importorskip("onnxruntime_qnn", reason=NEEDS_QNN)

#: The largest difference of a logit to PyTorch's, where weights are rounded to 8 bits.
ROUNDING = 0.1
#: The same where activations are rounded to 8 bits too.
ROUNDING_OF_BOTH = 0.4


@pytest.fixture(scope="module")
def deltas(tiny_base: BaseModel) -> dict[str, TaskDelta]:
    return two_deltas(tiny_base)


@pytest.fixture(scope="module", params=["named", "packed"])
def layout(request: pytest.FixtureRequest) -> str:
    name: str = request.param
    return name


@pytest.fixture(scope="module")
def bundle(layout: str, tiny_base: BaseModel, deltas: dict[str, TaskDelta]) -> Path:
    return bundle_of(tiny_base, deltas, in_integers(layout))


def test_biases_of_products_are_int32_and_the_others_stay_float(layout: str, bundle: Path) -> None:
    manifest = read_manifest(bundle)
    integers = {port.name for port in manifest.infer.inputs if port.dtype == "int32"}
    assert manifest.quantization.bias_scales.keys() == integers
    names = {entry.name for entry in manifest.layout.biases}
    if layout == "packed":  # the HTP takes no bias in integers that is a part of a vector
        assert not integers
    else:
        assert names - integers == {"pooler.dense.bias"}  # the pooler's Gemm stays in float16
        assert len(integers) == 8


def test_it_answers_as_pytorch_and_as_its_graph_on_the_cpu(
    bundle: Path, tiny_base: BaseModel, deltas: dict[str, TaskDelta]
) -> None:
    session, reference = BiasSession(bundle), Reference(tiny_base, deltas)
    source = ort.InferenceSession(str(bundle / "source.onnx"), providers=["CPUExecutionProvider"])
    text = {name: np.pad(values, ((0, 0), (0, LENGTH - values.shape[1]))) for name, values in BATCH.items()}
    for task in deltas:
        found = session.run(task, **BATCH)
        np.testing.assert_allclose(found, reference(task, BATCH), atol=ROUNDING, rtol=0)
        with session._store.lease([task]) as lease:
            (on_cpu,) = source.run(["logits"], text | dict(lease.feeds().bound))
        np.testing.assert_allclose(found, on_cpu, atol=HALF, rtol=0)


def test_its_headroom_cannot_be_observed(bundle: Path) -> None:
    from bitfit_export.verification.headroom import measure_headroom

    with pytest.raises(UsageError, match="compiled for an accelerator, whose activations cannot be observed"):
        measure_headroom(bundle, [], ["a text"])


def test_a_row_is_converted_when_it_is_loaded_and_says_what_saturates(
    layout: str, bundle: Path, tmp_path: Path
) -> None:
    if layout == "packed":
        pytest.skip("it has no bias in int32")
    session = BiasSession(bundle, tasks=["cls"])
    scales = session.manifest.quantization.bias_scales
    row = read_row(bundle / "tasks" / "cls.bias", layout=session.manifest.layout)
    entry = next(each for each in session.manifest.layout.biases if each.name in scales)
    scale = np.array(scales[entry.name], np.float32)

    def bound() -> np.ndarray:
        with session._store.lease(["cls"]) as lease:
            value: np.ndarray = lease.feeds().bound[entry.name]
            return value

    expected = np.rint(row.biases[entry.offset : entry.offset + entry.size].astype(np.float64) / scale)
    assert bound().dtype == np.int32
    np.testing.assert_array_equal(bound(), expected)

    values = row.biases.copy()
    values[entry.offset] = 2.0**31 * scale[0]  # one step more than fits
    values[entry.offset + 1] = -(2.0**31) * scale[1]  # the last that fits
    write_row(tmp_path / "cls.bias", replace(row, biases=values))
    with pytest.warns(SaturationWarning, match=f"task cls has 1 values that saturate.* most are in {entry.name}"):
        session.load_task(tmp_path / "cls.bias")
    assert bound()[:2].tolist() == [2**31 - 1, -(2**31)]
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        session.load_task(bundle / "tasks" / "mean.bias")


@pytest.mark.parametrize(
    ("precision", "form", "layout", "tolerance"),
    [
        ("w8a16", Form(np.int16, np.uint16), "named", HALF),
        ("w8a16", Form(np.int16, np.uint16), "packed", HALF),
        ("int8-static", Form(np.int8, np.uint8), "named", ROUNDING_OF_BOTH),
    ],
)
def test_other_integers_of_products_answer_as_pytorch_too(
    precision: str,
    form: Form,
    layout: str,
    tolerance: float,
    tiny_base: BaseModel,
    deltas: dict[str, TaskDelta],
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setitem(qnn._FORMS, precision, (form,))
    options = CompileOptions(target="qnn", precision=precision, layout=layout, static_shape=(1, LENGTH))
    compile_bundle(tiny_base, deltas, tmp_path, options)
    session, reference = BiasSession(tmp_path), Reference(tiny_base, deltas)
    assert (len(session.manifest.quantization.bias_scales) == 8) == (layout == "named")
    np.testing.assert_allclose(session.run("mean", **BATCH), reference("mean", BATCH), atol=tolerance, rtol=0)
