"""Folding proven family by family: PyTorch in float64 gives the same with a task's values as with the folded ones."""

from __future__ import annotations

import copy
import functools
from dataclasses import dataclass, replace

import numpy as np
import onnx
import onnx_graphsurgeon as gs
import onnxruntime as ort
import pytest
import torch

from bitfit_export.base_model.loading import BaseModel
from bitfit_export.compiler.passes.find_bias_sites import BiasSite
from bitfit_export.compiler.passes.fold_biases import FoldPlan, fold_biases
from tests.compiler.traced import canonical_graph
from tests.families import quick_first, tiny_base

#: Differences in float64, where values are of order 1.
EXACT = 1e-12
#: Differences in float32.
TOLERANCE = 1e-5

#: family -> its bias terms, and how many of them stay in the graph.
COUNTS = {
    "bert": (18, 9),
    "roberta": (18, 9),
    "xlm-roberta": (18, 9),
    "camembert": (18, 9),
    "distilbert": (17, 8),
    "electra": (18, 8),
    "mpnet": (18, 9),
    "albert": (11, 7),
    "deberta": (17, 12),
    "deberta-v2": (24, 18),
    "deberta-v2/v3": (18, 13),
    "gpt2": (13, 8),
    "vit": (19, 10),
    "wav2vec2": (23, 14),
}
#: Each trace takes seconds; these two have between them every way in which attention is written.
FAMILIES = quick_first(list(COUNTS))


@dataclass(frozen=True)
class Folded:
    """A tiny base model, the plan for it and the graph after folding."""

    base: BaseModel
    plan: FoldPlan
    model: onnx.ModelProto


def fold(base: BaseModel) -> Folded:
    graph = canonical_graph(base)
    plan = fold_biases(graph, sites_of(graph, base))
    return Folded(base, plan, gs.export_onnx(graph))


def sites_of(graph: gs.Graph, base: BaseModel) -> list[BiasSite]:
    """Every use of every bias, whether or not it can be lifted: folding does not ask."""
    tensors = graph.tensors()
    return [BiasSite(name, node, 0, 0) for name in base.biases for node in tensors[name].outputs]


@functools.cache
def folded(family: str) -> Folded:
    return fold(tiny_base(family))


@functools.cache
def inputs_of(family: str) -> dict[str, torch.Tensor]:
    """Three rows, two of them padded; pixels or samples where the family reads these."""
    random = np.random.default_rng(3)
    if family == "vit":
        return {"pixel_values": torch.from_numpy(random.normal(size=(3, 3, 16, 16))).float()}
    if family == "wav2vec2":
        return {"input_values": torch.from_numpy(random.normal(size=(3, 160))).float()}
    mask = torch.arange(9) < torch.tensor([[9], [4], [1]])
    ids = torch.from_numpy(random.integers(5, 1000, (3, 9)))
    names = folded(family).base.tokenizer.model_input_names
    given = {"input_ids": ids, "attention_mask": mask.long(), "token_type_ids": torch.zeros_like(ids)}
    return {name: value for name, value in given.items() if name in names}


def task_values(base: BaseModel, seed: int = 7) -> dict[str, np.ndarray]:
    """A task's biases, far from the base's."""
    random = np.random.default_rng(seed)
    return {name: random.normal(scale=0.5, size=value.shape) for name, value in base.biases.items()}


def outputs_of(
    base: BaseModel, values: dict[str, np.ndarray], family: str, dtype: torch.dtype
) -> dict[str, np.ndarray]:
    """What PyTorch's model gives with these biases: `last_hidden_state`, and `pooler_output` where it has one."""
    module = copy.deepcopy(base.module).to(dtype)
    module.load_state_dict({name: torch.from_numpy(value) for name, value in values.items()}, strict=False)
    inputs = {
        name: value.to(dtype) if value.is_floating_point() else value for name, value in inputs_of(family).items()
    }
    with torch.inference_mode():
        found = module(**inputs)
    names = ("last_hidden_state", "pooler_output")
    return {name: found[name].numpy() for name in names if found.get(name) is not None}


@pytest.mark.parametrize("family", FAMILIES)
def test_folded_values_give_the_same_outputs_in_float64(family: str) -> None:
    base, plan = folded(family).base, folded(family).plan
    values = task_values(base)
    moved = plan.apply(values)
    zeros = {name: np.zeros_like(value) for name, value in values.items()}
    expected = outputs_of(base, values, family, torch.float64)
    found = outputs_of(base, zeros | moved.biases, family, torch.float64)
    if moved.output_shift is not None:
        found["last_hidden_state"] += moved.output_shift
    assert found.keys() == expected.keys()
    for name, value in expected.items():
        np.testing.assert_allclose(found[name], value, rtol=EXACT, atol=EXACT, err_msg=name)


@pytest.mark.parametrize("family", FAMILIES)
def test_the_folded_graph_computes_what_pytorch_does(family: str) -> None:
    base, plan, model = folded(family).base, folded(family).plan, folded(family).model
    values = {name: value.astype(np.float32) for name, value in task_values(base).items()}
    moved = plan.apply(values)
    expected = outputs_of(base, values, family, torch.float32)
    found = run_graph(model, moved.biases, {name: value.numpy() for name, value in inputs_of(family).items()})
    if moved.output_shift is not None:
        found["last_hidden_state"] = found["last_hidden_state"] + moved.output_shift.astype(np.float32)
    for name, value in expected.items():
        np.testing.assert_allclose(found[name], value, rtol=TOLERANCE, atol=TOLERANCE, err_msg=name)


def run_graph(
    model: onnx.ModelProto, biases: dict[str, np.ndarray], inputs: dict[str, np.ndarray]
) -> dict[str, np.ndarray]:
    """The model's outputs with other constants for its biases."""
    changed = onnx.ModelProto()
    changed.CopyFrom(model)
    for tensor in changed.graph.initializer:
        if tensor.name in biases:
            tensor.CopyFrom(onnx.numpy_helper.from_array(biases[tensor.name].astype(np.float32), tensor.name))
    session = ort.InferenceSession(changed.SerializeToString())
    wanted = {each.name for each in session.get_inputs()}
    results = session.run(None, {name: value for name, value in inputs.items() if name in wanted})
    return dict(zip((each.name for each in session.get_outputs()), results, strict=True))


@pytest.mark.parametrize("family", FAMILIES)
def test_what_folds_leaves_the_graph_and_what_stays_is_in_it(family: str) -> None:
    base, plan, model = folded(family).base, folded(family).plan, folded(family).model
    assert (len(base.biases), len(plan.kept)) == COUNTS[family]
    assert list(plan.kept) == [name for name in base.biases if name in plan.kept]
    initializers = {tensor.name for tensor in model.graph.initializer}
    assert initializers & base.biases.keys() == set(plan.kept)
    assert {step.source for step in plan.steps}.isdisjoint(plan.kept)


def folded_kinds(family: str) -> set[str]:
    """The folded bias terms, without the numbers of their layers."""
    base, plan = folded(family).base, folded(family).plan
    return {".".join(part for part in name.split(".") if not part.isdigit()) for name in base.biases.keys() - plan.kept}


def test_bert_loses_the_biases_of_keys_values_and_layer_norms() -> None:
    assert folded_kinds("bert") == {
        "embeddings.LayerNorm.bias",
        "encoder.layer.attention.self.key.bias",
        "encoder.layer.attention.self.value.bias",
        "encoder.layer.attention.output.LayerNorm.bias",
        "encoder.layer.output.LayerNorm.bias",
    }
    assert folded("bert").plan.output == "encoder.layer.1.output.LayerNorm.bias"
    assert folded("bert").plan.reasons == {}


@pytest.mark.slow
def test_albert_keeps_a_tied_bias_whose_uses_differ_and_says_so() -> None:
    layer = "encoder.albert_layer_groups.0.albert_layers.0"
    plan = folded("albert").plan
    assert plan.output is None
    assert set(plan.reasons) == {f"{layer}.full_layer_layer_norm.bias", "encoder.embedding_hidden_mapping_in.bias"}
    assert all("is also added where other values come" in reason for reason in plan.reasons.values())
    assert f"{layer}.attention.LayerNorm.bias" not in plan.kept


@pytest.mark.slow
@pytest.mark.parametrize("family", ["deberta-v2", "deberta-v2/v3"])
def test_relative_attention_keeps_key_biases_and_says_so(family: str) -> None:
    plan = folded(family).plan
    keys = {f"encoder.layer.{layer}.attention.self.key_proj.bias" for layer in range(2)}
    assert keys <= plan.reasons.keys()
    assert "encoder.layer.0.attention.self.value_proj.bias" not in plan.kept


@pytest.mark.slow
def test_without_relative_attention_deberta_loses_its_key_biases() -> None:
    plan = fold(tiny_base("deberta-v2", relative_attention=False, conv_kernel_size=0, norm_rel_ebd="none")).plan
    assert not any("key_proj" in name or "value_proj" in name for name in plan.kept)


@pytest.mark.slow
def test_a_bert_without_a_pooler_folds_as_well() -> None:
    module = copy.deepcopy(folded("bert").base.module)
    module.pooler = None
    plan = fold(replace(folded("bert").base, module=module)).plan
    assert plan.kept == tuple(name for name in folded("bert").plan.kept if not name.startswith("pooler"))
    assert plan.output == folded("bert").plan.output
