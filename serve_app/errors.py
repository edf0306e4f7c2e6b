"""Every error that a client or an operator can meet, in one tree.

    ServiceError
    ├── RequestError            the request is wrong; nothing was accepted (400)
    │   ├── ModelNotFound
    │   ├── LoraFileRequired
    │   ├── MoeFormatRequired
    │   ├── SingleMoeConfigOnly
    │   ├── LoraNotFound
    │   ├── LoraPathRefused
    │   ├── LoraInvalid
    │   ├── ControlImageNotSupported
    │   └── HeaderInvalid
    ├── NotFoundError           the thing named in the URL does not exist (404)
    │   ├── RequestNotFound
    │   └── OutputNotFound
    ├── ConflictError           the request stands against something that exists (409)
    │   ├── IdempotencyConflict
    │   └── RequestNotEnded
    ├── AdmissionError          the queue takes no more just now (429)
    │   ├── QueueFull
    │   ├── TenantQueueFull
    │   └── WaitTooLong
    ├── StoreUnavailable        the job store cannot be reached (503)
    ├── LoraSourceUnavailable   the server that a LoRA comes from does not deliver it (503)
    ├── RenderError             an accepted render ended without a video; stored with it, never raised over HTTP
    │   ├── RenderFailed
    │   ├── LoraNotFetched
    │   ├── LoraChanged
    │   ├── LoraNotLoaded
    │   ├── OutOfMemory
    │   ├── DeadlineExceeded
    │   ├── AttemptsExhausted
    │   └── OutputNotWritten
    └── ConfigurationError      the service cannot start with these args

Each class carries its `code` (what a program reads) and its HTTP `status`; each instance carries a message that
says what to do, and `details` for the offending names.
"""

from collections.abc import Mapping
from enum import StrEnum
from typing import Any, ClassVar


class ErrorCode(StrEnum):
    """Machine-readable codes; the first five and REQUEST_NOT_FOUND are the reference server's."""

    MODEL_NOT_FOUND = "MODEL_NOT_FOUND"
    LORA_FILE_REQUIRED = "LORA_FILE_REQUIRED"
    MOE_FORMAT_REQUIRED = "MOE_FORMAT_REQUIRED"
    SINGLE_MOE_CONFIG_ONLY = "SINGLE_MOE_CONFIG_ONLY"
    LORA_NOT_FOUND = "LORA_NOT_FOUND"
    REQUEST_NOT_FOUND = "REQUEST_NOT_FOUND"
    LORA_PATH_REFUSED = "LORA_PATH_REFUSED"
    LORA_INVALID = "LORA_INVALID"
    CONTROL_IMAGE_NOT_SUPPORTED = "CONTROL_IMAGE_NOT_SUPPORTED"
    OUTPUT_NOT_FOUND = "OUTPUT_NOT_FOUND"
    STORE_UNAVAILABLE = "STORE_UNAVAILABLE"
    LORA_SOURCE_UNAVAILABLE = "LORA_SOURCE_UNAVAILABLE"
    RENDER_FAILED = "RENDER_FAILED"
    LORA_NOT_FETCHED = "LORA_NOT_FETCHED"
    LORA_CHANGED = "LORA_CHANGED"
    LORA_NOT_LOADED = "LORA_NOT_LOADED"
    OUT_OF_MEMORY = "OUT_OF_MEMORY"
    DEADLINE_EXCEEDED = "DEADLINE_EXCEEDED"
    ATTEMPTS_EXHAUSTED = "ATTEMPTS_EXHAUSTED"
    OUTPUT_NOT_WRITTEN = "OUTPUT_NOT_WRITTEN"
    HEADER_INVALID = "HEADER_INVALID"
    IDEMPOTENCY_CONFLICT = "IDEMPOTENCY_CONFLICT"
    REQUEST_NOT_ENDED = "REQUEST_NOT_ENDED"
    QUEUE_FULL = "QUEUE_FULL"
    TENANT_QUEUE_FULL = "TENANT_QUEUE_FULL"
    WAIT_TOO_LONG = "WAIT_TOO_LONG"
    CONFIGURATION_INVALID = "CONFIGURATION_INVALID"


class ServiceError(Exception):
    """Root of the tree. `details` must be JSON-serialisable."""

    code: ClassVar[ErrorCode]
    status: ClassVar[int] = 500

    def __init__(self, message: str, details: Mapping[str, Any] | None = None) -> None:
        # Both go into args, so that the error survives pickling between processes.
        super().__init__(message, dict(details or {}))

    @property
    def message(self) -> str:
        """What went wrong and what to do about it."""
        return str(self.args[0])

    @property
    def details(self) -> dict[str, Any]:
        """The offending names and values."""
        return dict(self.args[1])

    def body(self) -> dict[str, Any]:
        """The error as the reference server words it, to be placed under `detail`."""
        return {"error": {"code": self.code.value, "message": self.message, "details": self.details}}

    def __str__(self) -> str:
        return self.message


class RequestError(ServiceError):
    """The request cannot be accepted; the client must change it."""

    status = 400


class ModelNotFound(RequestError):
    """The model is not the one this service runs."""

    code = ErrorCode.MODEL_NOT_FOUND


class LoraFileRequired(RequestError):
    """`loras` is empty."""

    code = ErrorCode.LORA_FILE_REQUIRED


class MoeFormatRequired(RequestError):
    """A LoRA does not say which expert (`transformer`: low or high) it is for."""

    code = ErrorCode.MOE_FORMAT_REQUIRED


class SingleMoeConfigOnly(RequestError):
    """More than one LoRA for one expert."""

    code = ErrorCode.SINGLE_MOE_CONFIG_ONLY


class LoraNotFound(RequestError):
    """No file at that path inside `lora_root`."""

    code = ErrorCode.LORA_NOT_FOUND


class LoraPathRefused(RequestError):
    """The path leads out of `lora_root`, or is of a kind this service does not read."""

    code = ErrorCode.LORA_PATH_REFUSED


class LoraInvalid(RequestError):
    """The file is not a LoRA that would be applied completely to this model."""

    code = ErrorCode.LORA_INVALID


class ControlImageNotSupported(RequestError):
    """A control image was sent to a model that takes none."""

    code = ErrorCode.CONTROL_IMAGE_NOT_SUPPORTED


class HeaderInvalid(RequestError):
    """A header has a form that is not accepted."""

    code = ErrorCode.HEADER_INVALID


class NotFoundError(ServiceError):
    """The thing named in the URL does not exist."""

    status = 404


class RequestNotFound(NotFoundError):
    """No request with that id."""

    code = ErrorCode.REQUEST_NOT_FOUND


class OutputNotFound(NotFoundError):
    """The request has no output at that index (yet)."""

    code = ErrorCode.OUTPUT_NOT_FOUND


class ConflictError(ServiceError):
    """The request stands against something that exists."""

    status = 409


class IdempotencyConflict(ConflictError):
    """The idempotency key was used before, with another body."""

    code = ErrorCode.IDEMPOTENCY_CONFLICT


class RequestNotEnded(ConflictError):
    """Only a request whose renders have all ended can be deleted."""

    code = ErrorCode.REQUEST_NOT_ENDED


class AdmissionError(ServiceError):
    """The queue takes no more just now; nothing was accepted.

    `retry_after_s` is when there will be room, in whole seconds; None where waiting does not help.
    """

    status = 429

    def __init__(self, message: str, details: Mapping[str, Any], *, retry_after_s: int | None) -> None:
        super().__init__(message, details)
        self.retry_after_s = retry_after_s


class QueueFull(AdmissionError):
    """As many renders wait as the service takes."""

    code = ErrorCode.QUEUE_FULL


class TenantQueueFull(AdmissionError):
    """As many renders of this tenant wait as the service takes of one."""

    code = ErrorCode.TENANT_QUEUE_FULL


class WaitTooLong(AdmissionError):
    """The render would wait longer than the service lets anyone wait."""

    code = ErrorCode.WAIT_TOO_LONG


class StoreUnavailable(ServiceError):
    """The job store did not answer; nothing was written."""

    code = ErrorCode.STORE_UNAVAILABLE
    status = 503


class LoraSourceUnavailable(ServiceError):
    """The server that a LoRA comes from did not deliver it, after retries; the same request may succeed later."""

    code = ErrorCode.LORA_SOURCE_UNAVAILABLE
    status = 503


class RenderError(ServiceError):
    """An accepted render ended without a video."""


class RenderFailed(RenderError):
    """The pipeline raised something that no other class names."""

    code = ErrorCode.RENDER_FAILED


class LoraNotFetched(RenderError):
    """A LoRA could not be downloaded for its render, or turned out to be damaged once all of it was here."""

    code = ErrorCode.LORA_NOT_FETCHED


class LoraChanged(RenderError):
    """A LoRA file was replaced or removed after the request was accepted."""

    code = ErrorCode.LORA_CHANGED


class LoraNotLoaded(RenderError):
    """The pipeline did not take every weight of a LoRA that had passed inspection."""

    code = ErrorCode.LORA_NOT_LOADED


class OutOfMemory(RenderError):
    """The device ran out of memory, on a GPU also in one retry under the next leaner offload plan, if there is one."""

    code = ErrorCode.OUT_OF_MEMORY


class DeadlineExceeded(RenderError):
    """The render took longer than `render_timeout_s`."""

    code = ErrorCode.DEADLINE_EXCEEDED


class AttemptsExhausted(RenderError):
    """The render was lost with its replica `max_attempts` times."""

    code = ErrorCode.ATTEMPTS_EXHAUSTED


class OutputNotWritten(RenderError):
    """The video could not be encoded or stored."""

    code = ErrorCode.OUTPUT_NOT_WRITTEN


class ConfigurationError(ServiceError):
    """The service cannot start with these args."""

    code = ErrorCode.CONFIGURATION_INVALID
