"""Errors: one exception hierarchy, with the code and the HTTP status of each error.

    ServiceError
    ├── RequestError            the request is wrong; nothing was accepted (400)
    │   ├── ModelNotFound
    │   ├── LoraFileRequired
    │   ├── MoeFormatRequired
    │   ├── SingleMoeConfigOnly
    │   ├── MoeFormatNotSupported
    │   ├── SingleLoraOnly
    │   ├── LoraNotFound
    │   ├── LoraPathRefused
    │   ├── LoraInvalid
    │   ├── ControlImageRequired
    │   ├── ControlImageNotSupported
    │   ├── SingleControlImageOnly
    │   ├── ControlImageNotFound
    │   ├── ControlImageRefused
    │   ├── ControlImageInvalid
    │   ├── SpeedNotAllowed
    │   ├── DraftNotServed
    │   ├── DraftFieldRefused
    │   ├── RenderTooLarge
    │   ├── PromptFlagRefused
    │   ├── PromptTooLong
    │   ├── HeaderInvalid
    │   ├── CursorInvalid
    │   ├── WebhookRefused
    │   ├── VideoFieldRefused
    │   ├── FormInvalid
    │   └── BodyDamaged
    ├── AuthenticationError     who sends the request is not known (401)
    │   ├── KeyRequired
    │   └── KeyInvalid
    ├── ForbiddenError          the sender may not do that (403)
    │   ├── UploadsOff
    │   ├── ScopeRequired
    │   └── LinkInvalid
    ├── NotFoundError           the thing named in the URL does not exist (404)
    │   ├── PathNotFound
    │   ├── RequestNotFound
    │   └── OutputNotFound
    ├── MethodNotAllowed        the path has no such method (405)
    ├── ConflictError           the request conflicts with something that exists (409)
    │   ├── IdempotencyConflict
    │   ├── LoraExists
    │   └── RequestNotEnded
    ├── BodyTooSlow             the request's body did not arrive in time (408)
    ├── BodyTooLarge            the request's body is longer than the limit (413)
    ├── UnsupportedBody         the request's body has an unsupported format (415)
    │   ├── MediaTypeNotSupported
    │   └── EncodingNotSupported
    ├── RangeNotSatisfiable     the range lies beyond the end of the file (416)
    ├── AdmissionError          the queue accepts no more now (429)
    │   ├── QueueFull
    │   ├── TenantQueueFull
    │   ├── WaitTooLong
    │   └── TooManyOwnListeners
    │   ├── GpuTimeExhausted
    │   └── RateExceeded
    ├── OutputGone              the video of a finished render is not what was stored (410)
    ├── StoreUnavailable        the job store cannot be reached (503)
    ├── OutputStorageUnavailable  the output storage cannot be used (503)
    ├── LoraStorageUnavailable  the folder of the LoRAs cannot be read or written (503)
    ├── DraftUnavailable        the server's own few-step LoRAs cannot be used (503)
    ├── LoraSourceUnavailable   the server that a LoRA comes from does not deliver it (503)
    ├── ImageSourceUnavailable  the server that a control image comes from does not deliver it (503)
    ├── ServiceNotReady         renders do not start now; only in answers of probes (503)
    ├── MetricsUnavailable      Ray's agent on this node does not answer (503)
    ├── TooManyListeners        the process has its largest number of event streams (503)
    ├── TooManyFetches          the largest number of concurrent fetches is reached (503)
    ├── TooManyBodies           large bodies use all of their memory (503)
    ├── RenderError             an accepted render ended without a video; stored with it, never raised over HTTP
    │   ├── RenderFailed
    │   ├── LoraNotFetched
    │   ├── LoraChanged
    │   ├── LoraNotLoaded
    │   ├── ControlImageLost
    │   ├── OutOfMemory
    │   ├── DeadlineExceeded
    │   ├── AttemptsExhausted
    │   └── OutputNotWritten
    ├── ClientError             raised by the Python client (`serve_app.client`) only
    │   ├── ServerUnreachable
    │   ├── AnswerNotUnderstood
    │   ├── FieldsInvalid       answer 422: fields that do not fit their schema
    │   ├── RefusedOtherwise    an error whose code this version does not know
    │   ├── RequestCanceled
    │   ├── WaitedTooLong
    │   └── DownloadDamaged
    └── ConfigurationInvalid    the service cannot start with these args

Each class carries its HTTP `status` and its `code`, which programs read and which is made from the class's name:

    >>> LoraNotFound.code, LoraNotFound.status
    ('LORA_NOT_FOUND', 400)

Each instance carries a message that says what to do, and `details` with the names and values that caused it. Codes are
part of the HTTP API, so renaming a class changes the API. MODEL_NOT_FOUND, LORA_FILE_REQUIRED, MOE_FORMAT_REQUIRED,
SINGLE_MOE_CONFIG_ONLY, MOE_FORMAT_NOT_SUPPORTED, SINGLE_LORA_ONLY, LORA_NOT_FOUND, CONTROL_IMAGE_REQUIRED and
REQUEST_NOT_FOUND are the reference server's.
"""

import re
from collections.abc import Mapping
from typing import Any, ClassVar, Self

from serve_app.echo import MESSAGE_LENGTH, bounded, cut

_WORD_START = re.compile(r"(?<!^)(?=[A-Z])")


class ServiceError(Exception):
    """Base of the hierarchy. `details` must be JSON-serialisable."""

    code: ClassVar[str]
    status: ClassVar[int] = 500

    def __init_subclass__(cls) -> None:
        super().__init_subclass__()
        cls.code = _WORD_START.sub("_", cls.__name__).upper()

    def __init__(self, message: str, details: Mapping[str, Any] | None = None) -> None:
        # Both go into args, so that the error survives pickling between processes.
        super().__init__(message, dict(details or {}))

    @property
    def message(self) -> str:
        """Return what went wrong and what to do about it."""
        return str(self.args[0])

    @property
    def details(self) -> dict[str, Any]:
        """Return the names and values that caused it."""
        return dict(self.args[1])

    def body(self) -> dict[str, Any]:
        """Return the error in the reference server's form, for the key `detail`; long texts and lists are cut."""
        message = cut(self.message, MESSAGE_LENGTH)
        return {"error": {"code": self.code, "message": message, "details": bounded(self.details)}}

    def __str__(self) -> str:
        return self.message


class RequestError(ServiceError):
    """The request cannot be accepted; the client must change it."""

    status = 400


class ModelNotFound(RequestError):
    """The service does not run this model."""


class LoraFileRequired(RequestError):
    """`loras` is empty."""


class MoeFormatRequired(RequestError):
    """A LoRA does not say which expert (`transformer`: low or high) it is for."""


class SingleMoeConfigOnly(RequestError):
    """More than one LoRA for one expert."""


class MoeFormatNotSupported(RequestError):
    """A LoRA says which expert it is for, and the model has only one."""


class SingleLoraOnly(RequestError):
    """More than one LoRA for a model with one expert."""


class LoraNotFound(RequestError):
    """No file at that path inside `lora_root`."""


class LoraPathRefused(RequestError):
    """The path leads out of `lora_root`, or is of a kind this service does not read."""


class LoraInvalid(RequestError):
    """The file is not a LoRA that would be applied completely to this model."""


class ControlImageRequired(RequestError):
    """A prompt has no control image, and the model requires one."""


class ControlImageNotSupported(RequestError):
    """A control image, or `fit`, was sent for a model that takes no image."""


class SingleControlImageOnly(RequestError):
    """A prompt has several control images, and the model takes one."""


class ControlImageNotFound(RequestError):
    """No image at that path inside `image_root`, or at that address."""


class ControlImageRefused(RequestError):
    """The service does not read images from that path or address."""


class ControlImageInvalid(RequestError):
    """The bytes are no image of an accepted format, are damaged, or exceed a limit."""


class SpeedNotAllowed(RequestError):
    """The request names a speed profile that this server does not allow."""


class DraftNotServed(RequestError):
    """The request asks for a draft, and the server has no few-step LoRAs for the model."""


class DraftFieldRefused(RequestError):
    """A prompt sets a field that a draft does not support."""


class RenderTooLarge(RequestError):
    """A render has more pixels, frames or steps than its tenant may use."""


class PromptFlagRefused(RequestError):
    """A flag at the end of a trainer's sample prompt is unknown, wrong, or contradicts a field."""


class PromptTooLong(RequestError):
    """A prompt with its trigger word is longer than the limit."""


class HeaderInvalid(RequestError):
    """A header has an invalid value."""


class CursorInvalid(RequestError):
    """The query parameter `after` is not a value that a list returned as `next`."""


class WebhookRefused(RequestError):
    """The service may not send webhooks to this address, or sends none at all."""


class VideoFieldRefused(RequestError):
    """A field of OpenAI's Videos API has a value without meaning here, or contradicts another field."""


class FormInvalid(RequestError):
    """A multipart form has unknown fields, or fields that contradict each other."""


class BodyDamaged(RequestError):
    """The body ended too early, or is compressed and cannot be decompressed."""


class AuthenticationError(ServiceError):
    """The sender of the request is unknown; nothing was done."""

    status = 401


class KeyRequired(AuthenticationError):
    """The request has no API key."""


class KeyInvalid(AuthenticationError):
    """The API key is unknown, revoked or expired."""


class ForbiddenError(ServiceError):
    """The sender is known, but not allowed to do this."""

    status = 403


class UploadsOff(ForbiddenError):
    """The service accepts no uploads."""


class ScopeRequired(ForbiddenError):
    """The API key lacks a scope."""


class LinkInvalid(ForbiddenError):
    """The signature of a link is wrong, or the link has expired."""


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


class ConflictError(ServiceError):
    """The request conflicts with something that exists."""

    status = 409


class LoraExists(ConflictError):
    """Another LoRA file has the name of the uploaded one."""


class IdempotencyConflict(ConflictError):
    """The idempotency key was used before, with another body."""


class RequestNotEnded(ConflictError):
    """The request cannot be deleted, because a render has not ended."""


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


class StoreUnavailable(ServiceError):
    """The job store did not answer; nothing was written."""

    status = 503


class ServiceNotReady(ServiceError):
    """Renders do not start now, because a part of the service is unavailable."""

    status = 503


class MetricsUnavailable(ServiceError):
    """Ray's metrics agent on this node did not answer."""

    status = 503


class OutputGone(ServiceError):
    """The stored file of a finished video is not that video any more: damaged, overwritten, or no regular file."""

    status = 410


class OutputStorageUnavailable(ServiceError):
    """The output storage cannot be reached, read or changed; the same request may succeed later."""

    status = 503

    @classmethod
    def of(cls, verb: str, error: OSError) -> Self:
        """Return the error for an output that cannot be `verb` (read, removed) now."""
        reason = error.strerror or str(error)
        return cls(f"the output cannot be {verb} now: {reason}; try again later", {"reason": reason})


class LoraStorageUnavailable(ServiceError):
    """The folder of the LoRAs cannot be reached, read or changed; the same request may succeed later."""

    status = 503

    @classmethod
    def of(cls, verb: str, error: OSError) -> Self:
        """Return the error for a folder that cannot be `verb` (read, written) now."""
        reason = error.strerror or type(error).__name__
        return cls(f"the folder of the LoRAs cannot be {verb} now: {reason}; try again later", {"reason": reason})


class DraftUnavailable(ServiceError):
    """The few-step LoRAs that the arg `draft` names cannot be used; who runs the service has to look at it."""

    status = 503


class LoraSourceUnavailable(ServiceError):
    """The server that a LoRA comes from did not deliver it, after retries; the same request may succeed later."""

    status = 503


class ImageSourceUnavailable(ServiceError):
    """The server that a control image comes from did not deliver it, after retries; it may do so later."""

    status = 503


class TooManyListeners(ServiceError):
    """The process has its largest number of open event streams."""

    status = 503


class TooManyFetches(ServiceError):
    """The largest number of concurrent fetches is reached: in all, from one host, or for one sender."""

    status = 503


class TooManyBodies(ServiceError):
    """Large request bodies use all of their memory."""

    status = 503


class RenderError(ServiceError):
    """An accepted render ended without a video."""


class RenderFailed(RenderError):
    """The pipeline raised an error that has no class of its own."""


class LoraNotFetched(RenderError):
    """A LoRA could not be downloaded for its render, or was damaged after the download."""


class LoraChanged(RenderError):
    """A LoRA file was replaced or removed after the request was accepted."""


class LoraNotLoaded(RenderError):
    """The pipeline could not apply every weight of a LoRA that had passed inspection."""


class ControlImageLost(RenderError):
    """The control image that was stored with the request is missing or has changed."""


class OutOfMemory(RenderError):
    """The device ran out of memory, on a GPU also in one retry under the next leaner offload plan, if there is one."""


class DeadlineExceeded(RenderError):
    """The render took longer than `render_timeout_s`."""


class AttemptsExhausted(RenderError):
    """The render was lost with its replica `max_attempts` times."""


class OutputNotWritten(RenderError):
    """The video could not be encoded or stored."""


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


class ConfigurationInvalid(ServiceError):
    """The service cannot start with these args."""
