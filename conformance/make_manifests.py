"""Make the files that every reader of manifests is tested with: `manifests/`.

python conformance/make_manifests.py
"""

from __future__ import annotations

import copy
import hashlib
import json
from collections.abc import Callable
from typing import Any

from collection import INT64_MAX, LIMIT, Collection, nested, write

BASE_DIGEST = hashlib.sha256(b"a base model of hidden size 4").hexdigest()
SHA = hashlib.sha256(b"some file").hexdigest()
BIASES = [
    {"name": "encoder.layer.0.attention.output.dense.bias", "shape": [4], "offset": 0},
    {"name": "encoder.layer.0.output.dense.bias", "shape": [2, 2], "offset": 4},
]
HEAD = [
    {"name": "head.pooling", "shape": [3]},
    {"name": "head.classifier.weight", "shape": ["labels", 4]},
    {"name": "head.classifier.bias", "shape": ["labels"]},
]
POOLINGS = ["pooler", "cls", "mean"]
LONGEST_NAME = 1024
MOST_DIMENSIONS = 8
INFER = ("programs", "infer")
UINT32_MAX, INT32_MAX = 2**32 - 1, 2**31 - 1


def layout_digest(layout: dict[str, Any]) -> str:
    """SHA-256 of the layout's text, as docs/bias_row.md has it."""
    text = b"bitfit-layout-1\n" + bytes.fromhex(layout["base_digest"])
    for bias in layout["biases"]:
        text += f"bias\0{bias['name']}\0{','.join(map(str, bias['shape']))}\0{bias['offset']}\n".encode()
    for tensor in layout["head"]:
        text += f"head\0{tensor['name']}\0{','.join(map(str, tensor['shape']))}\n".encode()
    for pooling in layout["poolings"]:
        text += f"pooling\0{pooling}\n".encode()
    return hashlib.sha256(text).hexdigest()


def task(name: str, problem_type: str, labels: list[str]) -> dict[str, Any]:
    return {
        "file": f"tasks/{name}.bias",
        "labels": labels,
        "max_length": 128,
        "metrics": {"accuracy": 0.5},
        "problem_type": problem_type,
        "sha256": SHA,
        "task_version": 1,
    }


def port(name: str, role: str, dtype: str, *shape: int | str) -> dict[str, Any]:
    return {"dtype": dtype, "name": name, "role": role, "shape": list(shape)}


def program() -> dict[str, Any]:
    """What `infer` is in the layout table."""
    heads = [port(tensor["name"], "head", "float32", "tasks", *tensor["shape"]) for tensor in HEAD]
    return {
        "at_load": "none",
        "file": "model.onnx",
        "inputs": [
            port("input_ids", "token_ids", "int64", "batch", "sequence"),
            port("attention_mask", "attention_mask", "int64", "batch", "sequence"),
            port("task_ids", "task_ids", "int64", "task_batch"),
            port("bias_table", "biases", "float32", "tasks", 8),
            *heads,
        ],
        "outputs": [port("logits", "logits", "float32", "batch", "labels")],
    }


def good_manifest() -> dict[str, Any]:
    """A manifest with every key that must be there."""
    layout = {"base_digest": BASE_DIGEST, "biases": BIASES, "head": HEAD, "poolings": POOLINGS}
    record = {"crc32c": 305419896, "sha256": SHA, "size": 9}
    manifest = {
        "base": {"digest": BASE_DIGEST, "name": "tiny", "revision": None},
        "files": {"model.onnx": record, "model.onnx.data": record, "tokenizer.json": record},
        "format_version": 2,
        "layout": layout,
        "layout_digest": layout_digest(layout),
        "layout_kind": "table",
        "max_positions": 128,
        "modality": "text",
        "opset": 20,
        "pad_token_id": 0,
        "precision": "fp32",
        "product_version": "1.0",
        "programs": {"infer": program()},
        "target": "ort",
        "tasks": {
            "score": task("score", "regression", []),
            "squad": task("squad", "span", ["start", "end"]),
            "sst-2": task("sst-2", "single_label", ["negative", "positive"]),
        },
        "vocab_size": 100,
    }
    return copy.deepcopy(manifest)  # so that no two places share an object


def text_of(value: Any) -> bytes:
    return json.dumps(value, sort_keys=True, ensure_ascii=False, separators=(",", ":")).encode()


def manifests() -> dict[str, bytes]:
    found = Collection("json")
    add_good_manifests(found)
    add_bad_json(found)
    add_bad_values(found)
    add_bad_names(found)
    add_disagreements(found)
    return found.build()


def changed(change: Callable[[dict[str, Any]], object], *, digest: bool = False) -> bytes:
    """The good manifest after `change`; `digest`: with the digest of its layout made again."""
    manifest = good_manifest()
    change(manifest)
    if digest:
        manifest["layout_digest"] = layout_digest(manifest["layout"])
    return text_of(manifest)


def with_text(old: str, new: str | bytes) -> bytes:
    """The good manifest with other bytes in place of `old`, which occurs once."""
    text = text_of(good_manifest())
    assert text.count(old.encode()) == 1, old
    return text.replace(old.encode(), new.encode() if isinstance(new, str) else new)


def extra(value: str | bytes) -> bytes:
    """The good manifest with an unknown key of this value."""
    data = value.encode() if isinstance(value, str) else value
    return with_text('"format_version"', b'"a_key_of_a_later_release":' + data + b',"format_version"')


def at(*path: Any) -> Callable[[dict[str, Any], Any], None]:
    """A setter of the member at this path."""

    def put(manifest: dict[str, Any], value: Any) -> None:
        for key in path[:-1]:
            manifest = manifest[key]
        manifest[path[-1]] = value

    return put


def add_good_manifests(found: Collection) -> None:
    good = text_of(good_manifest())
    found.add("plain", None, "every key that must be there", good)
    found.add("pretty", None, "white space", json.dumps(good_manifest(), indent=2).encode() + b"\r\n\t ")
    found.add("no_tasks", None, "rows may be loaded later", changed(lambda m: m.update(tasks={})))
    found.add("unknown_keys", None, "unknown keys are ignored", extra('{"a":[1,-2.5e-3,true,false,null,"\\u00e4"]}'))
    found.add("pair_of_surrogates", None, "an escaped pair is one character", extra('"\\ud83d\\ude00"'))
    found.add("escaped_backslash", None, "a backslash, and no escape", extra('"\\\\ud800"'))
    found.add("tiny_number", None, "a double rounds it to 0", extra("1e-999"))
    found.add("int64", None, "the largest and the smallest integer", extra(f"[{INT64_MAX},{-INT64_MAX - 1}]"))
    found.add("minus_zero", None, "-0 is an integer, 0", with_text('"pad_token_id":0', '"pad_token_id":-0'))
    found.add("deepest", None, f"{LIMIT} levels", extra(nested(LIMIT)))
    found.add("brackets_in_text", None, "text does not nest", extra('"' + "[{" * LIMIT + '\\""'))
    found.add("del_escaped_in_unknown", None, "only names have no control characters", extra('"a\\u0000b\\u007f"'))

    def options(m: dict[str, Any]) -> None:
        m.update(layout_kind="named", overridable=True, static_shape=[4, 128], row_dtype="fp16", prepacked=True)
        m.update(fold_reasons={BIASES[0]["name"]: "it is read by two nodes"})

    found.add("all_options", None, "every key that may be absent", changed(options))
    found.add("static_shape_null", None, "null is its default", changed(lambda m: m.update(static_shape=None)))
    found.add("revision", None, "a revision", changed(lambda m: m["base"].update(revision="main")))
    for kind in ("packed", "named"):
        found.add(f"layout_{kind}", None, "a layout", changed(lambda m, kind=kind: m.update(layout_kind=kind)))
    for precision in ("fp16", "int8", "int8-static", "int4"):
        found.add(precision, None, "a precision", changed(lambda m, to=precision: m.update(precision=to)))
    found.add("quantization", None, "ranges, and what has none", quantized())
    found.add("quantization_at_its_ends", None, "0 and 255", quantized(zero_point=255, used=0))
    found.add("w8a16", None, "a precision with uint16", quantized(precision="w8a16", zero_point=65535))
    found.add("portable", None, "a target", changed(lambda m: m.update(target="portable")))
    found.add("qnn", None, "a target, its binary and its graph", changed(compiled()))
    found.add("qnn_without_source", None, "the graph need not be there", changed(compiled(source=None)))
    found.add("metric_integer", None, "a number", changed(lambda m: m["tasks"]["score"]["metrics"].update(r=1)))
    found.add(
        "no_metrics", None, "an object without members", changed(lambda m: m["tasks"]["score"].update(metrics={}))
    )
    for kind in ("multi_label", "token"):
        put = at("tasks", "sst-2", "problem_type")
        found.add(kind, None, "a problem type", changed(lambda m, put=put, kind=kind: put(m, kind)))
    longest = "é" * (LONGEST_NAME // 2)
    found.add(
        "longest_label", None, "1,024 bytes", changed(lambda m: m["tasks"]["sst-2"].update(labels=["a", longest]))
    )
    found.add("most_dimensions", None, "a shape of 8", changed(set_dimensions(MOST_DIMENSIONS), digest=True))
    found.add(
        "file_in_folder", None, "a path", changed(lambda m: m["files"].update({"a/b.data": m["files"]["model.onnx"]}))
    )
    found.add("largest_crc", None, "a u32", changed(lambda m: m["files"]["model.onnx"].update(crc32c=UINT32_MAX)))
    found.add("largest_version", None, "a u32", changed(lambda m: m["tasks"]["score"].update(task_version=UINT32_MAX)))
    found.add("image", None, "a model that reads images has no text fields and no tokenizer", changed(reads_images))
    more = changed(lambda m: m["programs"].update(another=program()))
    found.add("two_programs", None, "a purpose that a reader does not know", more)
    found.add("basic_at_load", None, "how much is left to optimise", changed(setter("basic", *INFER, "at_load")))
    found.add("no_head", None, "a layout may have no head", changed(lambda m: m["layout"].update(head=[]), digest=True))


def reads_images(manifest: dict[str, Any]) -> None:
    for key in ("max_positions", "vocab_size", "pad_token_id"):
        del manifest[key]
    del manifest["files"]["tokenizer.json"]
    manifest["modality"] = "image"
    pixels = port("pixel_values", "pixels", "float32", "batch", 3, 224, 224)
    manifest["programs"]["infer"]["inputs"][:2] = [pixels]


def set_dimensions(count: int) -> Callable[[dict[str, Any]], None]:
    return lambda m: m["layout"]["biases"][1].update(shape=[1] * (count - 1) + [4])


def add_bad_json(found: Collection) -> None:
    good = text_of(good_manifest())

    def add(name: str, why: str, data: bytes) -> None:
        found.add(name, "json", why, data)

    add("empty", "no JSON text", b"")
    add("blank", "no JSON text", b" \n")
    add("truncated", "the last brace is missing", good[:-1])
    add("half", "cut in the middle", good[: len(good) // 2])
    add("trailing_brace", "text after the end", good + b"}")
    add("trailing_object", "text after the end", good + b"\n{}")
    add("trailing_nul", "text after the end", good + b"\0")
    add("trailing_comma", "a comma before a bracket", extra("[1,]"))
    add("comment", "JSON has no comments", extra("/* why */1"))
    add("single_quotes", "JSON has no such strings", extra("'a'"))
    add("byte_order_mark", "the manifest starts with a brace", b"\xef\xbb\xbf" + good)
    add("utf16", "not UTF-8", good.decode().encode("utf-16"))
    add("utf16_le", "not UTF-8", good.decode().encode("utf-16-le"))
    add("utf32_be", "not UTF-8", good.decode().encode("utf-32-be"))
    add("latin1", "not UTF-8", extra(b'"\xe4"'))
    add("overlong", "not UTF-8", extra(b'"\xc0\xaf"'))
    add("surrogate_bytes", "not UTF-8", extra(b'"\xed\xa0\x80"'))
    add("beyond_unicode", "not UTF-8", extra(b'"\xf4\x90\x80\x80"'))
    add("lone_high_surrogate", "half a pair", extra('"\\ud800"'))
    add("lone_low_surrogate", "half a pair", extra('"a\\uDC00"'))
    add("two_high_surrogates", "two halves, no pair", extra('"\\ud800\\ud800"'))
    add("surrogate_in_key", "half a pair", extra('{"\\udfff":1}'))
    add("surrogate_in_label", "half a pair", with_text('"negative"', '"\\ud83d"'))
    add("bad_escape", "no escape of JSON", extra('"\\x41"'))
    add("short_escape", "four digits", extra('"\\u12"'))
    add("raw_control", "a raw line feed in a string", extra('"a\nb"'))
    for name in ("NaN", "Infinity", "-Infinity", "nan", "True", "None"):
        add(f"word_{name.replace('-', 'minus_')}", "no word of JSON", extra(name))
    add("too_large_double", "no double holds it", extra("1e999"))
    add("too_small_double", "no double holds it", extra("-1e999"))
    add("too_long_double", "no double holds it", extra("9" * 400 + ".0"))
    add("too_large_integer", "int64 holds less", extra(str(INT64_MAX + 1)))
    add("too_small_integer", "int64 holds less", extra(str(-INT64_MAX - 2)))
    add("uint64", "int64 holds less", extra(str(2**64 - 1)))
    add("long_integer", "int64 holds less", extra("9" * 5000))
    add("leading_zero", "no number of JSON", extra("01"))
    add("plus", "no number of JSON", extra("+1"))
    add("hexadecimal", "no number of JSON", extra("0x10"))
    add("no_fraction", "no number of JSON", extra("1."))
    add("no_whole_part", "no number of JSON", extra(".5"))
    add("no_exponent", "no number of JSON", extra("1e"))
    add("key_twice", "a repeated key", with_text('"opset":20', '"opset":20,"opset":20'))
    add("key_twice_escaped", "the same key, written otherwise", with_text('"opset":20', '"opset":20,"\\u006fpset":20'))
    add("key_twice_inside", "a repeated key of an unknown object", extra('{"a":{"b":1,"b":2}}'))
    add("key_without_quotes", "a key is a string", extra("{a:1}"))
    add("too_deep", f"{LIMIT + 1} levels", extra(nested(LIMIT + 1)))
    add("too_deep_objects", f"{LIMIT + 1} levels", extra('{"a":' * LIMIT + "1" + "}" * LIMIT))
    add("very_deep", "nothing of it is read", b"[" * 20_000)
    add("form_feed", "no white space of JSON", b"\x0c" + good)
    add("no_break_space", "no white space of JSON", "\u00a0".encode() + good)


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


def quantized(*, precision: str = "int8-static", kept: str = "product_2", **values: Any) -> bytes:
    """A manifest with one range, of which some values may be others, and one product in float32."""
    each = {"scale": 0.25, "used": 1.5, "zero_point": 7} | values
    section = {"not_quantized": {kept: "too large an error"}, "ranges": {"product_1": each}}
    return changed(lambda m: m.update(precision=precision, quantization=section))


def compiled(**values: Any) -> Callable[[dict[str, Any]], None]:
    """A program that was compiled ahead of time, of whose record some values may be others."""
    record = {"arch": 73, "binary": "model.onnx.data", "nodes": 90, "sdk": "2.51.0", "soc": "sm8550", "soc_model": 43}
    record |= {"source": "model.onnx"} | values
    return lambda m: m.update(target="qnn", layout_kind="packed", accelerator=record)


def setter(value: Any, *path: Any) -> Callable[[dict[str, Any]], None]:
    return lambda m: at(*path)(m, value)


def dropper(*path: Any) -> Callable[[dict[str, Any]], None]:
    def drop(manifest: dict[str, Any]) -> None:
        for key in path[:-1]:
            manifest = manifest[key]
        del manifest[path[-1]]

    return drop


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


def both(change: Callable[[dict[str, Any]], None], **values: Any) -> Callable[[dict[str, Any]], None]:
    def apply(manifest: dict[str, Any]) -> None:
        change(manifest)
        manifest.update(values)

    return apply


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


def add_bad_names(found: Collection) -> None:
    bad = {
        "empty": "",
        "nul": "a\0b",
        "escape": "a\x1b[2Jb",
        "newline": "a\n",
        "del": "a\x7f",
        "c1": "a\x85b",
        "line_separator": "a\u2028b",
        "paragraph_separator": "a\u2029b",
        "long": "é" * (LONGEST_NAME // 2) + "a",
    }
    for name, value in bad.items():
        found.add(f"label_{name}", "name", "a label", changed(setter(["a", value], "tasks", "sst-2", "labels")))
        found.add(f"base_name_{name}", "name", "the base's name", changed(setter(value, "base", "name")))
    for name in ("escape", "long"):
        value = bad[name]
        for what, path in {
            "revision": ("base", "revision"),
            "product_version": ("product_version",),
            "bias": ("layout", "biases", 0, "name"),
            "head": ("layout", "head", 0, "name"),
            "input": (*INFER, "inputs", 0, "name"),
            "output": (*INFER, "outputs", 0, "name"),
            "symbol": (*INFER, "inputs", 0, "shape", 0),
            "pooling": ("layout", "poolings", 0),
        }.items():
            found.add(f"{what}_{name}", "name", "a name", changed(setter(value, *path), digest=True))
        data = changed(setter(1, "tasks", "sst-2", "metrics", value))
        found.add(f"metric_{name}", "name", "a metric's name", data)
        data = changed(lambda m, value=value: m["files"].update({value: m["files"]["model.onnx"]}))
        found.add(f"file_{name}", "name", "a path", data)
        data = changed(setter({BIASES[0]["name"]: value}, "fold_reasons"))
        found.add(f"fold_reason_{name}", "name", "a reason", data)
    for index, path in enumerate(
        ["../x", "/etc/passwd", "a/../../x", "a//b", "./a", "a/", "..", "..\\x", "C:x", "a\\b", "a/*"]
    ):
        data = changed(lambda m, path=path: m["files"].update({path: m["files"]["model.onnx"]}))
        found.add(f"path_{index}", "name", f"{path} could leave the bundle, or has two spellings", data)
    for index, name in enumerate(["", ".a", "-a", "a/b", "a b", "ä", "x" * 64, "a\n", "a\0"]):

        def rename(m: dict[str, Any], name: str = name) -> None:
            m["tasks"][name] = m["tasks"].pop("sst-2") | {"file": f"tasks/{name}.bias"}

        found.add(
            f"task_name_{index}", "name", "a task name is 1 to 63 letters, digits, '.', '_' or '-'", changed(rename)
        )
    for index, path in enumerate(["../sst-2.bias", "tasks/score.bias", "/tasks/sst-2.bias", "tasks/sst-2.bias/"]):
        data = changed(setter(path, "tasks", "sst-2", "file"))
        found.add(f"task_file_{index}", "disagreement", "a row lies at tasks/<task>.bias", data)
    for what, change in {
        "label": setter(["a", "a"], "tasks", "sst-2", "labels"),
        "input": lambda m: m["programs"]["infer"]["inputs"].append(m["programs"]["infer"]["inputs"][0]),
        "output": lambda m: m["programs"]["infer"]["outputs"].append(m["programs"]["infer"]["outputs"][0]),
        "pooling": setter(["cls", "cls"], "layout", "poolings"),
        "bias": setter(BIASES[0]["name"], "layout", "biases", 1, "name"),
        "head": setter(HEAD[1]["name"], "layout", "head", 2, "name"),
    }.items():
        found.add(f"{what}_twice", "twice", "names are unique", changed(change, digest=True))


def add_disagreements(found: Collection) -> None:
    def add(name: str, why: str, data: bytes) -> None:
        found.add(name, "disagreement", why, data)

    add("layout_digest", "the layout has another digest", changed(setter(SHA, "layout_digest")))
    add("base", "base and layout name two base models", changed(setter(SHA, "base", "digest")))
    for name in ("model.onnx", "tokenizer.json"):
        data = changed(dropper("files", name))
        found.add(f"files_without_{name.partition('.')[0]}", "missing", f"files names {name}", data)
    found.add("no_infer", "missing", "the program infer", changed(setter({}, "programs")))
    other = changed(setter("other.onnx", *INFER, "file"))
    found.add("program_without_file", "missing", "files names every program", other)
    found.add("files_empty", "missing", "files names model and tokenizer", changed(setter({}, "files")))
    add("offset", "a bias starts where the one before ends", changed(setter(5, "layout", "biases", 1, "offset")))
    add("max_length", "longer than max_positions", changed(setter(129, "tasks", "sst-2", "max_length")))
    add("pad_token_id", "beyond the vocabulary", changed(setter(100, "pad_token_id")))
    add("overridable_table", "in the layout named only", changed(setter(True, "overridable")))
    add("static_shape_table", "not in the layout table", changed(setter([4, 128], "static_shape")))
    for name, fault, shape in [
        ("positions", "disagreement", [4, 129]),
        ("zero", "range", [0, 128]),
        ("negative", "range", [4, -1]),
        ("large", "range", [INT32_MAX + 1, 128]),
    ]:

        def change(m: dict[str, Any], shape: list[int] = shape) -> None:
            m.update(layout_kind="packed", static_shape=shape)

        found.add(f"static_shape_{name}", fault, "a batch, and at most max_positions tokens", changed(change))
    add("fold_reasons", "a bias that the layout lacks", changed(setter({"b.bias": "why"}, "fold_reasons")))


if __name__ == "__main__":
    write("manifests", manifests())
