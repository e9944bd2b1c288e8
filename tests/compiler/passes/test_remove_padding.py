"""What is computed per token is computed for the texts' tokens alone, with the same results."""

from __future__ import annotations

from typing import Any

import numpy as np
import onnx
import onnxruntime as ort
import pytest
import torch
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from bitfit_export.base_model.loading import BaseModel
from bitfit_export.bundle.row_arrays import row_arrays
from bitfit_export.compiler import CompileOptions
from bitfit_export.compiler.pipeline import CompiledModel
from bitfit_export.delta import TaskDelta
from bitfit_export.reference.task_model import merged_model
from tests.conftest import MakeDelta
from tests.families import TEXT_GRAPHS, quick_first, tiny_base
from tests.traces import compile_model

TOLERANCE = 1e-4
LONGEST = 24
TASKS = ("mean", "cls", "last", "tokens")
#: Where every node with a weight that hidden states pass is computed by token.
CONVERTED = ("bert", "roberta", "distilbert", "albert", "electra", "mpnet")


def deltas_of(base: BaseModel, make_delta: MakeDelta) -> dict[str, TaskDelta]:
    return {
        "mean": make_delta(base, "mean", pooling="mean", labels=tuple("abc"), seed=1),
        "cls": make_delta(base, "cls", pooling="cls", labels=tuple("abc"), seed=2),
        "last": make_delta(base, "last", pooling="last", labels=tuple("abc"), seed=3),
        "tokens": make_delta(base, "tokens", problem_type="token", labels=tuple("abc"), seed=4),
    }


class Compiled:
    """A compiled family with all tasks' rows in one table, and the same tasks in PyTorch."""

    def __init__(self, base: BaseModel, deltas: dict[str, TaskDelta], **options: Any) -> None:
        self.base = base
        self.model = compile_model(base, deltas, CompileOptions(**options))
        self.session = open_model(self.model)
        self.reference = {name: merged_model(base, delta) for name, delta in deltas.items()}
        rows = [self.model.packer.pack(delta, task=name) for name, delta in deltas.items()]
        arrays = [row_arrays(row, self.model.layout, "packed", labels=3) for row in rows]
        stacked = {name: np.stack([each[name] for each in arrays]) for name in arrays[0]}
        self.table = {"bias_table": stacked.pop("bias"), **stacked}

    def run(self, ids: np.ndarray, mask: np.ndarray, tasks: list[str]) -> list[np.ndarray]:
        slots = np.array([list(self.reference).index(task) for task in tasks])
        feeds = {"input_ids": ids, "attention_mask": mask, "token_type_ids": np.zeros_like(ids), "task_ids": slots}
        names = {each.name for each in self.session.get_inputs()}
        return self.session.run(
            ["logits", "token_logits"], {k: v for k, v in (feeds | self.table).items() if k in names}
        )

    def in_pytorch(self, ids: np.ndarray, mask: np.ndarray, task: str) -> np.ndarray:
        feeds = {"input_ids": ids, "attention_mask": mask, "token_type_ids": np.zeros_like(ids)}
        with torch.inference_mode():
            inputs = {name: torch.from_numpy(feeds[name]) for name in self.base.input_names}
            return self.reference[task](**inputs)["logits"].numpy()


def open_model(model: CompiledModel) -> ort.InferenceSession:
    options = ort.SessionOptions()
    options.intra_op_num_threads = 1
    return ort.InferenceSession(model.model.SerializeToString(), options)


def batch(lengths: list[int], seed: int = 0) -> tuple[np.ndarray, np.ndarray]:
    longest = max(lengths)
    mask = (np.arange(longest) < np.array(lengths)[:, None]).astype(np.int64)
    # An id that pads: RoBERTa counts positions by it.
    return np.random.default_rng(seed).integers(1000, 2000, mask.shape) * mask, mask


def assert_pytorchs_results(
    compiled: Compiled, ids: np.ndarray, mask: np.ndarray, tasks: list[str], served: list[str]
) -> None:
    """Compare each item with PyTorch; `served` are the tasks of the items, `tasks` what is fed for them."""
    logits, token_logits = compiled.run(ids, mask, tasks)
    for item, task in enumerate(served):
        expected = compiled.in_pytorch(ids, mask, task)[item]
        if task == "tokens":
            kept = mask[item].astype(bool)
            np.testing.assert_allclose(token_logits[item][kept], expected[kept], atol=TOLERANCE, rtol=0)
        else:
            np.testing.assert_allclose(logits[item], expected, atol=TOLERANCE, rtol=0, err_msg=task)


@pytest.fixture(scope="module", params=["ort", "portable"])
def bert(request: pytest.FixtureRequest, tiny_base: BaseModel, make_delta: MakeDelta) -> Compiled:
    return Compiled(tiny_base, deltas_of(tiny_base, make_delta), target=request.param)


@pytest.mark.slow
@pytest.mark.parametrize("family", TEXT_GRAPHS)
def test_every_family_has_pytorchs_results(family: str, make_delta: MakeDelta) -> None:
    base = tiny_base(family)
    compiled = Compiled(base, deltas_of(base, make_delta))
    for lengths in ([9, 4, 1, 7], [5, 5], [1]):
        ids, mask = batch(lengths)
        tasks = [TASKS[item % len(TASKS)] for item in range(len(lengths))]
        assert_pytorchs_results(compiled, ids, mask, tasks, tasks)
        assert_pytorchs_results(compiled, ids, mask, ["mean"], ["mean"] * len(lengths))


@settings(max_examples=30, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(lengths=st.lists(st.integers(1, LONGEST), min_size=1, max_size=6), data=st.data())
def test_batches_of_random_lengths_and_tasks(bert: Compiled, lengths: list[int], data: st.DataObject) -> None:
    ids, mask = batch(lengths, data.draw(st.integers(0, 9)))
    tasks = data.draw(st.lists(st.sampled_from(TASKS), min_size=len(lengths), max_size=len(lengths)))
    assert_pytorchs_results(bert, ids, mask, tasks, tasks)


@settings(max_examples=15, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(data=st.data(), length=st.integers(2, LONGEST), items=st.integers(1, 4))
def test_masks_with_padding_anywhere_but_at_the_first_token(
    bert: Compiled, data: st.DataObject, length: int, items: int
) -> None:
    rest = st.lists(
        st.lists(st.integers(0, 1), min_size=length - 1, max_size=length - 1), min_size=items, max_size=items
    )
    mask = np.array([[1, *each] for each in data.draw(rest)], np.int64)
    ids = np.random.default_rng(length).integers(1000, 2000, mask.shape)
    tasks = data.draw(st.lists(st.sampled_from(TASKS), min_size=items, max_size=items))
    assert_pytorchs_results(bert, ids, mask, tasks, tasks)


def products(compiled: CompiledModel, compiled_sizes: dict[str, list[str | int]]) -> list[list[str | int]]:
    """The sizes of what each product with a weight reads."""
    weights = {each.name for each in compiled.model.graph.initializer}
    weights |= {node.output[0] for node in compiled.model.graph.node if {*node.input} <= weights}
    return [
        compiled_sizes.get(node.input[0], [])
        for node in compiled.model.graph.node
        if node.op_type == "MatMul" and node.input[1] in weights
    ]


def sizes_in(model: onnx.ModelProto) -> dict[str, list[str | int]]:
    inferred = onnx.shape_inference.infer_shapes(model)
    return {
        value.name: [each.dim_param or each.dim_value for each in value.type.tensor_type.shape.dim]
        for value in (*inferred.graph.value_info, *inferred.graph.input)
    }


@pytest.mark.parametrize("family", quick_first(CONVERTED))
def test_each_product_with_a_weight_reads_two_dimensions(family: str, make_delta: MakeDelta) -> None:
    base = tiny_base(family)
    compiled = compile_model(base, deltas_of(base, make_delta), CompileOptions(target="portable"))
    found = products(compiled, sizes_in(compiled.model))
    assert len(found) >= 6 * 2
    assert {len(sizes) for sizes in found} == {2}


def test_a_batch_for_one_task_gathers_no_bias(bert: Compiled) -> None:
    """With `task_ids` of [1] a bias is [1, n], whatever the number of tokens."""
    graph = onnx.ModelProto.FromString(bert.model.model.SerializeToString())
    name = next(n.output[0] for n in graph.graph.node if n.op_type == "Gather" and n.output[0].endswith("/of_tokens")
                and "bias" in n.output[0])  # fmt: skip
    graph.graph.output.append(onnx.helper.make_tensor_value_info(name, onnx.TensorProto.FLOAT, None))
    session = ort.InferenceSession(graph.SerializeToString())
    ids, mask = batch([9, 4, 7])
    feeds = {"input_ids": ids, "attention_mask": mask, "token_type_ids": np.zeros_like(ids)} | bert.table
    (one,) = session.run([name], feeds | {"task_ids": np.array([2])})
    (each,) = session.run([name], feeds | {"task_ids": np.array([2, 0, 1])})
    assert len(one) == 1
    assert len(each) == mask.sum()


@pytest.mark.parametrize("options", [{"layout": "packed"}, {"layout": "named"}, {"keep_padding": True}])
def test_other_layouts_and_keep_padding_leave_the_batch_as_it_is(
    options: dict[str, Any], tiny_base: BaseModel, make_delta: MakeDelta
) -> None:
    compiled = compile_model(tiny_base, deltas_of(tiny_base, make_delta), CompileOptions(**options))
    assert not [node.name for node in compiled.model.graph.node if node.name.startswith("padding/")]


@pytest.mark.slow
def test_a_convolution_over_the_tokens_keeps_the_padding_and_the_reason_is_known(make_delta: MakeDelta) -> None:
    base = tiny_base("deberta-v2")
    compiled = compile_model(base, deltas_of(base, make_delta))
    assert compiled.keeps_padding is not None
    assert "Conv" in compiled.keeps_padding
