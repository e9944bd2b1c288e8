"""Qualcomm's HTP by the package onnxruntime-qnn: its chips, and its library as a provider of ONNX Runtime.

On Linux x86-64 the package has Qualcomm's compiler for the HTP and an emulator of it; on a device with an NPU it has
what drives that. Needs the `[qnn]` extra. The library is loaded on use, once in a process.
"""

from __future__ import annotations

import functools
import importlib
import os
import sys
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any, NamedTuple

import onnxruntime as ort

from bitfit_export.errors import BundleError, MissingExtraError, UsageError, quoted

__all__ = [
    "ARCHES",
    "CHIPS",
    "DEFAULT_CHIP",
    "PROVIDER",
    "Chip",
    "QnnLibrary",
    "find_chip",
    "load_library",
    "stdout_is_stderr",
]

PROVIDER = "QNNExecutionProvider"
_PACKAGE = "onnxruntime_qnn"
#: Versions of the HTP that have floats; the number is Qualcomm's (V73 is 73).
ARCHES = (69, 73, 75, 79, 81)
_NO_FALLBACK = ("session.disable_cpu_ep_fallback", "1")
_LOG_FATAL_ONLY = 4


class Chip(NamedTuple):
    """A chip: Qualcomm's number of it (`soc_model`), and the version of its HTP."""

    name: str
    model: int
    arch: int


#: By name. Another one is named by its number, with the version of its HTP.
CHIPS: Mapping[str, Chip] = {
    chip.name: chip
    for chip in (
        Chip("sm8450", 36, 69),
        Chip("sm8475", 42, 69),
        Chip("sm8550", 43, 73),
        Chip("sc8380xp", 60, 73),
        Chip("sm8650", 57, 75),
        Chip("sm8750", 69, 79),
        Chip("sm8850", 87, 81),
    )
}
DEFAULT_CHIP = "sm8550"


def find_chip(soc: str | None = None, arch: int | None = None) -> Chip:
    """Returns the chip of a name, or of a number and a version of the HTP.

    Args:
        soc: a name of `CHIPS` or a number; by default `DEFAULT_CHIP`, or the first chip that has `arch`.
        arch: by default that of the named chip.

    Raises:
        UsageError: an unknown name, a number without an arch, or an unknown arch.
    """
    if arch is not None and arch not in ARCHES:
        raise UsageError(f"--htp-arch is {arch}, expected one of {', '.join(map(str, ARCHES))}")
    if soc is None:
        known = CHIPS[DEFAULT_CHIP]
        return known if arch in (None, known.arch) else next(chip for chip in CHIPS.values() if chip.arch == arch)
    if soc in CHIPS:
        chip = CHIPS[soc]
        return chip if arch is None else chip._replace(arch=arch)
    if not (soc.isdecimal() and soc.isascii() and len(soc) < 6):
        raise UsageError(f"--soc is {quoted(soc)}, expected one of {', '.join(CHIPS)}, or a number")
    if arch is None:
        raise UsageError(f"--soc is the number {soc}, which does not say which HTP it has", hint="add --htp-arch")
    return Chip(soc, int(soc), arch)


@dataclass(frozen=True)
class QnnLibrary:
    """The loaded library.

    Attributes:
        sdk: the version of Qualcomm's SDK (QAIRT) that it was built with.
        emulates: whether it emulates an HTP on this machine's processor, and does not run one.
    """

    sdk: str
    emulates: bool
    _devices: tuple[Any, ...]
    _backend: str

    @property
    def device(self) -> str:
        """What runs a program, in words."""
        return "Qualcomm's emulator of the HTP (no NPU)" if self.emulates else "the HTP of this device"

    def options(self, *, fallback: bool = False, **provider: str) -> Any:
        """Session options that give nodes to the HTP.

        Args:
            fallback: what it refuses goes to the CPU; else it is an error.
            provider: options of the provider, such as `soc_model`.
        """
        settings = ort.SessionOptions()
        settings.log_severity_level = _LOG_FATAL_ONLY
        if not fallback:
            settings.add_session_config_entry(*_NO_FALLBACK)
        settings.add_provider_for_devices(list(self._devices), {"backend_path": self._backend, **provider})
        return settings


def load_library() -> QnnLibrary:
    """Returns the library of this process, loaded on first use.

    Raises:
        MissingExtraError: the package is not installed.
        BundleError: it cannot be loaded here, or was loaded before a fork: its threads are not in the new process.
    """
    library, process = _load()
    if process != os.getpid():
        raise BundleError(
            "the QNN library cannot run in this process: the process that it was forked from had loaded it",
            hint="start processes with spawn or forkserver, or open the first session after the fork",
        )
    return library


@functools.cache
def _load() -> tuple[QnnLibrary, int]:
    try:
        package = importlib.import_module(_PACKAGE)
        info = importlib.import_module(f"{_PACKAGE}.build_and_package_info")
    except ImportError as error:
        raise MissingExtraError("onnxruntime-qnn", "qnn") from error
    try:
        ort.register_execution_provider_library(PROVIDER, package.get_library_path())
        devices = tuple(each for each in ort.get_ep_devices() if each.ep_name == PROVIDER)
    except Exception as error:
        raise BundleError(
            f"the QNN library cannot be loaded: {str(error).splitlines()[0]}",
            hint="it needs Linux x86-64 with glibc 2.35 or later, and an onnxruntime that its version goes with",
        ) from error
    if not devices:
        raise BundleError("the QNN library finds no HTP on this machine, expected one or its emulator")
    on_npu = any(each.device.type == ort.OrtHardwareDeviceType.NPU for each in devices)
    return QnnLibrary(str(info.qnn_version), not on_npu, devices, package.get_qnn_htp_path()), os.getpid()


@contextmanager
def stdout_is_stderr() -> Iterator[None]:
    """What the library prints to stdout, which has a command's answers, goes to stderr.

    It writes to the file descriptor, so this changes that of the process: for the moment in which a program is opened.
    """
    sys.stdout.flush()
    try:
        kept = os.dup(1)
    except OSError:  # closed
        yield
        return
    try:
        os.dup2(2, 1)
        yield
    finally:
        os.dup2(kept, 1)
        os.close(kept)
