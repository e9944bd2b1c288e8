"""What a dimension of a graph may be, and the names of the dynamic ones in a traced graph."""

from __future__ import annotations

__all__ = ["BATCH", "ROWS", "SAMPLES", "SEQUENCE", "Size"]

BATCH = "batch"
SEQUENCE = "sequence"
#: The length of a sound.
SAMPLES = "samples"
#: 1 while every row of the batch has the same biases, else the batch: a tensor that depends on biases and on no input.
ROWS = "rows"

#: The size of an axis: a number, a symbol such as `batch`, or unknown.
Size = int | str | None
