"""The names of the dynamic dimensions in a traced graph."""

from __future__ import annotations

__all__ = ["BATCH", "ROWS", "SAMPLES", "SEQUENCE"]

BATCH = "batch"
SEQUENCE = "sequence"
#: The length of a sound.
SAMPLES = "samples"
#: 1 while every row of the batch has the same biases, else the batch: a tensor that depends on biases and on no input.
ROWS = "rows"
