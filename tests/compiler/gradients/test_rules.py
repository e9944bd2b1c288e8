"""Each derivative of the table is PyTorch's, with broadcasts, and where a shape is known only at run time."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any, NamedTuple

import numpy as np
import onnx_graphsurgeon as gs
import onnxruntime as ort
import pytest
import torch
from torch.nn import functional

from bitfit_export.compiler.compilation import Refusal
from bitfit_export.compiler.gradients.reverse import differentiate
from bitfit_export.compiler.gradients.rules import RULES, SPLIT
from bitfit_export.compiler.graph.constants import constant
from bitfit_export.compiler.graph.edit import emit
from bitfit_export.compiler.graph.infer_shapes import infer_shapes

TOLERANCE = {"rtol": 1e-5, "atol": 1e-6}
OPSET = 20


class Case(NamedTuple):
    """An operator on float inputs, and the same in PyTorch.

    `others` are inputs behind the first ones that are no floats, or constants; None leaves one out. `outputs` is the
    number of results, `used` which of them the loss reads.
    """

    op: str
    shapes: Sequence[tuple[int, ...]]
    torch: Callable[..., Any]
    others: Sequence[Any] = ()
    attrs: dict[str, Any] = {}  # noqa: RUF012 - never changed
    positive: bool = False
    outputs: int = 1
    used: tuple[int, ...] = (0,)
    constants: tuple[int, ...] = ()


def _layer_norm(x: torch.Tensor, weight: torch.Tensor, bias: torch.Tensor) -> torch.Tensor:
    return functional.layer_norm(x, (x.shape[-1],), weight, bias)


PAIRS = [
    ((2, 3, 4), (2, 3, 4)),
    ((2, 3, 4), (4,)),
    ((2, 3, 4), (2, 1, 4)),
    ((4,), (2, 3, 4)),
    ((3, 1), (1, 5)),
    ((2, 3), ()),
]
COLUMNS = torch.tensor([[0, 2, 2], [1, 0, 0]])
CASES = [
    *(Case("Add", pair, torch.add) for pair in PAIRS),
    *(Case("Sub", pair, torch.sub) for pair in PAIRS),
    *(Case("Mul", pair, torch.mul) for pair in PAIRS),
    *(Case("Div", pair, torch.div, positive=True) for pair in PAIRS),
    Case("Where", [(3, 4), (4,)], lambda a, b: torch.where(torch.eye(3, 4).bool(), a, b)),
    Case("Identity", [(2, 3)], torch.clone),
    Case("Cast", [(2, 3)], torch.clone, attrs={"to": 1}),
    Case("CastLike", [(2, 3)], torch.clone, others=[np.zeros(2, np.float32)]),
    Case("Neg", [(2, 3)], torch.neg),
    Case("Exp", [(2, 3)], torch.exp),
    Case("Log", [(2, 3)], torch.log, positive=True),
    Case("Sqrt", [(2, 3)], torch.sqrt, positive=True),
    Case("Pow", [(2, 3)], lambda x: x**2, others=[np.array(2, np.float32)]),
    Case("Pow", [(2, 3)], lambda x: x**3, others=[np.array(3, np.float32)]),
    Case("Tanh", [(2, 3)], torch.tanh),
    Case("Sigmoid", [(2, 3)], torch.sigmoid),
    Case("Softplus", [(2, 3)], functional.softplus),
    Case("Relu", [(2, 30)], torch.relu),
    Case("Erf", [(2, 30)], torch.erf),
    Case("Gelu", [(2, 30)], functional.gelu),
    Case("Gelu", [(2, 30)], lambda x: functional.gelu(x, approximate="tanh"), attrs={"approximate": "tanh"}),
    Case("Reshape", [(2, 6)], lambda x: x.reshape(3, 4), others=[np.array([3, -1])]),
    Case("Flatten", [(2, 3, 4)], lambda x: x.flatten(1)),
    Case("Squeeze", [(2, 1, 4)], lambda x: x.squeeze(1), others=[np.array([1])]),
    Case("Unsqueeze", [(2, 4)], lambda x: x.unsqueeze(1), others=[np.array([1])]),
    Case("Transpose", [(2, 3, 4)], lambda x: x.permute(2, 0, 1), attrs={"perm": [2, 0, 1]}),
    Case("Transpose", [(2, 3)], lambda x: x.T),
    Case("Expand", [(3, 1)], lambda x: x.expand(2, 3, 4), others=[np.array([2, 3, 4])]),
    Case("Tile", [(2, 3)], lambda x: x.repeat(3, 2), others=[np.array([3, 2])]),
    Case("Concat", [(2, 3), (2, 1), (2, 4)], lambda *parts: torch.cat(parts, 1), attrs={"axis": -1}),
    Case("Split", [(2, 6)], lambda x: x.split([1, 3, 2], 1), others=[np.array([1, 3, 2])], attrs={"axis": 1},
         outputs=3, used=(0, 2)),
    Case("Slice", [(3, 5)], lambda x: x[:, 1:3], others=[np.array([1]), np.array([3]), np.array([1])]),
    Case("Slice", [(3, 5)], lambda x: x[2:], others=[np.array([2]), np.array([2**60]), np.array([0])]),
    Case("Gather", [(4, 3)], lambda x: x[[2, 0, 2]], others=[np.array([2, 0, 2])]),
    Case("Gather", [(2, 4, 3)], lambda x: x[:, 1], others=[np.array(1)], attrs={"axis": 1}),
    Case("Gather", [(2, 4, 3)], lambda x: x[:, :1], others=[np.array([0])], attrs={"axis": 1}),
    Case("GatherElements", [(2, 4)], lambda x: x.gather(1, COLUMNS), others=[COLUMNS.numpy()], attrs={"axis": 1}),
    Case("MatMul", [(2, 3), (3, 4)], torch.matmul),
    Case("MatMul", [(5, 2, 3), (3, 4)], torch.matmul),
    Case("MatMul", [(5, 2, 3), (3, 4)], torch.matmul, constants=(1,)),
    Case("MatMul", [(2, 3), (5, 3, 4)], torch.matmul),
    Case("MatMul", [(5, 1, 2, 3), (4, 3, 2)], torch.matmul),
    *(
        Case("Gemm", [(3, 2) if a else (2, 3), (4, 3) if b else (3, 4), (4,)],
             lambda x, y, z, a=a, b=b: 0.5 * (x.T if a else x) @ (y.T if b else y) + 2 * z,
             attrs={"alpha": 0.5, "beta": 2.0, "transA": a, "transB": b})
        for a in (0, 1) for b in (0, 1)
    ),
    Case("Conv", [(2, 4, 9), (6, 2, 3), (6,)], lambda x, w, b: functional.conv1d(x, w, b, padding=1, groups=2),
         attrs={"kernel_shape": [3], "pads": [1, 1], "group": 2}, constants=(1,)),
    Case("Conv", [(2, 4, 10), (6, 4, 3)], lambda x, w: functional.conv1d(x, w, stride=2),
         attrs={"kernel_shape": [3], "strides": [2]}, constants=(1,)),
    Case("Softmax", [(2, 3, 4)], lambda x: x.softmax(-1)),
    Case("Softmax", [(2, 3, 4)], lambda x: x.softmax(1), attrs={"axis": 1}),
    Case("LogSoftmax", [(2, 3, 4)], lambda x: x.log_softmax(1), attrs={"axis": 1}),
    Case("LayerNormalization", [(2, 3, 8), (8,), (8,)], _layer_norm, constants=(1,)),
    Case("ReduceSum", [(2, 3, 4)], lambda x: x.sum(1), others=[np.array([1])], attrs={"keepdims": 0}),
    Case("ReduceSum", [(2, 3, 4)], lambda x: x.sum((0, 2), keepdim=True), others=[np.array([0, -1])]),
    Case("ReduceMean", [(2, 3, 4)], lambda x: x.mean(-1, keepdim=True), others=[np.array([-1])]),
]  # fmt: skip


def _name(case: Case) -> str:
    return f"{case.op} {' '.join('x'.join(map(str, shape)) or 'number' for shape in case.shapes)}"


@pytest.mark.parametrize("dynamic", [False, True], ids=["shapes known", "shapes open"])
@pytest.mark.parametrize("case", CASES, ids=_name)
def test_derivative_is_pytorchs(case: Case, dynamic: bool) -> None:
    random = np.random.default_rng(len(case.op))
    values = [random.normal(size=shape).astype(np.float32) for shape in case.shapes]
    if case.positive:
        values = [np.asarray(np.abs(value) + 0.5, np.float32) for value in values]
    wanted = [index for index in range(len(values)) if index not in case.constants]
    tensors = [torch.tensor(value, requires_grad=index in wanted) for index, value in enumerate(values)]
    results = case.torch(*tensors)
    results = results if isinstance(results, tuple) else (results,)
    factors = [random.normal(size=tuple(result.shape)).astype(np.float32) for result in results]
    sum((results[number] * torch.tensor(factors[number])).sum() for number in case.used).backward()

    found = _gradients(case, values, factors, wanted, dynamic)

    for index, gradient in zip(wanted, found, strict=True):
        np.testing.assert_allclose(gradient, tensors[index].grad.numpy(), **TOLERANCE)


def _gradients(
    case: Case, values: list[np.ndarray], factors: list[np.ndarray], wanted: list[int], dynamic: bool
) -> list[np.ndarray]:
    """The gradients of sum(result * factor), by the graph."""
    inputs: list[gs.Tensor] = [
        _input(index, value, dynamic) if index in wanted else constant(f"x{index}", value)
        for index, value in enumerate(values)
    ]
    others = [constant(f"other{index}", np.asarray(value)) for index, value in enumerate(case.others)]
    if case.op == "Where":
        others, inputs = [], [constant("condition", np.eye(3, 4, dtype=np.bool_)), *inputs]
    graph = gs.Graph(inputs=[each for each in inputs if isinstance(each, gs.Variable)], opset=OPSET)
    outputs = [gs.Variable(f"y{number}", np.float32) for number in range(case.outputs)]
    graph.nodes.append(gs.Node(case.op, "tested", dict(case.attrs), [*inputs, *others], outputs))
    total: gs.Tensor = gs.Constant("nothing", np.zeros(1, np.float32))
    for number in case.used:
        product = emit(graph, "Mul", f"product{number}", [outputs[number], constant(f"f{number}", factors[number])])
        flat = emit(graph, "Reshape", f"flat{number}", [product, [-1]])
        total = emit(graph, "Add", f"total{number}", [total, emit(graph, "ReduceSum", f"sum{number}", [flat, [0]])])
    assert isinstance(total, gs.Variable)
    infer_shapes(graph)
    found = differentiate(graph, total, list(graph.inputs))
    assert not isinstance(found, Refusal), found
    graph.outputs = [emit(graph, "Identity", f"gradient{index}", [each]) for index, each in enumerate(found)]
    return _run(graph, {f"x{index}": values[index] for index in wanted})


def _input(index: int, value: np.ndarray, dynamic: bool) -> gs.Variable:
    """An input whose sizes are numbers; or symbols, and different ones where the sizes are equal."""
    sizes = [f"size_{index}_{axis}" for axis in range(value.ndim)] if dynamic else list(value.shape)
    return gs.Variable(f"x{index}", np.float32, sizes)


def test_gelu_is_flat_far_from_zero() -> None:
    """Also where the square of what it reads is too large for an exponential."""
    values = np.array([-1e4, -40, -13.4, -6, -1, 0, 1, 6, 13.4, 40, 1e4], np.float32)
    case = Case("Gelu", [values.shape], functional.gelu)
    tensor = torch.tensor(values, requires_grad=True)
    functional.gelu(tensor).sum().backward()
    (found,) = _gradients(case, [values], [np.ones_like(values)], [0], False)
    np.testing.assert_allclose(found, tensor.grad.numpy(), **TOLERANCE)


def test_every_rule_is_tested() -> None:
    assert {case.op for case in CASES} == {*RULES, SPLIT}


def test_operator_without_a_rule_is_named() -> None:
    x = gs.Variable("x", np.float32, [3])
    graph = gs.Graph(inputs=[x], opset=OPSET)
    loss = emit(graph, "ReduceSum", "loss", [emit(graph, "Hardmax", "odd", [x]), [0]])
    infer_shapes(graph)
    refusal = differentiate(graph, loss, [x])
    assert isinstance(refusal, Refusal)
    assert (
        refusal.reason == "the operator Hardmax (node odd) has no derivative here, and lies between a bias and the loss"
    )


def test_input_that_the_loss_does_not_depend_on_gets_zeros() -> None:
    x, y = gs.Variable("x", np.float32, [2]), gs.Variable("y", np.float32, [3])
    graph = gs.Graph(inputs=[x, y], opset=OPSET)
    loss = emit(graph, "ReduceSum", "loss", [x, [0]])
    infer_shapes(graph)
    found = differentiate(graph, loss, [x, y])
    assert not isinstance(found, Refusal)
    graph.outputs = [emit(graph, "Identity", "of_y", [found[1]])]
    values = {"x": np.ones(2, np.float32), "y": np.ones(3, np.float32)}
    assert _run(graph, values)[0].tolist() == [0, 0, 0]


def _run(graph: gs.Graph, feeds: dict[str, np.ndarray]) -> list[np.ndarray]:
    model = gs.export_onnx(graph.cleanup().toposort())
    model.ir_version = 10
    options = ort.SessionOptions()
    options.intra_op_num_threads = 1
    session = ort.InferenceSession(model.SerializeToString(), options, providers=["CPUExecutionProvider"])
    return session.run(None, feeds)
