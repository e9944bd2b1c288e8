"""The program of `bitfit-train --engine onnxruntime`: with dropout, its gradients are PyTorch's for the same masks."""

from __future__ import annotations

from typing import Any

import numpy as np
import onnx
import onnxruntime as ort
import pytest
import torch
from torch.nn import functional
from torch.overrides import TorchFunctionMode

from bitfit_export.compiler.training_program import HeadDropout, compile_for_training
from bitfit_export.reference.task_model import merged_model
from tests.conftest import random_delta
from tests.families import tiny_base
from tests.traces import traced

#: Of the largest gradient: float32 along another path.
TOLERANCE = 1e-5
RATE = 0.1
#: The second one drops relative positions, too, and the result of a convolution. A trace in training takes seconds.
FAMILIES = ("bert", "deberta-v2")


class Replayed(TorchFunctionMode):
    """PyTorch with masks from elsewhere, in the order in which it asks for them."""

    def __init__(self, factors: list[np.ndarray]) -> None:
        self.factors = list(factors)

    def __torch_function__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        if func is functional.dropout:
            # What the graph's head reads is a column, and what depends on biases alone has a dimension for the batch.
            factor = self.factors.pop(0)
            assert factor.squeeze().shape == tuple(args[0].squeeze().shape)
            return args[0] * torch.from_numpy(factor).view_as(args[0])
        return func(*args, **(kwargs or {}))


@pytest.mark.slow
@pytest.mark.parametrize("family", FAMILIES)
def test_gradients_are_pytorchs_for_the_masks_that_the_graph_draws(family: str) -> None:
    base = tiny_base(family)
    delta = random_delta(base, "mood", labels=("a", "b"), pooling="mean", activation="tanh")
    model = merged_model(base, delta)
    model.base.set_attn_implementation("eager")  # as it is traced: the fused one draws by itself
    names = [f"head.{name}" for name in delta.head] + [name for name in base.biases if not name.startswith("pooler.")]
    graph = traced(base, dropout=True)
    program = compile_for_training(base, delta, names, HeadDropout(RATE, RATE), graph).model
    drawn = in_order_of_calls(graph, program)
    program.graph.output.extend(onnx.helper.make_empty_tensor_value_info(name) for name in drawn)
    mask = np.array([[1] * 6, [1] * 4 + [0] * 2])
    text = {"input_ids": np.arange(1000, 1012).reshape(2, 6) * mask, "attention_mask": mask}
    text |= {"token_type_ids": np.zeros_like(mask)} if "token_type_ids" in base.input_names else {}
    parameters = {name.removeprefix("base."): value for name, value in model.named_parameters()}
    parameters |= {f"head.{name}": parameters[name] for name in delta.head}
    feeds = {
        **{name: value.detach().numpy() for name, value in parameters.items()},
        **text,
        "head.pooling": np.array([0, 0, 1][-program_poolings(program) :], np.float32),
        "head.choice": np.array([0, 1], np.float32),
        "targets": np.eye(2, dtype=np.float32),
        "problem_types": np.ones(2, np.int64),
        "label_counts": np.full(2, 2),
        "item_weights": np.full(2, 0.5, np.float32),
        "dropout_seed": np.array([5], np.uint32),
    }
    session = ort.InferenceSession(program.SerializeToString(), providers=["CPUExecutionProvider"])
    wanted = ["loss", *(f"gradient.{name}" for name in names)]
    fed = {each.name: feeds[each.name] for each in session.get_inputs()}
    outputs = session.run([*wanted, *drawn], fed)
    factors = outputs[len(wanted) :]
    assert all(set(np.unique(each)) <= {0, np.unique(each).max()} for each in factors)

    for name in names:
        parameters[name].requires_grad_(True)
    with Replayed(factors) as replayed:
        logits = model.train()(**{name: torch.from_numpy(value) for name, value in text.items()})["logits"]
    assert replayed.factors == []
    loss = functional.cross_entropy(logits, torch.tensor([0, 1]))
    loss.backward()
    assert outputs[0].item() == pytest.approx(loss.item(), rel=TOLERANCE)
    largest = max(float(parameters[name].grad.abs().max()) for name in names)
    for name, found in zip(names, outputs[1:], strict=False):
        np.testing.assert_allclose(found, parameters[name].grad, rtol=0, atol=TOLERANCE * largest, err_msg=name)


def program_poolings(program: onnx.ModelProto) -> int:
    (shape,) = (each.type.tensor_type.shape for each in program.graph.input if each.name == "head.pooling")
    return int(shape.dim[0].dim_value)


def in_order_of_calls(graph: onnx.ModelProto, program: onnx.ModelProto) -> list[str]:
    """The masks of a program; the traced graph has its nodes in the order of PyTorch's calls, and the head's follow."""
    places = {node.output[0]: place for place, node in enumerate(graph.graph.node) if node.op_type == "Dropout"}
    results = [
        node for node in program.graph.node if node.name.startswith("dropout/") and node.name.endswith("/result")
    ]
    results.sort(key=lambda node: places.get(node.output[0], len(graph.graph.node)))
    return [node.input[1] for node in results]
