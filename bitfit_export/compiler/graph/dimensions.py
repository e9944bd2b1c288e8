"""The sizes of a tensor's dimensions: numbers, and the names that a traced graph has for the dynamic ones."""

from __future__ import annotations

__all__ = ["BATCH", "ROWS", "SAMPLES", "SEQUENCE", "TASK_BATCH", "TOKENS", "Size"]

#: The size of a dimension: a number, a symbol such as `batch`, or unknown.
Size = int | str | None

BATCH = "batch"
SEQUENCE = "sequence"
#: The length of a sound.
SAMPLES = "samples"
#: 1 while every item of the batch has the same biases, else the batch: a tensor that depends on biases and on no input.
ROWS = "rows"
#: The size of `task_ids`: 1 or the batch.
TASK_BATCH = "task_batch"
#: The number of tokens that the mask keeps, in all texts of the batch.
TOKENS = "tokens"
