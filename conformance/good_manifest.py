"""The manifest that every case of `manifests/` is made from, and the ways to change it."""

from __future__ import annotations

import copy
import hashlib
import json
from collections.abc import Callable
from typing import Any

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


def reads_images(manifest: dict[str, Any]) -> None:
    for key in ("max_positions", "vocab_size", "pad_token_id"):
        del manifest[key]
    del manifest["files"]["tokenizer.json"]
    manifest["modality"] = "image"
    pixels = port("pixel_values", "pixels", "float32", "batch", 3, 224, 224)
    manifest["programs"]["infer"]["inputs"][:2] = [pixels]


def set_dimensions(count: int) -> Callable[[dict[str, Any]], None]:
    return lambda m: m["layout"]["biases"][1].update(shape=[1] * (count - 1) + [4])


def quantized(*, precision: str = "int8-static", kept: str = "product_2", **values: Any) -> bytes:
    """A manifest with one range, of which some values may be others, and one product in float32."""
    each = {"scale": 0.25, "used": 1.5, "zero_point": 7} | values
    section = {"not_quantized": {kept: "too large an error"}, "ranges": {"product_1": each}}
    return changed(lambda m: m.update(precision=precision, quantization=section))


def with_scales(scales: Any, name: str = BIASES[0]["name"], *, kind: str = "named") -> bytes:
    """A manifest with the scales of one bias that is int32."""
    section = {"bias_scales": {name: scales}, "not_quantized": {}, "ranges": {}}
    return changed(lambda m: m.update(precision="w8a16", layout_kind=kind, quantization=section))


def compiled(**values: Any) -> Callable[[dict[str, Any]], None]:
    """A program that was compiled ahead of time, of whose record some values may be others."""
    record = {"arch": 73, "binary": "model.onnx.data", "nodes": 90, "sdk": "2.51.0", "soc": "sm8550", "soc_model": 43}
    record |= {"source": "model.onnx"} | values
    return lambda m: m.update(target="qnn", layout_kind="packed", accelerator=record)


def both(change: Callable[[dict[str, Any]], None], **values: Any) -> Callable[[dict[str, Any]], None]:
    def apply(manifest: dict[str, Any]) -> None:
        change(manifest)
        manifest.update(values)

    return apply


def setter(value: Any, *path: Any) -> Callable[[dict[str, Any]], None]:
    return lambda m: at(*path)(m, value)


def dropper(*path: Any) -> Callable[[dict[str, Any]], None]:
    def drop(manifest: dict[str, Any]) -> None:
        for key in path[:-1]:
            manifest = manifest[key]
        del manifest[path[-1]]

    return drop
