"""A Ray cluster: how trials, a service and a run over a large file reach one. Needs the `[ray]` extra."""

from bitfit_export.cluster.connection import connected

__all__ = ["connected"]
