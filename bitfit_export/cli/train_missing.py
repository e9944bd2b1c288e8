"""`--train-missing` of bitfit-export: train the tasks that have no delta yet, with the defaults of bitfit-train."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

from bitfit_export.base_model.loading import BaseModel
from bitfit_export.cli.streams import say
from bitfit_export.cli.train import train_delta
from bitfit_export.files import check_output
from bitfit_export.interop.delta_lookup import default_output
from bitfit_export.training import TrainingSettings, load_task_data

__all__ = ["train_missing"]


def train_missing(base: BaseModel, tasks: Sequence[str], data_folder: Path | None) -> dict[str, Path]:
    """Train each task. Returns the folder of its delta, where bitfit-train puts it.

    A task that is trained has its delta at once, so that after an interruption the same command goes on from there,
    and within a task from its last checkpoint.

    Args:
        data_folder: as `--data` of bitfit-train; None for GLUE tasks, whose data then comes from the Hub.

    Raises:
        DataError, UsageError: data that cannot be used, or a task that has none.
        OutputError: a folder that is in the way of a delta.
    """
    settings = TrainingSettings()
    settings = replace(settings, max_length=min(settings.max_length, base.max_positions))
    outputs = {task: default_output(base.source.short_name, task) for task in tasks}
    for output in outputs.values():
        check_output(output, inputs=[base.source.location, data_folder])
    # All of it before the first training, which may take hours.
    data = {task: load_task_data(task, data=data_folder) for task in tasks}
    for number, (task, output) in enumerate(outputs.items(), start=1):
        say(f"training {number} of {len(tasks)}: {task}, with {len(data[task].train):,} examples")
        train_delta(base, data[task], settings, output)
    return outputs
