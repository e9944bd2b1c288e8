"""Compile a graph ahead of time for Qualcomm's HTP, by ONNX Runtime's QNN provider.

ONNX Runtime writes a model of one EPContext node, and the context binary beside it. The CPU fallback is disabled: a
graph that the HTP does not take as a whole is an error that names the nodes.
"""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import onnx
import onnxruntime as ort

from bitfit_export.accelerators.qnn import PROVIDER, Chip, QnnLibrary, load_library, stdout_is_stderr
from bitfit_export.bundle.accelerator import AcceleratorRecord
from bitfit_export.errors import CompileError, first_line

__all__ = ["compile_for_htp"]

_RECORD_NODES = ("session.record_ep_graph_assignment_info", "1")
#: Of a model in one message.
_MOST_BYTES = 2_000_000_000
#: Nodes that a message names.
_NODES_SHOWN = 5


def compile_for_htp(source: Path, target: Path, chip: Chip, *, keep_source: bool = False) -> AcceleratorRecord:
    """Compile the model at `source`; writes `target` and its context binary, `<target's stem>_qnn.bin`.

    Args:
        keep_source: the record names the source, which stays in the bundle.

    Raises:
        CompileError: the HTP refuses nodes, which the message names, or the graph as a whole.
        MissingExtraError: the extra `[qnn]` is not installed.
        BundleError: the library cannot be loaded here.
    """
    library = load_library()
    binary = target.with_name(f"{target.stem}_qnn.bin")
    settings = _settings(library, chip)
    settings.add_session_config_entry("ep.context_enable", "1")
    settings.add_session_config_entry("ep.context_file_path", str(target.absolute()))
    model = _readable(source)
    with stdout_is_stderr():
        try:
            session = ort.InferenceSession(model, settings)
        except Exception as error:
            for path in (target, binary):  # written before it was found that nodes are left
                path.unlink(missing_ok=True)
            raise _refusal(library, model, chip, error) from error
    nodes = [node for name, node in _assigned(session) if name == PROVIDER]
    return AcceleratorRecord(
        binary=binary.name,
        sdk=library.sdk,
        soc=chip.name,
        soc_model=chip.model,
        arch=chip.arch,
        nodes=len(nodes),
        source=source.name if keep_source else None,
    )


def _readable(source: Path) -> bytes | str:
    """The model as ONNX Runtime may have it: as bytes, since it makes names in the binary of a model's path."""
    model = onnx.load(str(source))
    return str(source) if model.ByteSize() > _MOST_BYTES else bytes(model.SerializeToString())


def _settings(library: QnnLibrary, chip: Chip, *, fallback: bool = False) -> Any:
    settings = library.options(
        fallback=fallback, soc_model=str(chip.model), htp_arch=str(chip.arch), enable_htp_fp16_precision="1"
    )
    settings.add_session_config_entry(*_RECORD_NODES)
    return settings


def _assigned(session: Any) -> Iterator[tuple[str, Any]]:
    """Each node with the name of the provider that computes it."""
    for part in session.get_provider_graph_assignment_info():
        for node in part.get_nodes():
            yield part.ep_name, node


def _refusal(library: QnnLibrary, model: bytes | str, chip: Chip, error: Exception) -> CompileError:
    """What the HTP refuses: found by compiling once more, with a CPU that takes the rest."""
    try:
        session = ort.InferenceSession(model, _settings(library, chip, fallback=True))
        refused = [node for name, node in _assigned(session) if name != PROVIDER]
    except Exception:
        refused = []
    if not refused:
        return CompileError(f"the HTP {chip.arch} does not take the graph: {first_line(error)}")
    shown = ", ".join(f"{node.op_type} ({node.name})" for node in refused[:_NODES_SHOWN])
    more = f" and {len(refused) - _NODES_SHOWN} more" if len(refused) > _NODES_SHOWN else ""
    return CompileError(
        f"the HTP {chip.arch} refuses {len(refused)} nodes, expected none: {shown}{more}",
        hint="compile it with --target portable, for engines that take these operators",
    )
