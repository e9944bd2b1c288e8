"""What Ray's own metrics say of a service: the same counts and times as `/metrics` has, and of which replica."""

from __future__ import annotations

from ray.util import metrics

from bitfit_export.serving.events import Observer

__all__ = ["RayMetrics"]

_SECONDS = [0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1, 2.5, 5, 10]


class RayMetrics(Observer):
    """Counts and times of one replica. Prometheus reads those of a machine from Ray, which adds names of its own.

    Args:
        replica: its name.
    """

    def __init__(self, replica: str) -> None:
        self._texts = metrics.Counter("bitfit_texts", "Texts that were answered.", ("task", "replica"))
        self._requests = metrics.Histogram(
            "bitfit_request_seconds", "Seconds of a request, of its arrival to its answer.", _SECONDS, ("replica",)
        )
        self._failures = metrics.Counter("bitfit_failures", "Requests without an answer.", ("status", "replica"))
        self._rows = metrics.Counter("bitfit_row_events", "What happened to rows.", ("event", "replica"))
        self._tokens = metrics.Counter("bitfit_tokens", "Tokens that were run, without padding.", ("replica",))
        self._items = metrics.Histogram("bitfit_batch_items", "Texts of a batch.", [1, 2, 4, 8, 16, 32], ("replica",))
        for each in (self._texts, self._requests, self._failures, self._rows, self._tokens, self._items):
            each.set_default_tags({"replica": replica})

    def row(self, event: str, task: str, reason: str) -> None:
        super().row(event, task, reason)
        self._rows.inc(tags={"event": event})

    def batch(self, items: int, tokens: int, seconds: float) -> None:
        self._items.observe(items)
        if tokens:
            self._tokens.inc(tokens)

    def answered(self, task: str, count: int, seconds: float) -> None:
        self._texts.inc(count, tags={"task": task})
        self._requests.observe(seconds)

    def failed(self, status: int) -> None:
        self._failures.inc(tags={"status": str(status)})
