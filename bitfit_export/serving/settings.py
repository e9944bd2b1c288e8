"""What a service is told when it starts, in the units of the options of `bitfit serve`."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

from bitfit_export.errors import UsageError
from bitfit_export.runtime.arguments import check_positive
from bitfit_export.serving.batcher import BatchLimits

__all__ = ["Settings"]

_COUNTS = ("memory", "max_labels", "batch_size", "batch_tokens", "queue_tokens", "max_texts", "max_body")


@dataclass(frozen=True, kw_only=True)
class Settings:
    """Rows, callers and limits of a service.

    Attributes:
        tasks_dir: a folder of rows, which may change.
        tokens: a file that says who may ask and manage.
        memory: for rows, in MiB, at most.
        max_labels: labels of a row of the folder.
        batch_size: texts to run at once.
        batch_tokens: tokens to run at once, with padding.
        queue_tokens: tokens that may wait.
        max_texts: texts of a request.
        max_body: size of a request in KiB.
        wait: milliseconds that a text waits for company.
        timeout: seconds for a request.

    Raises:
        UsageError: a limit that cannot be used.
    """

    tasks_dir: Path | None = None
    tokens: Path | None = None
    memory: int = 1024
    max_labels: int = 8
    batch_size: int = 32
    batch_tokens: int = 512
    queue_tokens: int = 65_536
    max_texts: int = 1024
    max_body: int = 1024
    wait: float = 2.0
    timeout: float = 30.0

    def __post_init__(self) -> None:
        for name in _COUNTS:
            check_positive(f"--{name.replace('_', '-')}", getattr(self, name))
        if not self.wait >= 0 or not self.timeout > 0:
            raise UsageError("--wait is expected to be 0 or more, and --timeout more than 0")

    @property
    def limits(self) -> BatchLimits:
        """The limits of a batch and of the queue."""
        return BatchLimits(
            batch_size=self.batch_size,
            batch_tokens=self.batch_tokens,
            wait=self.wait / 1000,
            queue_tokens=self.queue_tokens,
            timeout=self.timeout,
        )
