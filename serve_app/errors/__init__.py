"""Errors: one exception hierarchy, with the code and the HTTP status of each error.

    ServiceError              base.py       the root
    ├── RequestError          requests.py   the request is wrong; nothing was accepted (400)
    ├── AuthenticationError   access.py     who sends the request is not known (401)
    ├── ForbiddenError        access.py     the sender may not do that (403)
    ├── NotFoundError         http.py       the thing named in the URL does not exist (404)
    ├── MethodNotAllowed      http.py       the path has no such method (405)
    ├── BodyTooSlow           http.py       the request's body did not arrive in time (408)
    ├── ConflictError         http.py       the request conflicts with something that exists (409)
    ├── OutputGone            http.py       the video of a finished render is not what was stored (410)
    ├── BodyTooLarge          http.py       the request's body is longer than the limit (413)
    ├── UnsupportedBody       http.py       the request's body has an unsupported format (415)
    ├── RangeNotSatisfiable   http.py       the range lies beyond the end of the file (416)
    ├── AdmissionError        admission.py  the queue, or a limit of the sender, accepts no more now (429)
    ├── UnavailableError      service.py    a part of the service does not work, or is in full use (503)
    ├── RenderError           renders.py    an accepted render ended without a video; stored with it
    ├── ClientError           client.py     raised by the Python client only
    └── ConfigurationInvalid  service.py    the service cannot start with these args

Each class carries its HTTP `status` and its `code`, which programs read and which is made from the class's name:

    >>> LoraNotFound.code, LoraNotFound.status
    ('LORA_NOT_FOUND', 400)

Each instance carries a message that says what to do, and `details` with the names and values that caused it. Codes are
part of the HTTP API, so renaming a class changes the API.

Everybody imports from here, callers of the Python client too, and `serve_app.client` finds the class of a code among
the subclasses: an error that is not imported here would be unknown to it.
"""

from serve_app.errors.access import (
    AuthenticationError,
    ForbiddenError,
    KeyInvalid,
    KeyRequired,
    LinkInvalid,
    ScopeRequired,
    UploadsOff,
)
from serve_app.errors.admission import (
    AdmissionError,
    GpuTimeExhausted,
    QueueFull,
    RateExceeded,
    TenantQueueFull,
    TooManyOwnListeners,
    WaitTooLong,
)
from serve_app.errors.base import ServiceError
from serve_app.errors.client import (
    AnswerNotUnderstood,
    ClientError,
    DownloadDamaged,
    FieldsInvalid,
    RefusedOtherwise,
    RequestCanceled,
    ServerUnreachable,
    WaitedTooLong,
)
from serve_app.errors.http import (
    BodyTooLarge,
    BodyTooSlow,
    ConflictError,
    EncodingNotSupported,
    IdempotencyConflict,
    LoraExists,
    MediaTypeNotSupported,
    MethodNotAllowed,
    NotFoundError,
    OutputGone,
    OutputNotFound,
    PathNotFound,
    RangeNotSatisfiable,
    RequestNotEnded,
    RequestNotFound,
    UnsupportedBody,
)
from serve_app.errors.renders import (
    AttemptsExhausted,
    ControlImageLost,
    DeadlineExceeded,
    LoraChanged,
    LoraNotFetched,
    LoraNotLoaded,
    OutOfMemory,
    OutputNotWritten,
    RenderError,
    RenderFailed,
)
from serve_app.errors.requests import (
    BodyDamaged,
    ControlImageInvalid,
    ControlImageNotFound,
    ControlImageNotSupported,
    ControlImageRefused,
    ControlImageRequired,
    CursorInvalid,
    DraftFieldRefused,
    DraftNotServed,
    FormInvalid,
    HeaderInvalid,
    LoraFileRequired,
    LoraInvalid,
    LoraNotFound,
    LoraPathRefused,
    ModelNotFound,
    MoeFormatNotSupported,
    MoeFormatRequired,
    PromptFlagRefused,
    PromptTooLong,
    RenderTooLarge,
    RequestError,
    SingleControlImageOnly,
    SingleLoraOnly,
    SingleMoeConfigOnly,
    SpeedNotAllowed,
    VideoFieldRefused,
    WebhookRefused,
)
from serve_app.errors.service import (
    ConfigurationInvalid,
    DraftUnavailable,
    ImageSourceUnavailable,
    LoraSourceUnavailable,
    LoraStorageUnavailable,
    MetricsUnavailable,
    OutputStorageUnavailable,
    ServiceNotReady,
    StoreUnavailable,
    TooManyBodies,
    TooManyFetches,
    TooManyListeners,
    UnavailableError,
)

__all__ = [
    "AdmissionError",
    "AnswerNotUnderstood",
    "AttemptsExhausted",
    "AuthenticationError",
    "BodyDamaged",
    "BodyTooLarge",
    "BodyTooSlow",
    "ClientError",
    "ConfigurationInvalid",
    "ConflictError",
    "ControlImageInvalid",
    "ControlImageLost",
    "ControlImageNotFound",
    "ControlImageNotSupported",
    "ControlImageRefused",
    "ControlImageRequired",
    "CursorInvalid",
    "DeadlineExceeded",
    "DownloadDamaged",
    "DraftFieldRefused",
    "DraftNotServed",
    "DraftUnavailable",
    "EncodingNotSupported",
    "FieldsInvalid",
    "ForbiddenError",
    "FormInvalid",
    "GpuTimeExhausted",
    "HeaderInvalid",
    "IdempotencyConflict",
    "ImageSourceUnavailable",
    "KeyInvalid",
    "KeyRequired",
    "LinkInvalid",
    "LoraChanged",
    "LoraExists",
    "LoraFileRequired",
    "LoraInvalid",
    "LoraNotFetched",
    "LoraNotFound",
    "LoraNotLoaded",
    "LoraPathRefused",
    "LoraSourceUnavailable",
    "LoraStorageUnavailable",
    "MediaTypeNotSupported",
    "MethodNotAllowed",
    "MetricsUnavailable",
    "ModelNotFound",
    "MoeFormatNotSupported",
    "MoeFormatRequired",
    "NotFoundError",
    "OutOfMemory",
    "OutputGone",
    "OutputNotFound",
    "OutputNotWritten",
    "OutputStorageUnavailable",
    "PathNotFound",
    "PromptFlagRefused",
    "PromptTooLong",
    "QueueFull",
    "RangeNotSatisfiable",
    "RateExceeded",
    "RefusedOtherwise",
    "RenderError",
    "RenderFailed",
    "RenderTooLarge",
    "RequestCanceled",
    "RequestError",
    "RequestNotEnded",
    "RequestNotFound",
    "ScopeRequired",
    "ServerUnreachable",
    "ServiceError",
    "ServiceNotReady",
    "SingleControlImageOnly",
    "SingleLoraOnly",
    "SingleMoeConfigOnly",
    "SpeedNotAllowed",
    "StoreUnavailable",
    "TenantQueueFull",
    "TooManyBodies",
    "TooManyFetches",
    "TooManyListeners",
    "TooManyOwnListeners",
    "UnavailableError",
    "UnsupportedBody",
    "UploadsOff",
    "VideoFieldRefused",
    "WaitTooLong",
    "WaitedTooLong",
    "WebhookRefused",
]
