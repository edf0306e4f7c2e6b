"""Errors of admission (429): the queue, or a limit of the sender, accepts no more now."""

from collections.abc import Mapping
from typing import Any

from serve_app.errors.base import ServiceError


class AdmissionError(ServiceError):
    """The queue accepts no more now; nothing was accepted.

    `retry_after_s` is when there will be room, in whole seconds; None if waiting does not help.
    """

    status = 429

    def __init__(self, message: str, details: Mapping[str, Any], *, retry_after_s: int | None) -> None:
        super().__init__(message, details)
        self.retry_after_s = retry_after_s


class QueueFull(AdmissionError):
    """The queue has its largest number of renders."""


class TenantQueueFull(AdmissionError):
    """The tenant has its largest number of queued renders."""


class WaitTooLong(AdmissionError):
    """The render would wait longer than the limit."""


class TooManyOwnListeners(AdmissionError):
    """The sender has its largest number of open event streams."""


class GpuTimeExhausted(AdmissionError):
    """The tenant has used or reserved (by queued renders) all of its GPU seconds of the day."""


class RateExceeded(AdmissionError):
    """The tenant exceeds its rate limit. `headers` have the limit."""

    def __init__(
        self,
        message: str,
        details: Mapping[str, Any],
        *,
        retry_after_s: int | None,
        headers: Mapping[str, str] | None = None,
    ) -> None:
        super().__init__(message, details, retry_after_s=retry_after_s)
        self.headers = dict(headers or {})
