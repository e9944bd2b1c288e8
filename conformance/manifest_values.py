"""Members of a manifest that are missing, have another type, or have a value that may not stand where it does."""

from __future__ import annotations

from typing import Any

from collection import Collection
from good_manifest import (
    BASE_DIGEST,
    BIASES,
    INFER,
    INT32_MAX,
    SHA,
    UINT32_MAX,
    both,
    changed,
    compiled,
    dropper,
    good_manifest,
    quantized,
    set_dimensions,
    setter,
    text_of,
    with_scales,
    with_text,
)

__all__ = ["add_bad_values"]

#: name, fault, value, and its place in the manifest.
WRONG_VALUES: list[tuple[Any, ...]] = [
    ("format_version_0", "value", 0, "format_version"),
    ("format_version_1", "value", 1, "format_version"),
    ("format_version_3", "value", 3, "format_version"),
    ("modality", "value", "smell", "modality"),
    ("at_load", "value", "some", *INFER, "at_load"),
    ("role", "value", "weights", *INFER, "inputs", 0, "role"),
    ("output_role", "value", "token_ids", *INFER, "outputs", 0, "role"),
    ("dtype", "value", "float64", *INFER, "inputs", 0, "dtype"),
    ("port_size_zero", "range", [0], *INFER, "inputs", 0, "shape"),
    ("port_size_large", "range", [UINT32_MAX + 1], *INFER, "inputs", 0, "shape"),
    ("port_rank", "range", [1] * 9, *INFER, "inputs", 0, "shape"),
    ("port_size_real", "type", [1.0], *INFER, "inputs", 0, "shape"),
    ("layout_kind", "value", "rows", "layout_kind"),
    ("layout_kind_case", "value", "Table", "layout_kind"),
    ("target", "value", "cuda", "target"),
    ("precision", "value", "fp64", "precision"),
    ("row_dtype", "value", "int8", "row_dtype"),
    ("problem_type", "value", "ranking", "tasks", "sst-2", "problem_type"),
    ("base_digest_case", "value", BASE_DIGEST.upper(), "base", "digest"),
    ("file_digest_short", "value", SHA[:-1], "files", "model.onnx", "sha256"),
    ("task_digest_long", "value", SHA + "0", "tasks", "sst-2", "sha256"),
    ("task_digest_newline", "value", SHA[:-1] + "\n", "tasks", "sst-2", "sha256"),
    ("opset_0", "range", 0, "opset"),
    ("opset_large", "range", INT32_MAX + 1, "opset"),
    ("max_positions_0", "range", 0, "max_positions"),
    ("max_positions_large", "range", INT32_MAX + 1, "max_positions"),
    ("vocab_size_0", "range", 0, "vocab_size"),
    ("vocab_size_large", "range", INT32_MAX + 1, "vocab_size"),
    ("pad_token_id_negative", "range", -1, "pad_token_id"),
    ("size_negative", "range", -1, "files", "model.onnx", "size"),
    ("crc_negative", "range", -1, "files", "model.onnx", "crc32c"),
    ("crc_large", "range", UINT32_MAX + 1, "files", "model.onnx", "crc32c"),
    ("task_version_0", "range", 0, "tasks", "sst-2", "task_version"),
    ("task_version_large", "range", UINT32_MAX + 1, "tasks", "sst-2", "task_version"),
    ("max_length_0", "range", 0, "tasks", "sst-2", "max_length"),
    ("inputs_empty", "range", [], *INFER, "inputs"),
    ("outputs_empty", "range", [], *INFER, "outputs"),
    ("biases_empty", "range", [], "layout", "biases"),
    ("static_shape_short", "range", [4], "static_shape"),
    ("static_shape_long", "range", [4, 8, 1], "static_shape"),
    ("label_number", "type", ["a", 1], "tasks", "sst-2", "labels"),
    ("input_null", "type", [None], *INFER, "inputs"),
    ("bias_shape_text", "type", ["labels"], "layout", "biases", 0, "shape"),
    ("head_shape_real", "type", [4.0], "layout", "head", 0, "shape"),
    ("head_shape_word", "value", ["classes"], "layout", "head", 0, "shape"),
    ("metric_text", "type", {"accuracy": "0.5"}, "tasks", "sst-2", "metrics"),
    ("metric_null", "type", {"accuracy": None}, "tasks", "sst-2", "metrics"),
    ("metric_boolean", "type", {"accuracy": True}, "tasks", "sst-2", "metrics"),
    ("overridable_null", "type", None, "overridable"),
    ("overridable_number", "type", 0, "overridable"),
    ("prepacked_text", "type", "true", "prepacked"),
    ("prepacked_null", "type", None, "prepacked"),
    ("quantization_list", "type", [], "quantization"),
    ("quantization_empty", "missing", {}, "quantization"),
    ("quantization_reason", "type", {"ranges": {}, "not_quantized": {"a": 1}}, "quantization"),
    ("quantization_reason_empty", "value", {"ranges": {}, "not_quantized": {"a": ""}}, "quantization"),
    ("row_dtype_null", "type", None, "row_dtype"),
    ("fold_reasons_list", "type", [], "fold_reasons"),
    ("fold_reasons_number", "type", {BIASES[0]["name"]: 1}, "fold_reasons"),
    ("static_shape_text", "type", "4x128", "static_shape"),
    ("static_shape_real", "type", [4.0, 128], "static_shape"),
]


def add_bad_values(found: Collection) -> None:
    for name, value in {"list": [], "text": "manifest", "null": None, "number": 1}.items():
        found.add(f"root_{name}", "type", "the root is an object", text_of(value))
    good = good_manifest()
    for key in sorted(good):
        data = changed(lambda m, key=key: m.pop(key))
        found.add(f"no_{key}", "missing", f"{key} is always there", data)
        wrong: Any = 7 if not isinstance(good[key], int) else "7"
        data = changed(lambda m, key=key, wrong=wrong: m.update({key: wrong}))
        found.add(f"type_{key}", "type", f"{key} has another type", data)
    for where, members in {
        "base": (("base",), ("digest", "name", "revision")),
        "layout": (("layout",), ("base_digest", "biases", "head", "poolings")),
        "bias": (("layout", "biases", 0), ("name", "offset", "shape")),
        "head": (("layout", "head", 1), ("name", "shape")),
        "file": (("files", "model.onnx"), ("crc32c", "sha256", "size")),
        "program": (INFER, ("at_load", "file", "inputs", "outputs")),
        "port": ((*INFER, "inputs", 0), ("dtype", "name", "role", "shape")),
        "task": (
            ("tasks", "sst-2"),
            ("file", "labels", "max_length", "metrics", "problem_type", "sha256", "task_version"),
        ),
    }.items():
        path, keys = members
        for key in keys:
            found.add(f"no_{where}_{key}", "missing", "it is always there", changed(dropper(*path, key)))
            found.add(f"type_{where}_{key}", "type", "another type", changed(setter(True, *path, key)))
    add_values(found)


def add_values(found: Collection) -> None:
    """Values of the right type that may not stand where they do, and those of keys with a default."""
    for name, fault, value, *path in WRONG_VALUES:
        data = changed(setter(value, *path), digest=path[0] == "layout")
        found.add(name, fault, f"the rule of {path[-1]}", data)
    for name, text in {"fraction": "20.0", "exponent": "2e1", "text": '"20"'}.items():
        data = with_text('"opset":20', f'"opset":{text}')
        found.add(f"opset_{name}", "type", "an integer has neither fraction nor exponent", data)
    found.add("size_fraction", "type", "an integer", changed(setter(9.0, "files", "model.onnx", "size")))
    add_ranges(found)
    add_bias_scales(found)
    add_accelerators(found)
    add_shapes(found)
    add_label_counts(found)


def add_ranges(found: Collection) -> None:
    for name, values in {
        "scale_0": {"scale": 0},
        "scale_negative": {"scale": -0.5},
        "zero_point_negative": {"zero_point": -1},
        "zero_point_large": {"zero_point": 256},
        "used_negative": {"used": -0.5},
        "zero_point_beyond_16_bits": {"precision": "w8a16", "zero_point": 65536},
    }.items():
        found.add(f"range_{name}", "range", "the rule of quantization", quantized(**values))
    for key, value in (("scale", "1"), ("zero_point", 7.0), ("used", None)):
        found.add(f"range_{key}_type", "type", "a number", quantized(**{key: value}))
    found.add("range_in_fp32", "value", "int8 and int8-static have ranges", quantized(precision="fp32"))
    found.add("range_and_none", "value", "a product has a range or not", quantized(kept="product_1"))
    found.add("range_without_scale", "missing", "a range has three keys", quantized().replace(b'"scale":0.25,', b""))


def add_bias_scales(found: Collection) -> None:
    good = [0.5] * 4
    for name, scale in {"0": 0, "negative": -0.5, "denormal": 1e-38, "large": 3.5e38}.items():
        found.add(f"bias_scale_{name}", "range", "a normal float32 above 0", with_scales([*good[1:], scale]))
    for name, scales in {"text": [*good[1:], "1"], "boolean": [*good[1:], True], "number": 0.5, "null": None}.items():
        found.add(f"bias_scales_{name}", "type", "a list of numbers", with_scales(scales))
    found.add("bias_scales_few", "disagreement", "one for each value", with_scales(good[1:]))
    found.add("bias_scales_none", "disagreement", "one for each value", with_scales([]))
    found.add("bias_scales_packed", "disagreement", "only named has them", with_scales(good, kind="packed"))
    found.add("bias_scales_of_none", "disagreement", "a bias of the layout", with_scales(good, "other.bias"))


def add_accelerators(found: Collection) -> None:
    for key, value in (("arch", -1), ("nodes", UINT32_MAX + 1)):
        found.add(f"accelerator_{key}", "range", "from 0 to 2^32 - 1", changed(compiled(**{key: value})))
    for key, value in (("sdk", 2), ("soc_model", "43"), ("binary", None), ("source", 1)):
        found.add(f"accelerator_{key}_type", "type", "another type", changed(compiled(**{key: value})))
    for key in ("binary", "source"):
        data = changed(compiled(**{key: "elsewhere.bin"}))
        found.add(f"accelerator_{key}_is_no_file", "missing", "files has every file", data)
    found.add("qnn_without_accelerator", "disagreement", "qnn has one", changed(lambda m: m.update(target="qnn")))
    found.add("ort_with_accelerator", "disagreement", "only qnn has one", changed(both(compiled(), target="ort")))


def add_shapes(found: Collection) -> None:
    for name, shape in {
        "none": [],
        "zero": [0],
        "negative": [-4],
        "large": [UINT32_MAX + 1],
        "product": [2**16, 2**16],
        "overflow": [2**31, 2**31, 2**31],
    }.items():
        data = changed(setter(shape, "layout", "biases", 0, "shape"), digest=True)
        found.add(f"bias_shape_{name}", "range", "1 to 2^32 - 1 values", data)
        if name != "overflow":
            data = changed(setter(shape, "layout", "head", 0, "shape"), digest=True)
            found.add(f"head_shape_{name}", "range", "1 to 3 dimensions, at most 2^32 - 1 values", data)
    found.add("too_many_dimensions", "range", "9 dimensions", changed(set_dimensions(9), digest=True))
    found.add("head_rank", "range", "4", changed(setter([1] * 4, "layout", "head", 0, "shape"), digest=True))
    heads = [{"name": f"head.{index}", "shape": [1]} for index in range(17)]
    found.add("head_tensors", "range", "17", changed(setter(heads, "layout", "head"), digest=True))


def add_label_counts(found: Collection) -> None:
    for kind, labels in {
        "single_label": [],
        "token": [],
        "regression": ["a"],
        "span": ["a"],
        "multi_label": [],
    }.items():
        name = {"regression": "score", "span": "squad"}.get(kind, "sst-2")

        def change(m: dict[str, Any], name: str = name, kind: str = kind, labels: list[str] = labels) -> None:
            m["tasks"][name].update(problem_type=kind, labels=labels)

        found.add(f"labels_{kind}", "range", "a number of labels that it never has", changed(change))
