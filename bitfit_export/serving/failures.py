"""What a service refuses, each with the HTTP status that says so."""

from __future__ import annotations

from bitfit_export.errors import BitfitError

__all__ = [
    "BusyServiceError",
    "ClientGoneError",
    "ClosedServiceError",
    "FailedBatchError",
    "RefusedRowError",
    "ServiceError",
    "TimedOutError",
    "TooLargeError",
    "UnknownTaskError",
]


class ServiceError(BitfitError):
    """A request that the service does not answer.

    Attributes:
        status: of HTTP.
        retry_after: seconds after which it may, where waiting helps.
    """

    status = 400
    retry_after: int | None = None


class UnknownTaskError(ServiceError):
    """A task that the service does not have."""

    status = 404


class TooLargeError(ServiceError):
    """A request beyond a limit of its own size."""

    status = 413


class RefusedRowError(ServiceError):
    """A row that is there and cannot be used."""

    status = 422


class BusyServiceError(ServiceError):
    """The queue or the memory for rows is full."""

    status = 429

    def __init__(self, message: str, *, retry_after: int, hint: str | None = None) -> None:
        super().__init__(message, hint=hint)
        self.retry_after = retry_after


class ClientGoneError(ServiceError):
    """A client that has closed its connection; only the log and the metrics see the status."""

    status = 499


class FailedBatchError(ServiceError):
    """A fault of the service's own while it ran a batch."""

    status = 500


class ClosedServiceError(ServiceError):
    """The service is ending, or has failed."""

    status = 503


class TimedOutError(ServiceError):
    """No answer within the time that a request may take."""

    status = 504
