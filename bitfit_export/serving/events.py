"""What a service tells of its work: counts and times for Prometheus, and a line of JSON for each event on a log."""

from __future__ import annotations

import json
import logging
import sys
import time
from typing import Any

__all__ = ["LOGGER", "JsonLines", "Observer", "log_to_stderr"]

#: Everything that a service logs. No text of a request is ever in it.
LOGGER = logging.getLogger("bitfit.serve")


class Observer:
    """Is told of rows, batches and requests; this one only logs what an operator must know."""

    def row(self, event: str, task: str, reason: str) -> None:
        """A row was `loaded`, `missed`, `dropped`, `unloaded` or `refused`."""
        level = {"refused": logging.WARNING, "loaded": logging.INFO, "unloaded": logging.INFO}.get(event, logging.DEBUG)
        LOGGER.log(level, "row %s", event, extra={"fields": {"task": task, "reason": reason}})

    def batch(self, items: int, tokens: int, seconds: float) -> None:
        """A batch was run: its items, its tokens without padding."""

    def answered(self, task: str, count: int, seconds: float) -> None:
        """A request was answered, which had this many texts for the task."""

    def failed(self, status: int) -> None:
        """A request was refused or failed, with this status of HTTP."""


class JsonLines(logging.Formatter):
    """A record as one line of JSON: time, level, event and the record's own `fields`."""

    def format(self, record: logging.LogRecord) -> str:
        fields: dict[str, Any] = {
            "time": time.strftime("%Y-%m-%dT%H:%M:%S", time.gmtime(record.created)) + f".{int(record.msecs):03d}Z",
            "level": record.levelname.lower(),
            "event": record.getMessage(),
            **getattr(record, "fields", {}),
        }
        if record.exc_info:
            fields["error"] = self.formatException(record.exc_info)
        return json.dumps(fields, ensure_ascii=False)


def log_to_stderr(*others: str) -> None:
    """Send what the service logs to stderr, a line of JSON for each event.

    Args:
        others: names of more loggers that are to do so.
    """
    handler = logging.StreamHandler(sys.stderr)
    handler.setFormatter(JsonLines())
    for logger in (LOGGER, *map(logging.getLogger, others)):
        logger.handlers = [handler]
        logger.setLevel(logging.INFO)
        logger.propagate = False
