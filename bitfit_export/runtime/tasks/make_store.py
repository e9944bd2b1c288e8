"""The store of loaded tasks that a bundle's layout needs."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from bitfit_export.bundle import Manifest, TaskRecord
from bitfit_export.runtime.tasks.bias_table import BiasTable
from bitfit_export.runtime.tasks.one_at_a_time import RowFeeds
from bitfit_export.runtime.tasks.task_store import Bind, TaskStore

__all__ = ["make_store"]


def make_store(manifest: Manifest, records: Sequence[TaskRecord], bind: Bind, *, labels: int | None) -> TaskStore[Any]:
    """Returns an empty store, with room for these tasks.

    Args:
        bind: of the program that reads the rows.
        labels: the number of labels of the program's head inputs, where it is fixed.
    """
    if manifest.layout_kind != "table":
        scales = manifest.quantization.bias_scales
        return RowFeeds(manifest.layout, manifest.layout_kind, bind, labels=labels, bias_scales=scales)
    most = max((record.label_count for record in records), default=1)
    # One slot more than tasks: a row is replaced by writing the new one elsewhere.
    return BiasTable(manifest.layout, bind, rows=len(records) + 1, labels=most)
