"""A task delta: what training makes, on disk and in memory; how much it changed, as numbers and as a figure."""

from bitfit_export.delta.task_delta import (
    ACTIVATIONS,
    CARD_FILE,
    CONFIG_FILE,
    DELTA,
    FORMAT_VERSION,
    POOLINGS,
    PROBLEM_TYPES,
    TENSOR_FILE,
    TOKEN_PROBLEMS,
    TOKENS,
    DeltaConfig,
    TaskDelta,
)

__all__ = [
    "ACTIVATIONS",
    "CARD_FILE",
    "CONFIG_FILE",
    "DELTA",
    "FORMAT_VERSION",
    "POOLINGS",
    "PROBLEM_TYPES",
    "TENSOR_FILE",
    "TOKENS",
    "TOKEN_PROBLEMS",
    "DeltaConfig",
    "TaskDelta",
]
