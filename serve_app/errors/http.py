"""Errors that HTTP has a status of their own for: what the URL names, the method, the range, the form of the body.

REQUEST_NOT_FOUND is the reference server's.
"""

from serve_app.errors.base import ServiceError


class NotFoundError(ServiceError):
    """The thing named in the URL does not exist."""

    status = 404


class PathNotFound(NotFoundError):
    """The service has nothing at that path."""


class RequestNotFound(NotFoundError):
    """No request with that id."""


class OutputNotFound(NotFoundError):
    """The request has no output at that index (yet)."""


class MethodNotAllowed(ServiceError):
    """The path exists, but does not support the method; the header Allow lists its methods."""

    status = 405


class BodyTooSlow(ServiceError):
    """The request's body did not arrive in time."""

    status = 408


class ConflictError(ServiceError):
    """The request conflicts with something that exists."""

    status = 409


class LoraExists(ConflictError):
    """Another LoRA file has the name of the uploaded one."""


class IdempotencyConflict(ConflictError):
    """The idempotency key was used before, with another body."""


class RequestNotEnded(ConflictError):
    """The request cannot be deleted, because a render has not ended."""


class OutputGone(ServiceError):
    """The stored file of a finished video is not that video any more: damaged, overwritten, or no regular file."""

    status = 410


class BodyTooLarge(ServiceError):
    """The body, as sent or after decompression, is longer than the limit; nothing beyond the limit was read."""

    status = 413


class UnsupportedBody(ServiceError):
    """The body has a format that the service does not support."""

    status = 415


class MediaTypeNotSupported(UnsupportedBody):
    """The Content-Type is not JSON's."""


class EncodingNotSupported(UnsupportedBody):
    """The body is not UTF-8, or is compressed in another way than with gzip."""


class RangeNotSatisfiable(ServiceError):
    """The range lies beyond the end of the file."""

    status = 416
