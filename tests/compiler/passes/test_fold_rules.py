"""Each rule of folding on a graph made by hand: where it applies the outputs stay, where it must not it says why."""

from __future__ import annotations

import re

import numpy as np
import onnx
import onnx.parser
import onnx_graphsurgeon as gs
import onnxruntime as ort
import pytest

from bitfit_export.compiler.passes.find_bias_sites import BiasSite
from bitfit_export.compiler.passes.fold_biases import FoldPlan, FoldStep, fold_biases, no_fold
from bitfit_export.errors import DeltaError

#: What the graphs below use by name, besides `b_*` (bias terms [4]), `W_*` (weights [4, 4]) and `scale` [4].
CONSTANTS = {
    "heads": np.array([0, 0, 2, 2]),
    "joined": np.array([0, 0, 4]),
    "axis_1": np.array([1]),
    "last_axis": np.array([-1]),
    "first": np.array(0),
    "order": np.array([1, 0, 3, 2]),
    "zero": np.array(0.0, np.float32),
    "one": np.array(1.0, np.float32),
    "two": np.array(2.0, np.float32),
    "lowest": np.array(-3.4e38, np.float32),
}

#: Two heads of size 2. The graph's inputs are x [batch, s, 4], positions [batch, 1, s, s] and factor [batch, s, 1].
ATTENTION = """
k0 = MatMul(x, W_k)
k1 = Add(k0, b_k)
k2 = Reshape(k1, heads)
kt = Transpose<perm = [0, 2, 3, 1]>(k2)
v0 = MatMul(x, W_v)
v1 = Add(v0, b_v)
v2 = Reshape(v1, heads)
v = Transpose<perm = [0, 2, 1, 3]>(v2)
q0 = MatMul(x, W_q)
q1 = Add(q0, b_q)
q2 = Reshape(q1, heads)
q = Transpose<perm = [0, 2, 1, 3]>(q2)
product = MatMul(q, kt)
scaled = Div(product, two)
scores = Add(scaled, positions)
p = Softmax<axis = -1>(scores)
context = MatMul(p, v)
c1 = Transpose<perm = [0, 2, 1, 3]>(context)
c2 = Reshape(c1, joined)
o0 = MatMul(c2, W_o)
o = Add(o0, b_o)
last_hidden_state = Relu(o)
"""

#: A feed-forward block with its norms, and a pooler.
BLOCK = """
n = LayerNormalization<axis = -1>(x, scale, b_n)
a = MatMul(n, W_a)
a1 = Add(a, b_a)
f = Relu(a1)
m = MatMul(f, W_m)
m1 = Add(m, b_m)
r = Add(m1, n)
last_hidden_state = LayerNormalization<axis = -1>(r, scale, b_last)
token = Gather<axis = 1>(last_hidden_state, first)
t = Gemm<transB = 1>(token, W_p, b_p)
pooler_output = Tanh(t)
"""


def graph_of(body: str, outputs: dict[str, str]) -> onnx.ModelProto:
    """A model of these nodes, with random constants."""
    random = np.random.default_rng(11)
    words = sorted(set(re.findall(r"\w+", body)))
    values = {name: CONSTANTS[name] for name in words if name in CONSTANTS}
    values |= {name: random.normal(size=4) for name in words if name.startswith("b_") or name == "scale"}
    values |= {name: random.normal(size=(4, 4)) for name in words if name.startswith("W_")}
    declared = ", ".join(f"{shape} {name}" for name, shape in outputs.items())
    given = "float[batch, s, 4] x, float[batch, 1, s, s] positions, float[batch, s, 1] factor"
    text = f'<ir_version: 9, opset_import: ["" : 20]> g ({given}) => ({declared}) {{ {body} }}'
    model = onnx.parser.parse_model(text)
    for name, value in values.items():
        typed = value if value.dtype == np.int64 else value.astype(np.float32)
        model.graph.initializer.append(onnx.numpy_helper.from_array(typed, name))
    return onnx.shape_inference.infer_shapes(model, strict_mode=True)


def biases_of(model: onnx.ModelProto) -> list[str]:
    return [each.name for each in model.graph.initializer if each.name.startswith("b_")]


def run(model: onnx.ModelProto, biases: dict[str, np.ndarray]) -> dict[str, np.ndarray]:
    """The model's outputs on two rows of five tokens, with these values for its biases."""
    changed = onnx.ModelProto()
    changed.CopyFrom(model)
    for tensor in changed.graph.initializer:
        if tensor.name in biases:
            tensor.CopyFrom(onnx.numpy_helper.from_array(biases[tensor.name].astype(np.float32), tensor.name))
    random = np.random.default_rng(2)
    positions = random.normal(size=(2, 1, 5, 5)) + 9 * np.eye(5)  # a mask made of them lets every query see itself
    feeds = {"x": random.normal(size=(2, 5, 4)), "positions": positions, "factor": random.normal(size=(2, 5, 1))}
    session = ort.InferenceSession(changed.SerializeToString())
    results = session.run(None, {each.name: feeds[each.name].astype(np.float32) for each in session.get_inputs()})
    return dict(zip((each.name for each in session.get_outputs()), results, strict=True))


def fold(body: str, **more_outputs: str) -> FoldPlan:
    """Fold a graph, and make sure that with random values for its biases the outputs are what they were."""
    outputs = {"last_hidden_state": "float[batch, s, 4]"} | more_outputs
    if "pooler_output" in body:
        outputs["pooler_output"] = "float[batch, 4]"
    model = graph_of(body, outputs)
    graph = gs.import_onnx(model)
    tensors = graph.tensors()
    names = biases_of(model)
    plan = fold_biases(graph, [BiasSite(name, node, 0, 3) for name in names for node in tensors[name].outputs])
    after = gs.export_onnx(graph)
    assert set(biases_of(after)) == set(plan.kept)
    random = np.random.default_rng(5)
    values = {name: random.normal(size=4) for name in names}
    moved = plan.apply(values)
    expected, found = run(model, values), run(after, moved.biases)
    if moved.output_shift is not None:
        found["last_hidden_state"] = found["last_hidden_state"] + moved.output_shift.astype(np.float32)
    assert found.keys() == expected.keys()
    for name, value in expected.items():
        np.testing.assert_allclose(found[name], value, rtol=1e-4, atol=1e-4, err_msg=name)
    return plan


def edit(body: str, **lines: str) -> str:
    """The nodes with some of them replaced: the name of a node's result -> new lines."""
    for name, replacement in lines.items():
        body, count = re.subn(rf"^{name} = .*$", replacement, body, flags=re.MULTILINE)
        assert count == 1
    return body


# Attention.


def test_key_biases_vanish_and_value_biases_move_through_the_output_projection() -> None:
    plan = fold(ATTENTION)
    assert plan.kept == ("b_o", "b_q")
    assert [(step.source, step.target) for step in plan.steps] == [("b_v", "b_o")]
    assert (plan.output, plan.reasons) == (None, {})


@pytest.mark.parametrize(
    "edits",
    [
        {"scores": "far = Less(positions, zero)\nscores = Where(far, lowest, scaled)"},
        {"kt": "ks = Mul(k2, two)\nkt = Transpose<perm = [0, 2, 3, 1]>(ks)"},
        {"p": "p0 = Softmax<axis = 3>(scores)\nundefined = IsNaN(p0)\np = Where(undefined, zero, p0)"},
        {
            "scores": "seen = Greater(positions, zero)\nhidden = Not(seen)\nh = Cast<to = 1>(hidden)\n"
            "mask = Mul(h, lowest)\nscores = Add(scaled, mask)",
            "c1": "s1 = Cast<to = 1>(seen)\ncount = ReduceSum<keepdims = 1>(s1, last_axis)\nfew = Less(count, one)\n"
            "guarded = Where(few, zero, context)\nc1 = Transpose<perm = [0, 2, 1, 3]>(guarded)",
        },
    ],
    ids=["masked fill", "scaled keys", "NaN guard", "guard for queries without a key"],
)
def test_masks_scales_and_guards_do_not_stand_in_the_way(edits: dict[str, str]) -> None:
    assert fold(edit(ATTENTION, **edits)).kept == ("b_o", "b_q")


@pytest.mark.parametrize(
    ("edits", "reason"),
    [
        (
            {"scores": "xt = Transpose<perm = [0, 2, 1]>(x)\nr0 = MatMul(k1, xt)\nr = Unsqueeze(r0, axis_1)\n"
             "scores = Add(scaled, r)"},
            "MatMul multiplies it by xt, which is not a weight",
        ),
        ({"k2": "kr = Mul(k1, factor)\nk2 = Reshape(kr, heads)"}, "Mul scales it by factor, which is not one number"),
        ({"k2": "kr = Mul(k1, scale)\nk2 = Reshape(kr, heads)"}, "Mul scales it by scale, which is not one number"),
        ({"p": "p = Softmax<axis = 2>(scores)"}, None),
        ({"p": "p = Sigmoid(scores)"}, None),
        ({"q1": "also = Relu(k1)\nq00 = Add(q0, also)\nq1 = Add(q00, b_q)"}, "Relu is not linear"),
        ({"q1": "also = Cos(k1)\nq00 = Add(q0, also)\nq1 = Add(q00, b_q)"}, "Cos is not understood"),
        (
            {"p": "far = Less(positions, zero)\nmasked = Where(far, one, scores)\np = Softmax<axis = -1>(masked)"},
            "Where puts one in its place",
        ),
        (
            {"p": "far = Less(positions, zero)\nmasked = Where(far, lowest, scores)\n"
             "part = Softmax<axis = -1>(masked)\nmore = Sigmoid(masked)\np = Mul(part, more)"},
            "Where puts lowest in its place",
        ),
    ],
    ids=["relative", "rotary", "vector", "axis", "no softmax", "reader", "unknown reader", "small fill", "shared fill"],
)  # fmt: skip
def test_a_key_bias_stays_where_the_softmax_would_see_it(edits: dict[str, str], reason: str | None) -> None:
    plan = fold(edit(ATTENTION, **edits))
    assert "b_k" in plan.kept
    assert plan.reasons.get("b_k") == reason


def test_a_key_bias_stays_when_the_keys_are_an_output() -> None:
    plan = fold(edit(ATTENTION, k2="keys = Identity(k1)\nk2 = Reshape(k1, heads)"), keys="float[batch, s, 4]")
    assert plan.reasons["b_k"] == "keys is an output of the graph"


@pytest.mark.parametrize(
    ("edits", "reason"),
    [
        ({"p": "p = Sigmoid(scores)"}, "MatMul multiplies it by p, whose rows are not known to sum to 1"),
        ({"p": "p = Softmax<axis = 2>(scores)"}, "MatMul multiplies it by p, whose rows are not known to sum to 1"),
        (
            {"p": "p0 = Softmax<axis = -1>(scores)\np = Mul(p0, positions)"},
            "MatMul multiplies it by p, whose rows are not known to sum to 1",
        ),
        (
            {"p": "p0 = Softmax<axis = -1>(scores)\nfar = Less(positions, zero)\np = Where(far, zero, p0)"},
            "MatMul multiplies it by p, whose rows are not known to sum to 1",
        ),
        (
            {"p": "p0 = Softmax<axis = -1>(scores)\np1 = Transpose<perm = [0, 1, 3, 2]>(p0)\np = Identity(p1)"},
            "MatMul multiplies it by p, whose rows are not known to sum to 1",
        ),
        ({"v2": "vs = Mul(v1, factor)\nv2 = Reshape(vs, heads)"}, "Mul scales it by factor, which is not one number"),
        (
            {"v2": "vs = Mul(v1, two)\nv2 = Reshape(vs, heads)"},
            "MatMul multiplies it by a weight when it is no longer a plain vector",
        ),
        (
            {"v2": "pad = Less(factor, zero)\nvs = Where(pad, zero, v1)\nv2 = Reshape(vs, heads)"},
            "Where puts zero in its place",
        ),
        (
            {"c1": "s1 = Transpose<perm = [0, 2, 1]>(factor)\ns2 = Unsqueeze(s1, last_axis)\nfew = Less(s2, one)\n"
             "guarded = Where(few, zero, context)\nc1 = Transpose<perm = [0, 2, 1, 3]>(guarded)"},
            "Where puts zero in its place",
        ),
        (
            {"c1": "c1 = Transpose<perm = [0, 2, 3, 1]>(context)"},
            "MatMul multiplies it by a weight when it is no longer a plain vector",
        ),
    ],
    ids=["no softmax", "axis", "scaled", "zeroed", "columns", "factor", "number", "padded", "no guard", "mixed heads"],
)  # fmt: skip
def test_a_value_bias_stays_where_it_is_not_passed_on_whole(edits: dict[str, str], reason: str) -> None:
    plan = fold(edit(ATTENTION, **edits))
    assert "b_v" in plan.kept
    assert plan.reasons["b_v"] == reason


@pytest.mark.parametrize(
    ("seen", "few"),
    [("other = Less(positions, one)", "few = Less(count, one)"), ("other = Identity(seen)", "few = Less(count, two)")],
    ids=["another mask", "queries with one key"],
)
def test_a_guard_for_anything_but_queries_without_a_key_is_none(seen: str, few: str) -> None:
    mask = """seen = Greater(positions, zero)
        hidden = Not(seen)
        h = Cast<to = 1>(hidden)
        mask = Mul(h, lowest)
        scores = Add(scaled, mask)"""
    guard = f"""{seen}
        s1 = Cast<to = 1>(other)
        count = ReduceSum<keepdims = 1>(s1, last_axis)
        {few}
        guarded = Where(few, zero, context)
        c1 = Transpose<perm = [0, 2, 1, 3]>(guarded)"""
    assert fold(edit(ATTENTION, scores=mask, c1=guard)).reasons["b_v"] == "Where puts zero in its place"


# What a LayerNorm's bias moves into.


def test_layer_norm_biases_move_into_what_reads_them_and_into_the_head() -> None:
    plan = fold(BLOCK)
    assert plan.kept == ("b_a", "b_m", "b_p")
    matrices = {(step.source, step.target): step.matrix for step in plan.steps}
    assert matrices.keys() == {("b_n", "b_a"), ("b_n", "b_m"), ("b_last", "b_p")}
    assert matrices["b_n", "b_m"] is None
    assert (plan.output, plan.reasons) == ("b_last", {})


def test_a_bias_that_moves_on_takes_what_moved_into_it_along() -> None:
    body = "n = LayerNormalization<axis = -1>(x, scale, b_n)\n" + ATTENTION.replace("(x, W_", "(n, W_")
    plan = fold(body)
    assert plan.kept == ("b_o", "b_q")
    moves = [(step.source, step.target) for step in plan.steps]
    assert set(moves) == {("b_n", "b_q"), ("b_n", "b_v"), ("b_v", "b_o")}
    assert moves.index(("b_n", "b_v")) < moves.index(("b_v", "b_o"))


def test_a_projection_without_a_bias_is_passed_and_its_weight_counts() -> None:
    body = edit(ATTENTION.replace("(x, W_", "(n, W_"), k1="k1 = Identity(k0)", v1="v1 = Identity(v0)")
    plan = fold("n = LayerNormalization<axis = -1>(x, scale, b_n)\n" + body)
    assert plan.kept == ("b_o", "b_q")
    assert {(step.source, step.target) for step in plan.steps} == {("b_n", "b_q"), ("b_n", "b_o")}


@pytest.mark.parametrize(
    ("edits", "reason"),
    [
        ({"m1": "also = Relu(n)\nm0 = Add(m, also)\nm1 = Add(m0, b_m)"}, "Relu is not linear"),
        ({"a": "masked = Mul(n, factor)\na = MatMul(masked, W_a)"}, "Mul scales it by factor, which is not one number"),
        (
            {"m": "m = MatMul(f, W_m)\nagain = Add(m, b_a)", "m1": "m1 = Add(again, b_m)"},
            "b_a would take it up, and is also added where other values come",
        ),
        ({"a1": "a0 = Add(a, b_n)\na1 = Add(a0, b_a)"}, "it would move into itself"),
        ({"m1": "m1 = Identity(m)"}, "LayerNormalization normalises it"),
        ({"a": "a = Mul(n, two)"}, "Relu is not linear"),
        (
            {"a": "g0 = Gather<axis = 2>(n, first)\ng = Unsqueeze(g0, last_axis)\na0 = MatMul(n, W_a)\na = Add(a0, g)"},
            "Gather picks values of it",
        ),
        ({"r": "other = Sigmoid(m1)\nr = Add(m1, n)"}, "LayerNormalization normalises it"),
    ],
    ids=["second reader", "masked", "tied", "itself", "no other bias", "scaled", "one feature", "other branch read"],
)  # fmt: skip
def test_a_layer_norm_bias_stays_where_a_reader_can_not_take_it(edits: dict[str, str], reason: str) -> None:
    plan = fold(edit(BLOCK, **edits))
    assert "b_n" in plan.kept
    assert plan.reasons["b_n"] == reason


def test_a_tied_bias_takes_up_what_all_its_uses_get_once() -> None:
    twice = "a = MatMul(n, W_a)\nz = MatMul(n, W_a)\nz1 = Add(z, b_a)\na2 = Sigmoid(z1)"
    plan = fold(edit(BLOCK, a=twice, f="f1 = Relu(a1)\nf = Add(f1, a2)"))
    assert [step.target for step in plan.steps].count("b_a") == 1
    unequal = fold(edit(BLOCK, a=twice.replace("z = MatMul(n, W_a)", "z = MatMul(n, W_z)"), f="f = Add(a1, a2)"))
    assert unequal.reasons["b_n"] == "b_a would take it up, and is also added where other values come"


def test_a_norm_over_two_axes_keeps_its_bias() -> None:
    norm = "n = LayerNormalization<axis = 1>(x2, scale, b_n)\nx2 = Identity(x)"
    plan = fold("\n".join(reversed(norm.split("\n"))) + edit(BLOCK, n=""))
    assert plan.reasons["b_n"] == "LayerNormalization normalises more than the last axis"


@pytest.mark.parametrize("attributes", ["alpha = 0.5", "beta = 0.5"])
def test_a_gemm_that_scales_takes_nothing(attributes: str) -> None:
    plan = fold(edit(BLOCK, t=f"t = Gemm<transB = 1, {attributes}>(token, W_p, b_p)"))
    assert plan.reasons["b_last"] == "Gemm scales or transposes what it multiplies"
    assert "b_last" in plan.kept


def test_a_gemm_without_transposition_takes_the_transposed_weight() -> None:
    assert fold(edit(BLOCK, t="t = Gemm(token, W_p, b_p)")).kept == ("b_a", "b_m", "b_p")


def test_features_in_another_order_are_not_the_same_shift() -> None:
    plan = fold(edit(BLOCK, a="mixed = Gather<axis = 2>(n, order)\na = MatMul(mixed, W_a)"))
    assert plan.reasons["b_n"] == "Gather picks values of it"


# What stays in the head's hands.


def test_a_bias_that_is_last_of_all_moves_into_the_head() -> None:
    plan = fold(edit(ATTENTION, o="", last_hidden_state="last_hidden_state = Add(o0, b_o)"))
    assert (plan.kept, plan.output) == (("b_q",), "b_o")


def test_a_bias_that_reaches_another_output_stays() -> None:
    plan = fold(edit(BLOCK, f="early = Identity(n)\nf = Relu(a1)"), early="float[batch, s, 4]")
    assert plan.reasons["b_n"] == "early is an output of the graph"


def test_only_one_bias_shifts_the_output() -> None:
    last = """last = LayerNormalization<axis = -1>(r, scale, b_last)
        doubled = Add(last, last)
        last_hidden_state = Identity(doubled)"""
    assert fold(edit(BLOCK, last_hidden_state=last)).reasons["b_last"] == (
        "more than one shift would reach last_hidden_state"
    )


def test_the_output_in_another_form_is_no_place_for_a_bias() -> None:
    last = """last = LayerNormalization<axis = -1>(r, scale, b_last)
        last_hidden_state = MatMul(last, W_z)"""
    assert fold(edit(BLOCK, last_hidden_state=last)).reasons["b_last"] == (
        "it reaches the output last_hidden_state in another form"
    )


# Plans.


def test_a_plan_moves_values_in_float64_and_leaves_its_arguments_alone() -> None:
    matrix = np.array([[1e8, 1.0], [0.0, 2.0]], np.float32)
    plan = FoldPlan(kept=("b", "c"), steps=(FoldStep("a", "b", matrix), FoldStep("a", "c", None)), output="a")
    values = {name: np.array(value, np.float32) for name, value in {"a": [1, 1], "b": [0, 0], "c": [3, 4]}.items()}
    moved = plan.apply(values)
    assert moved.biases["b"].tolist() == [1e8 + 1, 2.0]  # float32 has no 100000001
    assert moved.biases["c"].tolist() == [4.0, 5.0]
    assert moved.output_shift is not None
    assert moved.output_shift.tolist() == [1.0, 1.0]
    assert values["b"].tolist() == [0.0, 0.0]
    assert list(moved.biases) == ["b", "c"]


def test_values_that_a_plan_needs_and_does_not_get_are_named() -> None:
    plan = FoldPlan(kept=("b",), steps=(FoldStep("a", "b", None),))
    with pytest.raises(DeltaError, match="1 bias terms have no values to fold, first a"):
        plan.apply({"b": np.zeros(2)})


def test_no_fold_keeps_everything() -> None:
    plan = no_fold(["b", "a", "b"])
    values = {"a": np.ones(2, np.float32), "b": np.zeros(3, np.float32)}
    assert (plan.kept, plan.steps, plan.output) == (("b", "a"), (), None)
    assert plan.apply(values).biases["a"].tolist() == [1.0, 1.0]
    assert plan.apply(values).output_shift is None


def test_a_plan_holds_views_of_the_weights() -> None:
    graph = gs.import_onnx(graph_of(BLOCK, {"last_hidden_state": "float[batch, s, 4]"}))
    tensors = graph.tensors()
    names = ("b_n", "b_a", "b_m")
    plan = fold_biases(graph, [BiasSite(name, tensors[name].outputs[0], 0, 3) for name in names])
    (step,) = [step for step in plan.steps if step.target == "b_a"]
    assert np.shares_memory(step.matrix, tensors["W_a"].values)
