"""The sizes of a tensor's dimensions: numbers, and the names that a traced graph has for the dynamic ones."""

from __future__ import annotations

__all__ = ["BATCH", "ROWS", "SAMPLES", "SEQUENCE", "Size"]

#: The size of a dimension: a number, a symbol such as `batch`, or unknown.
Size = int | str | None

BATCH = "batch"
SEQUENCE = "sequence"
#: The length of a sound.
SAMPLES = "samples"
#: 1 while every item of the batch has the same biases, else the batch: a tensor that depends on biases and on no input.
ROWS = "rows"
