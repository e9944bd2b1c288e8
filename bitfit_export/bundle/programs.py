"""Programs: the graphs of a bundle, each with one purpose, over the same weights."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from bitfit_export.bundle.fields import Record, check_text
from bitfit_export.bundle.interface import AT_LOAD, DTYPES, INPUT_ROLES, OUTPUT_ROLES, Port
from bitfit_export.bundle.json_dialect import first_repeated
from bitfit_export.bundle.limits import MAX_DIMENSIONS
from bitfit_export.errors import BundleError, quoted, shown

__all__ = ["ProgramRecord", "program_from_record"]

_UINT32_MAX = 2**32 - 1


@dataclass(frozen=True)
class ProgramRecord:
    """A program as the manifest describes it.

    Attributes:
        file: its path in the bundle.
        at_load: how much an engine has to optimise when it loads the program, one of `AT_LOAD`.
        inputs: the graph's inputs, in order; those that have a default are among them.
        outputs: its outputs, in order.

    Raises:
        BundleError: no input or no output, two of one name, or a value that is unknown or out of range.
    """

    file: str
    at_load: str
    inputs: tuple[Port, ...]
    outputs: tuple[Port, ...]

    def __post_init__(self) -> None:
        if self.at_load not in AT_LOAD:
            raise BundleError(f"at_load is {quoted(self.at_load)}, expected one of {', '.join(AT_LOAD)}")
        _check_ports(self.inputs, "inputs", INPUT_ROLES)
        _check_ports(self.outputs, "outputs", OUTPUT_ROLES)

    @property
    def input_names(self) -> tuple[str, ...]:
        """The names of the inputs, in order."""
        return tuple(port.name for port in self.inputs)

    @property
    def output_names(self) -> tuple[str, ...]:
        """The names of the outputs, in order."""
        return tuple(port.name for port in self.outputs)

    def to_json(self) -> dict[str, Any]:
        """Plain lists and dicts."""
        return {
            "at_load": self.at_load,
            "file": self.file,
            "inputs": [_port_to_json(port) for port in self.inputs],
            "outputs": [_port_to_json(port) for port in self.outputs],
        }


def program_from_record(record: Record) -> ProgramRecord:
    """Read what `to_json` wrote, and check all of it."""
    return ProgramRecord(
        file=record.text("file"),
        at_load=record.text("at_load"),
        inputs=tuple(_port_from_record(each) for each in record.records("inputs")),
        outputs=tuple(_port_from_record(each) for each in record.records("outputs")),
    )


def _check_ports(ports: Sequence[Port], what: str, roles: tuple[str, ...]) -> None:
    if not ports:
        raise BundleError(f"a program has no {what}, expected at least one")
    for port in ports:
        check_text(port.name, f"{what}: a name")
        if port.role not in roles:
            raise BundleError(
                f"{shown(port.name)} has the role {quoted(port.role)}, expected one of {', '.join(roles)}"
            )
        if port.dtype not in DTYPES:
            raise BundleError(
                f"{shown(port.name)} has the dtype {quoted(port.dtype)}, expected one of {', '.join(DTYPES)}"
            )
        _check_shape(port)
    repeated = first_repeated(port.name for port in ports)
    if repeated is not None:
        raise BundleError(f"{what} have {quoted(repeated)} twice, expected unique names")


def _check_shape(port: Port) -> None:
    if len(port.shape) > MAX_DIMENSIONS:
        raise BundleError(f"{shown(port.name)} has {len(port.shape)} dimensions, expected at most {MAX_DIMENSIONS}")
    for size in port.shape:
        if isinstance(size, str):
            check_text(size, f"{shown(port.name)}: a dimension")
        elif type(size) is not int or not 1 <= size <= _UINT32_MAX:
            raise BundleError(f"{shown(port.name)} has the dimension {quoted(size)}, expected 1 to {_UINT32_MAX}")


def _port_to_json(port: Port) -> dict[str, Any]:
    return {"dtype": port.dtype, "name": port.name, "role": port.role, "shape": list(port.shape)}


def _port_from_record(record: Record) -> Port:
    shape = record.integers_or_texts("shape")
    return Port(record.text("name"), record.text("role"), record.text("dtype"), shape)
