"""`--target qnn`: what it takes, what it writes, and what it says of a graph that the HTP refuses."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import onnx
import pytest
from onnx import TensorProto, helper

from bitfit_export.accelerators.qnn import find_chip
from bitfit_export.bundle import read_manifest
from bitfit_export.cli.export import add_arguments, compile_options
from bitfit_export.compiler import CompileOptions
from bitfit_export.compiler.ahead_of_time import compile_for_htp
from bitfit_export.compiler.pipeline import plan_passes
from bitfit_export.errors import CompileError, UsageError
from tests.conftest import random_delta
from tests.families import tiny_base as family_base
from tests.traces import compile_bundle

pytest.importorskip("onnxruntime_qnn", reason="needs bitfit-export[qnn]: Linux x86-64, glibc 2.35")

QNN: dict[str, Any] = {"target": "qnn", "layout": "packed", "precision": "fp16", "static_shape": (1, 8)}
#: Families that are compiled whole; the others of `tests.families` are made of the same operators.
QUICK = ("mpnet", "deberta")
FAMILIES = [
    *QUICK,
    *(pytest.param(name, marks=pytest.mark.slow) for name in ("roberta", "distilbert", "deberta-v2/v3")),
]


@pytest.mark.parametrize("layout", ["packed", "named"])
@pytest.mark.parametrize("family", FAMILIES)
def test_each_family_is_compiled_whole(family: str, layout: str, tmp_path: Path) -> None:
    if layout == "packed" and family in QUICK:
        pytest.skip("the layout named has the same operators")
    base = family_base(family)
    compile_bundle(
        base, {"a": random_delta(base, "a", pooling="cls")}, tmp_path, CompileOptions(**QNN | {"layout": layout})
    )
    record = read_manifest(tmp_path).accelerator
    assert record is not None
    assert (record.soc, record.arch) == ("sm8550", 73)
    assert record.nodes > 60


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"layout": "table", "static_shape": None}, "--target qnn runs one task at a time, but --layout is table"),
        ({"static_shape": None}, "--target qnn takes one shape, but --static-shape is missing"),
        ({"layout": "named", "overridable": True}, "--overridable does not go with --target qnn"),
        ({"precision": "fp32"}, "--target qnn has no precision fp32, expected fp16, w8a16"),
        ({"precision": "w8a16", "static_shape": (2, 8)}, "--static-shape has 16 tokens in all, expected any other"),
        ({"prepack": True}, "--prepack goes with --target ort"),
        ({"soc": "sm9"}, "--soc is 'sm9'"),
    ],
)
def test_options_that_it_does_not_take_are_refused(options: dict[str, Any], message: str) -> None:
    with pytest.raises(UsageError, match=message):
        plan_passes(CompileOptions(**QNN | options))


def test_the_command_line_needs_no_more_than_the_target() -> None:
    import argparse

    parser = argparse.ArgumentParser()
    add_arguments(parser)
    found = compile_options(parser.parse_args(["--target", "qnn"]))
    assert (found.layout, found.precision, found.static_shape) == ("packed", "fp16", (1, 128))
    found = compile_options(parser.parse_args(["--target", "qnn", "--layout", "named", "--static-shape", "2,32"]))
    assert (found.layout, found.static_shape) == ("named", (2, 32))
    found = compile_options(parser.parse_args(["--target", "qnn", "--precision", "w8a16"]))
    assert (found.layout, found.precision) == ("named", "w8a16")
    found = compile_options(parser.parse_args([]))
    assert (found.layout, found.precision, found.static_shape) == ("table", "fp32", None)


def refused_model(path: Path) -> None:
    """x + det(x): the HTP has no determinant."""
    x = helper.make_tensor_value_info("x", TensorProto.FLOAT, [4, 4])
    y = helper.make_tensor_value_info("y", TensorProto.FLOAT, [4, 4])
    nodes = [
        helper.make_node("Det", ["x"], ["of_x"], name="determinant"),
        helper.make_node("Add", ["x", "of_x"], ["y"], name="add"),
    ]
    graph = helper.make_graph(nodes, "g", [x], [y])
    onnx.save(helper.make_model(graph, opset_imports=[helper.make_opsetid("", 20)], ir_version=9), path)


def test_a_node_that_the_htp_refuses_is_named(tmp_path: Path) -> None:
    refused_model(tmp_path / "source.onnx")
    with pytest.raises(CompileError, match=r"the HTP 73 refuses 1 nodes, expected none: Det \(determinant\)"):
        compile_for_htp(tmp_path / "source.onnx", tmp_path / "model.onnx", find_chip())
    assert [each.name for each in tmp_path.iterdir()] == ["source.onnx"]


def test_the_graph_may_be_kept_and_the_program_is_the_same_each_time(tmp_path: Path) -> None:
    """Its binary is not: Qualcomm's compiler makes another one of the same length when a process compiles again."""
    base = family_base("distilbert")
    contents = []
    for name in ("one", "two"):
        folder = tmp_path / name
        folder.mkdir()
        deltas = {"a": random_delta(base, "a", pooling="cls")}
        compile_bundle(base, deltas, folder, CompileOptions(**QNN, keep_onnx=True))
        record = read_manifest(folder).accelerator
        assert record is not None
        assert record.source == "source.onnx"
        contents.append({each.name: each.read_bytes() for each in folder.iterdir() if each.is_file()})
    assert contents[0].keys() == {
        *("manifest.json", "model.onnx", "model_qnn.bin", "source.onnx", "source.onnx.data", "tokenizer.json")
    }
    for name in contents[0].keys() - {"manifest.json", "model_qnn.bin"}:
        assert contents[0][name] == contents[1][name], name
    assert len(contents[0]["model_qnn.bin"]) == len(contents[1]["model_qnn.bin"])
