"""Errors that only the Python client (`serve_app.client`) raises, because no answer of the service has them."""

from serve_app.errors.base import ServiceError


class ClientError(ServiceError):
    """Base of the errors that only the Python client raises, because no answer of the service has them."""


class ServerUnreachable(ClientError):
    """The server does not answer, or the connection broke, after all retries."""


class AnswerNotUnderstood(ClientError):
    """The answer is not one of this API: it is from another service, a proxy, or another version."""


class FieldsInvalid(ClientError):
    """Fields do not fit their schema; `details` has a `problems` list of {field, message}."""

    status = 422


class RefusedOtherwise(ClientError):
    """The service answered with an error code that this version does not know; `details` has it."""


class RequestCanceled(ClientError):
    """The request was canceled, so it has no result to wait for."""


class WaitedTooLong(ClientError):
    """The request has not ended within the caller's timeout; it continues."""


class DownloadDamaged(ClientError):
    """The downloaded file differs from the service's in its SHA-256 or size."""
