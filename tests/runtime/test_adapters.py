"""ONNX Runtime's own LoraAdapter runs an overridable bundle as a session does."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import onnxruntime as ort
import pytest

from bitfit_export.bundle import read_manifest, read_row
from bitfit_export.bundle.adapter import write_adapter
from bitfit_export.runtime import BiasSession
from tests.runtime.conftest import BATCH, TOLERANCE, MakeBundle

pytestmark = pytest.mark.parametrize("engine", ["onnxruntime"], indirect=True)


def write_adapters(folder: Path, target: Path) -> dict[str, str]:
    """An adapter for each task of the bundle: task name -> path."""
    layout = read_manifest(folder).layout
    paths = {}
    for name, record in read_manifest(folder).tasks.items():
        paths[name] = str(target / f"{name}.onnx_adapter")
        write_adapter(Path(paths[name]), read_row(folder / record.file, layout=layout), layout)
    return paths


def open_model(folder: Path) -> ort.InferenceSession:
    options = ort.SessionOptions()
    options.log_severity_level = 4
    options.intra_op_num_threads = 1
    return ort.InferenceSession(str(folder / "model.onnx"), options)


def test_an_adapter_equals_a_session(make_bundle: MakeBundle, tmp_path: Path) -> None:
    folder = make_bundle("overridable")
    paths, model, session = write_adapters(folder, tmp_path), open_model(folder), BiasSession(folder, threads=1)
    for task, path in paths.items():
        adapter = ort.LoraAdapter()  # it must outlive the run: its options keep no reference
        adapter.Load(path)
        options = ort.RunOptions()
        options.add_active_adapter(adapter)
        output = "token_logits" if task in ("tags", "answers") else "logits"
        (found,) = model.run([output], BATCH, options)
        np.testing.assert_allclose(found, session.run(task, **BATCH), rtol=0, atol=TOLERANCE, err_msg=task)


def test_without_an_adapter_the_model_runs_its_defaults(make_bundle: MakeBundle) -> None:
    """So an adapter that is not active would show above: the default head is all zero."""
    (found,) = open_model(make_bundle("overridable")).run(["logits"], BATCH)
    assert not found.any()


def test_a_model_without_defaults_can_not_take_an_adapter(make_bundle: MakeBundle, tmp_path: Path) -> None:
    """The reason for overridable bundles: Python looks for required inputs before it looks at the adapter."""
    folder = make_bundle("named")
    adapter = ort.LoraAdapter()
    adapter.Load(write_adapters(folder, tmp_path)["two_way"])
    options = ort.RunOptions()
    options.add_active_adapter(adapter)
    with pytest.raises(ValueError, match="Required inputs"):
        open_model(folder).run(["logits"], BATCH, options)
