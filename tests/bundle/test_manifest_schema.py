"""The JSON Schema of the manifest says what `docs/files.md` says, as far as a schema can."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from bitfit_export.bundle.interface import AT_LOAD, DTYPES, INPUT_ROLES, LAYOUT_KINDS, MODALITIES, OUTPUT_ROLES
from bitfit_export.bundle.limits import MAX_DIMENSIONS, MAX_NAME_BYTES
from bitfit_export.bundle.manifest import MANIFEST_VERSION, PRECISIONS, ROW_DTYPES, TARGETS
from bitfit_export.bundle.row_format import MAX_HEAD_RANK, MAX_HEAD_TENSORS, MAX_LABELS, PROBLEM_CODES

jsonschema = pytest.importorskip("jsonschema", reason="needs bitfit-export[dev]")

ROOT = Path(__file__).parents[2]
SCHEMA = json.loads((ROOT / "spec" / "manifest.schema.json").read_text(encoding="utf-8"))
MANIFESTS = ROOT / "conformance" / "manifests"
FILES: dict[str, dict[str, Any]] = json.loads((MANIFESTS / "index.json").read_text(encoding="utf-8"))["files"]

#: Bad manifests that the schema takes, for it counts characters and not bytes, ...
LONG = {f"bad_{what}_long.json" for what in ("base_name", "file", "fold_reason", "label", "metric", "revision")}
LONG |= {f"bad_{what}_long.json" for what in ("bias", "head", "input", "output", "pooling", "symbol")}
LONG |= {"bad_product_version_long.json"}
#: ... takes 20.0 for an integer, ...
INTEGERS = {f"bad_{what}.json" for what in ("head_shape_real", "opset_exponent", "opset_fraction", "port_size_real")}
INTEGERS |= {"bad_size_fraction.json", "bad_range_zero_point_type.json"}
#: ... does not calculate, ...
SUMS = {f"bad_{what}.json" for what in ("bias_shape_overflow", "bias_shape_product", "head_shape_product", "offset")}
#: ... and does not compare one value with another.
PAIRS = {"base", "bias_twice", "fold_reasons", "head_twice", "layout_digest", "max_length", "pad_token_id"}
PAIRS |= {"files_without_model", "input_twice", "output_twice", "program_without_file", "range_and_none"}
PAIRS |= {"accelerator_binary_is_no_file", "accelerator_source_is_no_file"}
PAIRS |= {"bias_scales_few", "bias_scales_of_none", "bias_scales_packed"}
PAIRS = {f"bad_{what}.json" for what in PAIRS | {"static_shape_positions", "task_file_1"}}


@pytest.fixture(scope="module")
def validator() -> Any:
    jsonschema.Draft202012Validator.check_schema(SCHEMA)
    return jsonschema.Draft202012Validator(SCHEMA)


def test_it_takes_every_good_manifest_and_refuses_what_it_can(validator: Any) -> None:
    taken = {
        name
        for name, expected in FILES.items()
        if expected["fault"] != "json" and validator.is_valid(json.loads((MANIFESTS / name).read_bytes()))
    }
    assert taken == {name for name in FILES if FILES[name]["fault"] is None} | LONG | INTEGERS | SUMS | PAIRS


def test_its_numbers_and_words_are_those_of_the_code() -> None:
    properties, parts = SCHEMA["properties"], SCHEMA["$defs"]
    layout = parts["layout"]["properties"]
    assert properties["format_version"]["const"] == MANIFEST_VERSION
    assert {key: tuple(properties[key]["enum"]) for key in ("layout_kind", "target", "precision", "row_dtype")} == {
        "layout_kind": LAYOUT_KINDS,
        "target": TARGETS,
        "precision": PRECISIONS,
        "row_dtype": ROW_DTYPES,
    }
    assert tuple(properties["modality"]["enum"]) == MODALITIES
    assert tuple(parts["program"]["properties"]["at_load"]["enum"]) == AT_LOAD
    for port, roles in (("input", INPUT_ROLES), ("output", OUTPUT_ROLES)):
        assert tuple(parts[port]["properties"]["role"]["enum"]) == roles
    assert tuple(parts["port"]["properties"]["dtype"]["enum"]) == DTYPES
    assert parts["port"]["properties"]["shape"]["maxItems"] == MAX_DIMENSIONS
    assert parts["name"]["maxLength"] == MAX_NAME_BYTES
    assert layout["biases"]["items"]["properties"]["shape"]["maxItems"] == MAX_DIMENSIONS
    assert layout["head"]["maxItems"] == MAX_HEAD_TENSORS
    assert layout["head"]["items"]["properties"]["shape"]["maxItems"] == MAX_HEAD_RANK
    assert parts["task"]["properties"]["labels"]["maxItems"] == MAX_LABELS
    assert parts["task"]["properties"]["problem_type"]["enum"] == list(PROBLEM_CODES)


@pytest.mark.parametrize(
    ("part", "good", "bad"),
    [
        ("name", ["a", "x" * 1024, "ä b"], ["", "x" * 1025, "a\n", "a\x7f", "a\u2028", 1]),
        (
            "path",
            ["a", "a/b", ".a", "a.", "a/...b"],
            ["/a", "a/", "a//b", ".", "..", "a/..", "./a", "a\\b", "C:", "*"],
        ),
        ("task_name", ["a", "0.-_", "x" * 63], ["", "x" * 64, ".a", "a/b", "a\n", "ä"]),
        ("digest", ["0" * 64], [0, "0" * 63, "0" * 65, "A" * 64, "0" * 63 + "\n"]),
    ],
)
def test_names(part: str, good: list[object], bad: list[object]) -> None:
    validator = jsonschema.Draft202012Validator({"$ref": f"#/$defs/{part}", "$defs": SCHEMA["$defs"]})
    assert [value for value in good if not validator.is_valid(value)] == []
    assert [value for value in bad if validator.is_valid(value)] == []
