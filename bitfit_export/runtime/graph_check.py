"""The check that an opened program is the one that the manifest describes: its digest, its inputs and its outputs."""

from __future__ import annotations

from collections.abc import Container, Mapping, Sequence
from pathlib import Path

from bitfit_export.bundle import LABELS, Manifest
from bitfit_export.bundle.interface import (
    LAYOUT_DIGEST_KEY,
    LOGITS,
    TEXT_INPUTS,
    Port,
    row_inputs_of,
    text_inputs_of,
)
from bitfit_export.errors import BundleError
from bitfit_export.runtime.engines.base import GraphTensor, Program

__all__ = ["EXPORT_AGAIN", "check_program"]

EXPORT_AGAIN = "copy the bundle again, or export it again"


def check_program(path: Path, program: Program, manifest: Manifest) -> int | None:
    """Compare a program with the manifest.

    Args:
        path: of the model, for messages.

    Returns:
        The number of labels that the head inputs have, where it is fixed; else None.

    Raises:
        BundleError: another layout digest, or none; an input or output that is missing, is one too many, or has another
            dtype or shape.
    """
    _check_digest(path, program, manifest)
    found, defaults = program.inputs, program.defaults
    _check_names(path, "inputs", [*found, *defaults], manifest.infer.input_names)
    labels = _static_labels(manifest, {**found, **defaults})
    present = [name for name in TEXT_INPUTS if name != TEXT_INPUTS[-1] or name in found]
    text = text_inputs_of(present, manifest.static_shape)
    rows = row_inputs_of(manifest.layout, manifest.layout_kind, labels=labels)
    integers = manifest.quantization.bias_scales
    _check_inputs(path, found, text if manifest.overridable else (*text, *rows), integers)
    _check_inputs(path, defaults, rows if manifest.overridable else ())
    _check_names(path, "outputs", program.outputs, manifest.infer.output_names)
    if LOGITS not in program.outputs:
        raise BundleError(f"the model {path} has no output {LOGITS}", hint=EXPORT_AGAIN)
    return labels


def _check_digest(path: Path, program: Program, manifest: Manifest) -> None:
    """A model and a manifest of two bundles may have the same interface; only the digest tells them apart."""
    found = program.metadata.get(LAYOUT_DIGEST_KEY)
    if found != manifest.layout.digest:
        what = "has no layout digest" if found is None else f"has layout digest {found[:12]}"
        raise BundleError(
            f"the model {path} {what}, expected {manifest.layout.digest[:12]} as in the manifest", hint=EXPORT_AGAIN
        )


def _check_names(path: Path, what: str, found: Sequence[str], expected: tuple[str, ...]) -> None:
    if set(found) != set(expected):
        raise BundleError(
            f"the model {path} has the {what} {', '.join(found)}, expected {', '.join(expected)}", hint=EXPORT_AGAIN
        )


def _check_inputs(
    path: Path, found: Mapping[str, GraphTensor], expected: Sequence[Port], integers: Container[str] = ()
) -> None:
    names = [each.name for each in expected]
    if found.keys() != set(names):
        raise BundleError(
            f"the model {path} has the inputs {', '.join(found)}, expected {', '.join(names)}", hint=EXPORT_AGAIN
        )
    for each in expected:
        dtype = "int32" if each.name in integers else each.dtype
        wanted = GraphTensor(dtype, tuple(size if isinstance(size, int) else None for size in each.shape))
        if found[each.name] != wanted:
            raise BundleError(
                f"the model {path} has the input {each.name} {_show(found[each.name])}, expected {_show(wanted)}",
                hint=EXPORT_AGAIN,
            )


def _static_labels(manifest: Manifest, found: Mapping[str, GraphTensor]) -> int | None:
    """The number of labels of a graph of static shape, as the first head input that has such a dimension says."""
    if manifest.static_shape is None:
        return None
    for entry in manifest.layout.head:
        if LABELS in entry.shape and entry.name in found:
            return found[entry.name].shape[entry.shape.index(LABELS)]
    return None


def _show(tensor: GraphTensor) -> str:
    return f"{tensor.dtype} [{', '.join('any' if each is None else str(each) for each in tensor.shape)}]"
