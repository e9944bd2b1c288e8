"""What can answer requests: a bundle, a baseline session for each task, PyTorch. Used by measured processes, too.

What one of them does not need is not imported for it.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, TypeAlias

from traffic import Batch, Ids, make_ids

__all__ = ["KINDS", "Serve", "Server", "open_server", "prepare_batches"]

#: Answers a batch: the task of each item, and the text inputs.
Serve: TypeAlias = Callable[[list[str], Ids], object]


@dataclass(frozen=True)
class Server:
    """What answers, as any process can open it.

    Attributes:
        kind: one of `KINDS`.
        paths: (task, path); a bundle and PyTorch have one path, for the task "".
        spin: as for `open_baseline`.
    """

    kind: str
    paths: tuple[tuple[str, str], ...]
    spin: bool = True


def open_server(server: Server, threads: int) -> Serve:
    """Open it on this number of threads."""
    return KINDS[server.kind](server, threads)


def prepare_batches(batches: Sequence[Batch], names: Sequence[str], vocabulary: int) -> list[tuple[list[str], Ids]]:
    """Returns what a `Serve` takes, for each batch; `names` and `vocabulary` are of the text inputs."""
    return [([request.task for request in batch], make_ids(batch, names, vocabulary)) for batch in batches]


def _open_bundle(server: Server, threads: int) -> Serve:
    from bitfit_export.runtime import BiasSession

    session = BiasSession(_only_path(server), threads=threads)
    return lambda tasks, ids: session.run(tasks, **ids)


def _open_baselines(server: Server, threads: int) -> Serve:
    from bitfit_export.baselines.timing import open_baseline

    sessions = {task: open_baseline(Path(path), threads, spin=server.spin) for task, path in server.paths}
    return lambda tasks, ids: sessions[tasks[0]].run(None, dict(ids))


def _open_torch(server: Server, threads: int) -> Serve:
    """One base model, whose bias terms become those of a batch's task, and a head for each task."""
    import torch

    torch.set_num_threads(threads)
    models: dict[str, tuple[Any, dict[str, torch.Tensor]]]
    models = torch.load(_only_path(server), weights_only=False, mmap=True)

    def serve(tasks: list[str], ids: Ids) -> object:
        model, biases = models[tasks[0]]
        with torch.inference_mode():
            for name, values in biases.items():
                model.base.get_parameter(name).copy_(values)
            return model(**{name: torch.from_numpy(values) for name, values in ids.items()})

    return serve


def _only_path(server: Server) -> str:
    ((_, path),) = server.paths
    return path


KINDS: dict[str, Callable[[Server, int], Serve]] = {
    "bundle": _open_bundle,
    "baselines": _open_baselines,
    "torch": _open_torch,
}
