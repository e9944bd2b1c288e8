"""The check that a loaded graph is the one that the manifest describes: its digest, its inputs and its outputs."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, TypeAlias

from bitfit_export.bundle import LABELS, HeadEntry, Layout, Manifest
from bitfit_export.bundle.graph_inputs import PACKED_BIAS
from bitfit_export.errors import BundleError
from bitfit_export.runtime.inputs import TEXT_INPUTS
from bitfit_export.runtime.tasks.bias_table import BIAS_TABLE, TASK_IDS

__all__ = ["EXPORT_AGAIN", "LOGITS", "TOKEN_LOGITS", "check_digest", "check_interface"]

#: The graph's outputs: a row's logits [batch, labels], and each token's [batch, sequence, labels].
LOGITS = "logits"
TOKEN_LOGITS = "token_logits"
EXPORT_AGAIN = "copy the bundle again, or export it again"
_DIGEST_PROPERTY = "bitfit_export.layout_digest"

# A graph input as ONNX Runtime describes it: its type, and a number or None (any) for each dimension.
_Signature: TypeAlias = tuple[str, tuple[int | None, ...]]


def check_digest(path: Path, session: Any, layout: Layout) -> None:
    """A model and a manifest of two bundles may have the same interface; only the digest tells them apart.

    Raises:
        BundleError: the model has another digest, or none.
    """
    found = session.get_modelmeta().custom_metadata_map.get(_DIGEST_PROPERTY)
    if found != layout.digest:
        what = "has no layout digest" if found is None else f"has layout digest {found[:12]}"
        raise BundleError(
            f"the model {path} {what}, expected {layout.digest[:12]} as in the manifest", hint=EXPORT_AGAIN
        )


def check_interface(path: Path, session: Any, manifest: Manifest) -> int | None:
    """Compare the graph's inputs and outputs with those that the manifest names, and with its layout.

    Args:
        path: of the model, for messages.
        session: ONNX Runtime's.

    Returns:
        The number of labels that the head inputs have, where it is fixed; else None.

    Raises:
        BundleError: an input or output that is missing, is one too many, or has another type or shape.
    """
    found = {each.name: _signature(each.type, each.shape) for each in session.get_inputs()}
    defaults = {each.name: _signature(each.type, each.shape) for each in session.get_overridable_initializers()}
    _check_names(path, "inputs", [*found, *defaults], manifest.inputs)
    labels = _static_labels(manifest, found | defaults)
    text, rows = _text_inputs(manifest), _row_inputs(manifest, labels)
    if "token_type_ids" not in found:
        del text["token_type_ids"]
    _check_inputs(path, found, text if manifest.overridable else text | rows)
    _check_inputs(path, defaults, rows if manifest.overridable else {})
    outputs = [each.name for each in session.get_outputs()]
    _check_names(path, "outputs", outputs, manifest.outputs)
    if LOGITS not in outputs:
        raise BundleError(f"the model {path} has no output {LOGITS}", hint=EXPORT_AGAIN)
    return labels


def _check_names(path: Path, what: str, found: Sequence[str], expected: tuple[str, ...]) -> None:
    if set(found) != set(expected):
        raise BundleError(
            f"the model {path} has the {what} {', '.join(found)}, expected {', '.join(expected)}", hint=EXPORT_AGAIN
        )


def _check_inputs(path: Path, found: Mapping[str, _Signature], expected: Mapping[str, _Signature]) -> None:
    if found.keys() != expected.keys():
        raise BundleError(
            f"the model {path} has the inputs {', '.join(found)}, expected {', '.join(expected)}", hint=EXPORT_AGAIN
        )
    for name, signature in expected.items():
        if found[name] != signature:
            raise BundleError(
                f"the model {path} has the input {name} {_show(found[name])}, expected {_show(signature)}",
                hint=EXPORT_AGAIN,
            )


def _text_inputs(manifest: Manifest) -> dict[str, _Signature]:
    shape = manifest.static_shape or ("batch", "sequence")
    return {name: _signature("tensor(int64)", shape) for name in TEXT_INPUTS}


def _row_inputs(manifest: Manifest, labels: int | None) -> dict[str, _Signature]:
    """The inputs that bring biases and heads."""
    layout = manifest.layout
    biases: dict[str, _Signature]
    if manifest.layout_kind == "table":
        biases = {
            TASK_IDS: _signature("tensor(int64)", ["batch"]),
            BIAS_TABLE: _signature("tensor(float)", ["tasks", layout.bias_count]),
        }
    elif manifest.layout_kind == "packed":
        biases = {PACKED_BIAS: _signature("tensor(float)", [layout.bias_count])}
    else:
        biases = {entry.name: _signature("tensor(float)", entry.shape) for entry in layout.biases}
    leading = ["tasks"] if manifest.layout_kind == "table" else []
    return biases | {
        entry.name: _signature("tensor(float)", [*leading, *_head_shape(entry, labels)]) for entry in layout.head
    }


def _head_shape(entry: HeadEntry, labels: int | None) -> tuple[int | str, ...]:
    return entry.shape if labels is None else entry.resolve(labels)


def _static_labels(manifest: Manifest, found: Mapping[str, _Signature]) -> int | None:
    """The number of labels of a graph of static shape, as the first head input that has such a dimension says."""
    if manifest.static_shape is None:
        return None
    for entry in manifest.layout.head:
        if LABELS in entry.shape and entry.name in found:
            return found[entry.name][1][entry.shape.index(LABELS)]
    return None


def _signature(kind: str, shape: Sequence[int | str | None]) -> _Signature:
    return kind, tuple(each if isinstance(each, int) else None for each in shape)


def _show(signature: _Signature) -> str:
    kind, shape = signature
    return f"{kind} [{', '.join('any' if each is None else str(each) for each in shape)}]"
