"""Make the files that every reader of manifests is tested with: `manifests/`.

python conformance/make_manifests.py
"""

from __future__ import annotations

import json
from typing import Any

from collection import INT64_MAX, LIMIT, Collection, nested, write
from good_manifest import (
    BIASES,
    HEAD,
    INFER,
    INT32_MAX,
    LONGEST_NAME,
    MOST_DIMENSIONS,
    SHA,
    UINT32_MAX,
    at,
    changed,
    compiled,
    dropper,
    extra,
    good_manifest,
    program,
    quantized,
    reads_images,
    set_dimensions,
    setter,
    text_of,
    with_scales,
    with_text,
)
from manifest_values import add_bad_values


def manifests() -> dict[str, bytes]:
    found = Collection("json")
    add_good_manifests(found)
    add_bad_json(found)
    add_bad_values(found)
    add_bad_names(found)
    add_disagreements(found)
    return found.build()


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
    scales = [2.0**-126, 0.5, 1, 3.4028234663852886e38]
    found.add("bias_scales", None, "the least and the greatest float32, an integer", with_scales(scales))
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
