"""What Prometheus reads of a service."""

from __future__ import annotations

from prometheus_client import CollectorRegistry, Counter, Gauge, Histogram, Summary

from bitfit_export.serving.events import Observer
from bitfit_export.serving.service import Service

__all__ = ["Metrics", "watch_service"]


class Metrics(Observer):
    """Counts and times of one service, in a registry of its own.

    A name of a task becomes a label only once its row was in use, so that callers cannot fill the memory with names.
    """

    def __init__(self) -> None:
        self.registry = CollectorRegistry()
        self._texts = Counter("bitfit_texts", "Texts that were answered.", ["task"], registry=self.registry)
        self._seconds = Summary(
            "bitfit_task_request_seconds",
            "Seconds of a request, of its arrival to its answer.",
            ["task"],
            registry=self.registry,
        )
        self._requests = Histogram(
            "bitfit_request_seconds",
            "Seconds of a request, of its arrival to its answer, over all tasks.",
            registry=self.registry,
        )
        self._failures = Counter("bitfit_failures", "Requests without an answer.", ["status"], registry=self.registry)
        self._rows = Counter("bitfit_row_events", "What happened to rows.", ["event"], registry=self.registry)
        self._items = Histogram(
            "bitfit_batch_items", "Texts of a batch.", buckets=(1, 2, 4, 8, 16, 32, 64, 128), registry=self.registry
        )
        self._tokens = Counter("bitfit_tokens", "Tokens that were run, without padding.", registry=self.registry)
        self._batches = Histogram("bitfit_batch_seconds", "Seconds that a batch runs.", registry=self.registry)

    def row(self, event: str, task: str, reason: str) -> None:
        super().row(event, task, reason)
        self._rows.labels(event).inc()

    def batch(self, items: int, tokens: int, seconds: float) -> None:
        self._items.observe(items)
        self._tokens.inc(tokens)
        self._batches.observe(seconds)

    def answered(self, task: str, count: int, seconds: float) -> None:
        self._texts.labels(task).inc(count)
        self._seconds.labels(task).observe(seconds)
        self._requests.observe(seconds)

    def failed(self, status: int) -> None:
        self._failures.labels(str(status)).inc()


def watch_service(metrics: Metrics, service: Service) -> None:
    """Add what is read from the service itself whenever the metrics are."""
    gauges = {
        "bitfit_waiting_tokens": ("Tokens that wait for their turn.", lambda: service.batcher.waiting_tokens),
        "bitfit_rows_in_memory": ("Rows that are in memory.", lambda: service.rows.size),
        "bitfit_rows_limit": ("Rows that are in memory at most.", lambda: service.rows.limit),
    }
    for name, (words, value) in gauges.items():
        Gauge(name, words, registry=metrics.registry).set_function(value)
