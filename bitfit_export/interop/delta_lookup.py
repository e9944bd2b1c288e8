"""The lookup of a task's delta: from `--tasks rte` to a folder.

`rte` is looked for in `--deltas`, then in `./deltas/<model>/`, then among the deltas that the package ships.
`NAME=PATH` names a folder outright: a delta's, a fine-tuned checkpoint's, or a PEFT adapter's. `hub:ORG/NAME` and
`NAME=hub:ORG/NAME` fetch a delta from the Hugging Face Hub.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from bitfit_export.base_model.source import model_argument
from bitfit_export.bundle import TASK_NAME
from bitfit_export.delta import CONFIG_FILE, TaskDelta
from bitfit_export.errors import UsageError
from bitfit_export.interop.hub import PREFIX, pull_delta

if TYPE_CHECKING:
    from bitfit_export.base_model.loading import BaseModel

__all__ = ["SHIPPED", "default_output", "find_deltas", "load_deltas", "locate_deltas"]

SHIPPED = Path(__file__).parents[1] / "deltas"


def default_output(model: str, task: str) -> Path:
    """Returns the folder where bitfit-train writes a delta by default and bitfit-export looks for it."""
    return Path("deltas") / model / task


def find_deltas(model: str, tasks: Sequence[str], folder: Path | None = None) -> dict[str, Path]:
    """Task name -> the folder of its delta, or of what can be read as one.

    Args, Raises: as `locate_deltas`; a task whose delta is nowhere is a UsageError too.
    """
    found = {}
    for name, place in locate_deltas(model, tasks, folder).items():
        if place is None:
            shown = ", ".join(str(each.parent) for each in _places(model, name, folder)[:-1])
            base = model_argument(model)
            raise UsageError(
                f"no delta for the task {name} on {base}: looked in {shown}, and among those that the package ships",
                hint=f"train it: bitfit-train --model {base} --task {name}; bitfit-export --train-missing trains all",
            )
        found[name] = place
    return found


def locate_deltas(model: str, tasks: Sequence[str], folder: Path | None = None) -> dict[str, Path | None]:
    """Task name -> the folder of its delta, or of what can be read as one; None where there is none.

    Args:
        model: the base model's short name.
        tasks: each one is `NAME`, `NAME=PATH`, `hub:ORG/NAME` or `NAME=hub:ORG/NAME`.
        folder: what `--deltas` named: it holds `<task>/` or `<model>/<task>/`.

    Raises:
        UsageError: no task, a name twice, a name that cannot be one, or a named folder that holds no delta.
        HubError: a delta that cannot be loaded from the Hub.
        DeltaError: a repository on the Hub that holds no whole delta.
    """
    found: dict[str, Path | None] = {}
    for word in tasks:
        name, equals, path = _from_hub(word) if f"={PREFIX}" in f"={word}" else word.partition("=")
        if not TASK_NAME.fullmatch(name):
            raise UsageError(
                f"{name!r} cannot be a task's name", hint="use letters, digits, '.', '_' and '-', at most 63 of them"
            )
        if name in found:
            raise UsageError(f"the task {name} is named twice in --tasks {','.join(tasks)}")
        if equals and not _is_task(Path(path)):
            raise UsageError(
                f"{path} holds no delta: it has no {CONFIG_FILE}",
                hint="bitfit-train writes one; a fine-tuned checkpoint or a PEFT adapter of biases will do, too",
            )
        found[name] = Path(path) if equals else _search(model, name, folder)
    if not found:
        raise UsageError("--tasks names no task", hint="pass --tasks rte,sst2")
    return found


def load_deltas(
    folders: Mapping[str, Path], base: BaseModel | None = None, *, say: Callable[[str], None] | None = None
) -> dict[str, TaskDelta]:
    """Load what `find_deltas` found.

    Args:
        base: the base model, with which checkpoints and adapters are compared; deltas alone need none.
        say: is given a line about each choice that a checkpoint or an adapter left open.

    Raises:
        DeltaError: a folder that is not a complete delta, or in which more than bias terms and a head changed.
        UsageError: a checkpoint or an adapter, and no base model.
    """
    return {name: _load(name, folder, base, say) for name, folder in folders.items()}


def _load(task: str, folder: Path, base: BaseModel | None, say: Callable[[str], None] | None) -> TaskDelta:
    if (folder / CONFIG_FILE).is_file():
        return TaskDelta.load(folder)
    if base is None:
        raise UsageError(
            f"{folder} is a checkpoint or an adapter, expected a delta",
            hint=f"make it one: bitfit diff BASE {folder} --task {task} --output deltas/{task}",
        )
    from bitfit_export.interop.importing import import_task

    return import_task(base, folder, task, say=say)


def _is_task(folder: Path) -> bool:
    # What a checkpoint is lives beside torch; a missing folder is told without it.
    if (folder / CONFIG_FILE).is_file():
        return True
    if not folder.is_dir():
        return False
    from bitfit_export.interop.reading import is_checkpoint

    return is_checkpoint(folder)


def _from_hub(word: str) -> tuple[str, str, str]:
    """(name, "=", folder) of `hub:ORG/NAME`, named as in training, or `NAME=hub:ORG/NAME`."""
    name, _, address = word.partition(PREFIX)
    folder = pull_delta(address)
    return name.removesuffix("=") or TaskDelta.load(folder).config.task, "=", str(folder)


def _search(model: str, task: str, folder: Path | None) -> Path | None:
    return next((place for place in _places(model, task, folder) if (place / CONFIG_FILE).is_file()), None)


def _places(model: str, task: str, folder: Path | None) -> list[Path]:
    """Where a delta may be; what the package ships comes last."""
    places = [default_output(model, task), SHIPPED / model / task]
    return places if folder is None else [folder / model / task, folder / task, *places]
