"""A bias whose use has no batch in front gets one, without a change of what the graph computes.

`canonicalize_bias_uses` and `propagate_batch_axis` are tested together: the second needs what the first ensures.
"""

from __future__ import annotations

import numpy as np
import onnx
import onnx_graphsurgeon as gs
import pytest
from onnx import numpy_helper, parser

from bitfit_export.compiler.compilation import Refusal
from bitfit_export.compiler.passes.canonicalize_bias_uses import canonicalize_bias_uses
from bitfit_export.compiler.passes.find_bias_sites import find_bias_sites
from bitfit_export.compiler.passes.propagate_batch_axis import propagate_batch_axis
from tests.compiler.by_row import ByRow, run_model
from tests.compiler.refusals import reason_of


def model_of(text: str, **constants: tuple[int, ...] | list[int]) -> onnx.ModelProto:
    """A model from ONNX text. A constant is random floats of a shape, given as a tuple, or a list of int64."""
    model = parser.parse_model('<ir_version: 9, opset_import: ["" : 20]> agraph ' + text)
    random = np.random.default_rng(0)
    for name, value in constants.items():
        array = np.array(value, np.int64) if isinstance(value, list) else random.normal(size=value).astype(np.float32)
        model.graph.initializer.append(numpy_helper.from_array(array, name))
    return model


def run_passes(graph: gs.Graph, names: list[str]) -> bool:
    """Run both passes; returns whether one of them changed the graph."""
    changed = canonicalize_bias_uses(graph, names)
    return propagate_batch_axis(graph, names) or changed


def canonical(model: onnx.ModelProto, names: list[str]) -> gs.Graph:
    """The graph of a model after both passes, which must have changed it."""
    graph = gs.import_onnx(model)
    assert run_passes(graph, names)
    return graph


CONV = model_of(
    """(float[batch, 3, samples] x) => (float[batch, 4, length] y) { y = Conv(x, w, b) }""",
    w=(4, 3, 2),
    b=(4,),
)
CONV_2D = model_of(
    """(float[batch, 3, 5, 5] x) => (float[batch, 4, 4, 4] y) { y = Conv(x, w, b) }""",
    w=(4, 3, 2, 2),
    b=(4,),
)
ADDMM = model_of(
    """(float[batch, sequence, 3] x) => (float[batch, sequence, 4] y)
       <float["batch*sequence", 4] sum, float[batch, sequence, 4] wide> {
         flat = Reshape(x, to_flat)
         sum = Gemm <transB = 1> (flat, w, b)
         size = Shape <start = 0, end = 2> (x)
         shape = Concat <axis = 0> (size, four)
         wide = Reshape(sum, shape)
         y = Identity(wide)
       }""",
    w=(4, 3),
    b=(4,),
    to_flat=[-1, 3],
    four=[4],
)
HEADS = model_of(
    """(float[batch, 2, sequence, 3] x) => (float[batch, 2, sequence, 3] y) {
         first = Unsqueeze(b, zero)
         second = Unsqueeze(first, one)
         split = Reshape(second, heads)
         view = Transpose <perm = [0, 2, 1, 3]> (split)
         y = Add(x, view)
       }""",
    b=(6,),
    zero=[0],
    one=[1],
    heads=[1, 1, 2, -1],
)
CHANNELS = model_of(
    """(float[batch, 4, samples] x) => (float[batch, 4, samples] y) {
         rank = Size(sizes)
         axes = Range(first, rank, first)
         column = Unsqueeze(b, axes)
         y = Add(x, column)
       }""",
    b=(4,),
    sizes=[7, 7],
)
CHANNELS.graph.initializer.append(numpy_helper.from_array(np.array(1, np.int64), "first"))
COLUMN = model_of(
    "(float[batch, 4, sequence] x) => (float[batch, 4, sequence] y) { y = Add(b, x) }",
    b=(4, 1),
)
RANK_FOUR = model_of(
    "(float[batch, 2, sequence, 3] x) => (float[batch, 2, sequence, 3] y) { y = Add(x, b) }",
    b=(3,),
)
#: A table of positions goes through a norm and a projection, is cut into heads, and repeated for every row.
POSITIONS = model_of(
    """(float[batch, 2, sequence, 3] x) => (float["2*batch", sequence, 5] y)
       <float[5, 6] normal, float[1, 5, 6] table, float[1, 5, 6] keys, float[1, 5, 2, 3] cut, float[1, 2, 5, 3] heads,
        float[2, 5, 3] flat> {
         normal = LayerNormalization <axis = -1> (positions, scale, norm_bias)
         table = Unsqueeze(normal, zero)
         product = MatMul(table, w)
         keys = Add(product, key_bias)
         cut = Reshape(keys, to_cut)
         heads = Transpose <perm = [0, 2, 1, 3]> (cut)
         flat = Reshape(heads, to_flat)
         size = Shape <start = 0, end = 1> (x)
         repeats = Concat <axis = 0> (size, one, one)
         repeated = Tile(flat, repeats)
         columns = Transpose <perm = [0, 2, 1]> (repeated)
         queries = Reshape(x, to_queries)
         y = MatMul(queries, columns)
       }""",
    positions=(5, 6),
    scale=(6,),
    norm_bias=(6,),
    key_bias=(6,),
    w=(6, 6),
    zero=[0],
    one=[1],
    to_cut=[1, 5, 2, -1],
    to_flat=[-1, 5, 3],
    to_queries=[-1, 7, 3],
)
#: As DeBERTa v1 does it: a slice of the table, and the heads stay a dimension of their own.
BROADCAST = model_of(
    """(float[batch, 2, sequence, 3] x, int64[1] end) => (float[batch, 2, sequence, used] y)
       <float[5, 6] normal, float[used, 6] part, float[1, used, 6] table, float[1, used, 2, 3] cut,
        float[1, 2, used, 3] heads, float[1, 2, 3, used] columns, float[] scalar> {
         normal = LayerNormalization <axis = -1> (positions, scale, norm_bias)
         part = Slice(normal, zero, end, zero, one)
         size = Shape(part)
         count = Gather(size, zero)
         table = Unsqueeze(part, zero)
         shape = Concat <axis = 0> (one, count, two, minus_one)
         cut = Reshape(table, shape)
         heads = Transpose <perm = [0, 2, 1, 3]> (cut)
         columns = Transpose <perm = [0, 1, 3, 2]> (heads)
         y = MatMul(x, columns)
       }""",
    positions=(5, 6),
    scale=(6,),
    norm_bias=(6,),
    zero=[0],
    one=[1],
    two=[2],
    minus_one=[-1],
)
#: The table loses a dimension on its way, and a second bias is added to what is left.
FLATTENED = model_of(
    """(float[batch, 30] x) => (float[batch, 30] y) <float[1, 5, 6] table, float[1, 30] flat, float[1, 30] more> {
         table = Add(positions, first_bias)
         flat = Reshape(table, to_flat)
         more = Add(flat, second_bias)
         y = Add(x, more)
       }""",
    positions=(1, 5, 6),
    first_bias=(6,),
    second_bias=(30,),
    to_flat=[1, -1],
)


def feeds_of(model: onnx.ModelProto, batch: int) -> dict[str, np.ndarray]:
    """Random values for the inputs; each dynamic dimension but the batch is 7, each whole number 4."""
    random = np.random.default_rng(1)
    feeds = {}
    for value in model.graph.input:
        kind = value.type.tensor_type
        sizes = [d.dim_value or {"batch": batch}.get(d.dim_param, 7) for d in kind.shape.dim]
        whole = kind.elem_type == onnx.TensorProto.INT64
        feeds[value.name] = np.full(sizes, 4) if whole else random.normal(size=sizes).astype(np.float32)
    return feeds


CASES = {
    "conv": (CONV, ["b"]),
    "conv_2d": (CONV_2D, ["b"]),
    "addmm": (ADDMM, ["b"]),
    "heads": (HEADS, ["b"]),
    "channels": (CHANNELS, ["b"]),
    "column": (COLUMN, ["b"]),
    "rank_four": (RANK_FOUR, ["b"]),
    "positions": (POSITIONS, ["norm_bias", "key_bias"]),
    "broadcast": (BROADCAST, ["norm_bias"]),
    "flattened": (FLATTENED, ["first_bias", "second_bias"]),
}


@pytest.mark.parametrize(("model", "names"), CASES.values(), ids=CASES)
def test_a_bias_that_no_row_could_have_of_its_own_gets_a_site(model: onnx.ModelProto, names: list[str]) -> None:
    assert "cannot be lifted" in reason_of(find_bias_sites(gs.import_onnx(model), names))
    sites = find_bias_sites(canonical(model, names), names)
    assert not isinstance(sites, Refusal), sites
    assert {site.name for site in sites} == set(names)


@pytest.mark.parametrize(("model", "names"), CASES.values(), ids=CASES)
def test_the_canonical_graph_computes_the_same(model: onnx.ModelProto, names: list[str]) -> None:
    feeds = feeds_of(model, batch=3)
    expected, got = run_model(model, feeds, {}), run_model(gs.export_onnx(canonical(model, names)), feeds, {})
    assert expected.keys() == got.keys()
    np.testing.assert_allclose(got["y"], expected["y"], atol=1e-6)


@pytest.mark.parametrize(("model", "names"), CASES.values(), ids=CASES)
def test_each_row_gets_what_the_graph_gives_with_its_biases(model: onnx.ModelProto, names: list[str]) -> None:
    random = np.random.default_rng(2)
    sizes = {each.name: each.dims for each in model.graph.initializer}
    rows = [{name: random.normal(size=sizes[name]).astype(np.float32) for name in names} for _ in range(3)]
    feeds = feeds_of(model, batch=3)
    lifted = ByRow(canonical(model, names), names)
    assert not lifted.constants & set(names)
    got = lifted.run(feeds, rows)["y"]
    alone = [run_model(model, feeds, row)["y"] for row in rows]
    per_row = len(got) // 3  # the rows of the batch, or the heads of each
    for number, expected in enumerate(alone):
        part = slice(number * per_row, (number + 1) * per_row)
        np.testing.assert_allclose(got[part], expected[part], atol=1e-6)
    assert not np.allclose(alone[0], alone[1], atol=1e-2)


@pytest.mark.parametrize(("model", "names"), CASES.values(), ids=CASES)
def test_one_set_of_biases_serves_all_rows(model: onnx.ModelProto, names: list[str]) -> None:
    feeds = feeds_of(model, batch=3)
    biases = {each.name: numpy_helper.to_array(each) + 1 for each in model.graph.initializer if each.name in names}
    got = ByRow(canonical(model, names), names).run(feeds, [biases])["y"]
    np.testing.assert_allclose(got, run_model(model, feeds, biases)["y"], atol=1e-6)


@pytest.mark.parametrize(
    ("text", "constants"),
    [
        pytest.param(
            """(float[batch, 3, sequence, 2] x) => (float[batch, 3, sequence, 2] y) {
                 split = Reshape(b, pairs)
                 view = Transpose <perm = [0, 2, 1, 3]> (split)
                 y = Add(x, view)
               }""",
            {"b": (6,), "pairs": [1, 2, 3, 1]},
            id="a view in another order",
        ),
        pytest.param(
            """(float[batch, sequence, 4] x) => (float[batch, sequence, 4] y) <float[1, 5, 4] table, float[1, 4] mean> {
                 table = Add(positions, b)
                 mean = ReduceMean <keepdims = 0> (table, one)
                 y = Add(x, mean)
               }""",
            {"b": (4,), "positions": (1, 5, 4), "one": [1]},
            id="a table that is summed",
        ),
        pytest.param(
            """(float[batch, sequence, 4] x) => (float[batch, sequence, 4] y) <float[5, 4] table, float[4] mean> {
                 table = Add(positions, b)
                 mean = ReduceMean <keepdims = 0> (table, zero)
                 y = Add(x, mean)
               }""",
            {"b": (4,), "positions": (5, 4), "zero": [0]},
            id="a table without a first dimension that is summed",
        ),
        pytest.param(
            """(float[batch, sequence, 4] x) => (float[batch, sequence, 5] y)
               <float[1, 5, 4] table, float[1, 2, 5, 2] heads, float[2, 5, 2] flat, float[5] sums> {
                 table = Add(positions, b)
                 cut = Reshape(table, to_cut)
                 heads = Transpose <perm = [0, 2, 1, 3]> (cut)
                 flat = Reshape(heads, to_flat)
                 sums = ReduceSum <keepdims = 0> (flat, axes)
                 one = ReduceMean <keepdims = 1> (x, last)
                 y = Add(one, sums)
               }""",
            {"b": (4,), "positions": (1, 5, 4), "to_cut": [1, 5, 2, 2], "to_flat": [-1, 5, 2], "axes": [0, 2]}
            | {"last": [2]},
            id="heads that are summed",
        ),
        pytest.param(
            "(float[batch, 4] x) => (float[batch, 4] y) { y = Add(x, b) }",
            {"b": (3, 4)},
            id="a bias for each row of three",
        ),
        pytest.param(
            """(float[sequence, batch, 4] x) => (float[sequence, batch, 4] y) { y = Add(x, b) }""",
            {"b": (4,)},
            id="the sequence first",
        ),
        pytest.param(
            """(float[batch, sequence, 3] x) => (float["batch*sequence", 4] y) {
                 flat = Reshape(x, to_flat)
                 y = Gemm(flat, w, b)
               }""",
            {"b": (4,), "w": (3, 4), "to_flat": [-1, 3]},
            id="rows that stay flat",
        ),
    ],
)
def test_what_has_no_canonical_form_is_left_as_it_was_and_refused(
    text: str, constants: dict[str, tuple[int, ...] | list[int]]
) -> None:
    graph = gs.import_onnx(model_of(text, **constants))
    before = gs.export_onnx(graph).SerializeToString()
    assert not run_passes(graph, ["b"])
    assert gs.export_onnx(graph).SerializeToString() == before
    assert "1 uses of bias terms cannot be lifted: b" in reason_of(find_bias_sites(graph, ["b"]))


@pytest.mark.parametrize(("model", "names"), CASES.values(), ids=CASES)
def test_a_canonical_graph_is_not_changed_again(model: onnx.ModelProto, names: list[str]) -> None:
    graph = canonical(model, names)
    before = gs.export_onnx(graph).SerializeToString()
    assert not run_passes(graph, names)
    assert gs.export_onnx(graph).SerializeToString() == before


@pytest.mark.parametrize(("model", "names"), CASES.values(), ids=CASES)
def test_nodes_stay_in_order_and_names_unique(model: onnx.ModelProto, names: list[str]) -> None:
    onnx.checker.check_model(gs.export_onnx(canonical(model, names)), full_check=True)


@pytest.mark.parametrize(("model", "names"), CASES.values(), ids=CASES)
def test_a_bias_that_nobody_names_is_not_touched(model: onnx.ModelProto, names: list[str]) -> None:
    assert not run_passes(gs.import_onnx(model), ["absent"])
