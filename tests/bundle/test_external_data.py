"""The files in which a model's weights lie: all are found, wherever a tensor is, and without the package onnx."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import pytest

from bitfit_export.bundle import check_files, record_file
from bitfit_export.bundle.external_data import external_locations
from bitfit_export.errors import BundleError
from tests.bundle.test_manifest import FILES, MANIFEST

onnx = pytest.importorskip("onnx", reason="needs bitfit-export[export]")


@pytest.fixture
def bundle(tmp_path: Path) -> Path:
    for name, data in FILES.items():
        (tmp_path / name).parent.mkdir(exist_ok=True)
        (tmp_path / name).write_bytes(data)
    return tmp_path


def tensor(location: str | None, name: str = "w") -> object:
    tensor = onnx.TensorProto(name=name, data_type=1, dims=[1])
    if location is None:
        tensor.raw_data = bytes(4)
    else:
        tensor.data_location = onnx.TensorProto.EXTERNAL
        for key, value in {"offset": "0", "location": location, "length": "4"}.items():
            tensor.external_data.add(key=key, value=value)
    return tensor


def test_every_place_of_a_tensor() -> None:
    helper = onnx.helper
    inner = helper.make_graph([helper.make_node("Constant", [], ["c"], value=tensor("in/branch"))], "g", [], [])
    inner.initializer.append(tensor("of_branch"))
    sparse = onnx.SparseTensorProto(values=tensor("sparse"), indices=tensor("indices"), dims=[1])
    node = helper.make_node("If", ["x"], ["y"], then_branch=inner, several=[inner, inner])
    many = helper.make_node("Custom", [], ["z"])
    many.attribute.add(name="t", type=onnx.AttributeProto.TENSORS).tensors.append(tensor("of_attribute"))
    graph = helper.make_graph([node, many], "g", [], [], [tensor("a"), tensor(None), tensor("ä b")])
    graph.sparse_initializer.append(sparse)
    model = helper.make_model(graph)
    function = model.functions.add(name="f", domain="d")
    function.node.append(helper.make_node("Constant", [], ["c"], value=tensor("of_function")))
    model.training_info.add().algorithm.initializer.append(tensor("of_training"))
    assert external_locations(model.SerializeToString()) == {
        *("a", "ä b", "in/branch", "of_branch", "sparse", "indices", "of_attribute", "of_function", "of_training")
    }


def test_a_model_without_any() -> None:
    graph = onnx.helper.make_graph([], "location", [], [], [tensor(None)])
    assert external_locations(onnx.helper.make_model(graph).SerializeToString()) == set()


def test_a_file_that_the_manifest_does_not_name(bundle: Path) -> None:
    graph = onnx.helper.make_graph([], "g", [], [], [tensor("model.onnx.data"), tensor("other.data")])
    (bundle / "model.onnx").write_bytes(onnx.helper.make_model(graph).SerializeToString())
    files = MANIFEST.files | {"model.onnx": record_file(bundle / "model.onnx")}
    with pytest.raises(BundleError, match=r"has weights in 'other\.data', which the manifest does not name"):
        check_files(bundle, replace(MANIFEST, tasks={}, files=files), hash_files=False)
    (bundle / "other.data").write_bytes(b"")
    files["other.data"] = record_file(bundle / "other.data")
    check_files(bundle, replace(MANIFEST, tasks={}, files=files), hash_files=False)


def test_bytes_that_are_no_model(bundle: Path) -> None:
    for data in (b"\xff" * 20, b"\x3a\x7f", b"\x0b", b"\x3a\xff\xff\xff\xff\xff\xff\xff\xff\xff\x01", b"location"):
        (bundle / "model.onnx").write_bytes(data)
        files = MANIFEST.files | {"model.onnx": record_file(bundle / "model.onnx")}
        with pytest.raises(BundleError, match=r"model\.onnx cannot be loaded: it is"):
            check_files(bundle, replace(MANIFEST, tasks={}, files=files), hash_files=False)


def test_graphs_in_graphs_without_end() -> None:
    def field(number: int, data: bytes) -> bytes:
        size = len(data)
        digits = []
        while size >= 128:
            digits.append(size & 127 | 128)
            size >>= 7
        return bytes([number << 3 | 2, *digits, size]) + data

    data = field(5, field(13, field(1, b"location") + field(2, b"x")))
    for _ in range(1000):
        data = field(1, field(5, field(6, data)))
    with pytest.raises(ValueError, match="nest too deeply"):
        external_locations(field(7, data))
