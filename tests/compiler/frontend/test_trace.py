"""From PyTorch to an unoptimised graph: its interface, its constants, and what is refused."""

from __future__ import annotations

import dataclasses
from collections import Counter
from typing import Any

import onnx
import pytest
import torch

from bitfit_export.base_model.loading import BaseModel
from bitfit_export.compiler.frontend.lengths import check_lengths, lengths_to_check
from bitfit_export.compiler.frontend.trace import trace_base_model
from bitfit_export.errors import CompileError
from tests import traces
from tests.families import FAMILIES, tiny_base


def sizes_of(values: Any) -> dict[str, list[int | str]]:
    return {v.name: [d.dim_param or d.dim_value for d in v.type.tensor_type.shape.dim] for v in values}


@pytest.fixture(scope="module")
def bert() -> BaseModel:
    return tiny_base("bert")


@pytest.fixture(scope="module")
def traced(bert: BaseModel) -> onnx.ModelProto:
    return traces.traced(bert)


def test_ids_go_in_and_hidden_states_come_out(traced: onnx.ModelProto) -> None:
    assert sizes_of(traced.graph.input) == {
        "input_ids": ["batch", "sequence"],
        "attention_mask": ["batch", "sequence"],
        "token_type_ids": ["batch", "sequence"],
    }
    assert sizes_of(traced.graph.output) == {
        "last_hidden_state": ["batch", "sequence", 32],
        "pooler_output": ["batch", 32],
    }


@pytest.mark.slow
@pytest.mark.parametrize(
    ("family", "inputs", "hidden"),
    [
        ("vit", {"pixel_values": ["batch", 3, 16, 16]}, ["batch", 17, 32]),
        ("wav2vec2", {"input_values": ["batch", "samples"]}, ["batch", "((samples//10)) - 1", 32]),
    ],
)
def test_images_and_sounds_go_in(family: str, inputs: dict[str, Any], hidden: list[int | str]) -> None:
    graph = traces.traced(tiny_base(family)).graph
    assert sizes_of(graph.input) == inputs
    assert sizes_of(graph.output)["last_hidden_state"] == hidden


def test_every_bias_is_one_initializer_with_a_use(bert: BaseModel, traced: onnx.ModelProto) -> None:
    names = Counter(initializer.name for initializer in traced.graph.initializer)
    used = {name for node in traced.graph.node for name in node.input}
    assert {names[name] for name in bert.biases} == {1}
    assert set(bert.biases) <= used


def test_no_weight_is_there_twice(bert: BaseModel, traced: onnx.ModelProto) -> None:
    parameters = sum(parameter.nbytes for parameter in bert.module.parameters())
    constants = sum(len(initializer.raw_data) for initializer in traced.graph.initializer)
    assert parameters <= constants < 1.02 * parameters  # shapes and position ids are constants, too


def changed(base: BaseModel, **changes: Any) -> BaseModel:
    return dataclasses.replace(base, **changes)


@pytest.mark.slow
def test_a_bias_that_the_model_never_uses_is_refused() -> None:
    base = tiny_base("distilbert")
    base.module.spare = torch.nn.Linear(2, 2)
    with pytest.raises(CompileError, match=r"1 of the 18 bias terms of tiny-distilbert are not used .* spare\.bias"):
        trace_base_model(changed(base))


def test_what_makes_no_sequence_of_vectors_is_refused() -> None:
    base = tiny_base("convnext", hidden_sizes=[8, 8, 8, 8], depths=[1, 1, 1, 1], image_size=32)
    with pytest.raises(CompileError, match=r"gives last_hidden_state \('batch', 8, 1, 1\), .* expected last_hidden_st"):
        trace_base_model(base)


def test_what_the_exporter_cannot_trace_is_refused_with_its_reason() -> None:
    # Nystromformer takes texts of one length, unless it has as many landmarks as its segments have tokens.
    base = tiny_base("nystromformer", **FAMILIES["bert"], num_landmarks=4, segment_means_seq_len=64)
    with pytest.raises(CompileError, match=r"tiny-nystromformer cannot be traced: shape '\[-1, 4, 4, 16, 8\]' is inv"):
        trace_base_model(base)


@pytest.mark.slow
def test_a_length_at_which_the_exporter_cannot_prove_its_graph_is_tried_out(monkeypatch: pytest.MonkeyPatch) -> None:
    checked: list[BaseModel] = []

    def check(base: BaseModel, model: onnx.ModelProto) -> None:
        checked.append(base)
        check_lengths(base, model)

    monkeypatch.setattr("bitfit_export.compiler.frontend.trace.check_lengths", check)
    config = {"embedding_size": 16, "true_hidden_size": 16, "intra_bottleneck_size": 16, "num_hidden_layers": 1}
    base = tiny_base("mobilebert", **FAMILIES["bert"] | config)
    assert sizes_of(trace_base_model(base).graph.input)["input_ids"] == ["batch", "sequence"]
    assert checked == [base]


def test_lengths_to_check_are_the_ends_and_all_around_powers_of_two() -> None:
    assert lengths_to_check(1) == [1]
    assert lengths_to_check(20) == [1, 2, 3, 4, 5, 7, 8, 9, 15, 16, 17, 20]
    assert lengths_to_check(64)[-3:] == [33, 63, 64]


def test_a_graph_that_is_right_at_every_length_passes(bert: BaseModel, traced: onnx.ModelProto) -> None:
    check_lengths(bert, traced)


def test_lengths_that_cannot_run_are_refused(bert: BaseModel, traced: onnx.ModelProto) -> None:
    broken, table = with_positions(traced)
    table.CopyFrom(onnx.numpy_helper.from_array(onnx.numpy_helper.to_array(table)[:9], table.name))
    with pytest.raises(CompileError, match="wrong for texts of 15, 16, 17, 31, 32, 33, 63, 64 tokens"):
        check_lengths(bert, broken)


def test_lengths_that_give_something_else_are_refused(bert: BaseModel, traced: onnx.ModelProto) -> None:
    broken, table = with_positions(traced)
    values = onnx.numpy_helper.to_array(table).copy()
    values[63, 0] += 0.1
    table.CopyFrom(onnx.numpy_helper.from_array(values, table.name))
    with pytest.raises(CompileError, match="wrong for texts of 64 tokens"):
        check_lengths(bert, broken)


def with_positions(model: onnx.ModelProto) -> tuple[onnx.ModelProto, onnx.TensorProto]:
    """A copy of the model, and its table of positions."""
    copied = onnx.ModelProto()
    copied.CopyFrom(model)
    name = "embeddings.position_embeddings.weight"
    return copied, next(initializer for initializer in copied.graph.initializer if initializer.name == name)
