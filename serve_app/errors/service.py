"""Errors of the service itself: a part of it does not work or is in full use now (503), or it cannot start."""

from typing import Self

from serve_app.errors.base import ServiceError


class UnavailableError(ServiceError):
    """A part of the service does not work, or is in full use, now; the same request may succeed later."""

    status = 503


class StoreUnavailable(UnavailableError):
    """The job store did not answer; nothing was written."""


class ServiceNotReady(UnavailableError):
    """Renders do not start now, because a part of the service is unavailable."""


class MetricsUnavailable(UnavailableError):
    """Ray's metrics agent on this node did not answer."""


class OutputStorageUnavailable(UnavailableError):
    """The output storage cannot be reached, read or changed; the same request may succeed later."""

    @classmethod
    def of(cls, verb: str, error: OSError) -> Self:
        """Return the error for an output that cannot be `verb` (read, removed) now."""
        reason = error.strerror or str(error)
        return cls(f"the output cannot be {verb} now: {reason}; try again later", {"reason": reason})


class LoraStorageUnavailable(UnavailableError):
    """The folder of the LoRAs cannot be reached, read or changed; the same request may succeed later."""

    @classmethod
    def of(cls, verb: str, error: OSError) -> Self:
        """Return the error for a folder that cannot be `verb` (read, written) now."""
        reason = error.strerror or type(error).__name__
        return cls(f"the folder of the LoRAs cannot be {verb} now: {reason}; try again later", {"reason": reason})


class DraftUnavailable(UnavailableError):
    """The few-step LoRAs that the arg `draft` names cannot be used; who runs the service has to look at it."""


class LoraSourceUnavailable(UnavailableError):
    """The server that a LoRA comes from did not deliver it, after retries; the same request may succeed later."""


class ImageSourceUnavailable(UnavailableError):
    """The server that a control image comes from did not deliver it, after retries; it may do so later."""


class TooManyListeners(UnavailableError):
    """The process has its largest number of open event streams."""


class TooManyFetches(UnavailableError):
    """The largest number of concurrent fetches is reached: in all, from one host, or for one sender."""


class TooManyBodies(UnavailableError):
    """Large request bodies use all of their memory."""


class ConfigurationInvalid(ServiceError):
    """The service cannot start with these args."""
