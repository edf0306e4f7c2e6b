"""Refusals read back: an answer of the service becomes the error class that the service itself raised.

    raised = refusal_of(httpx2.Response(400, json={"detail": {"error": {"code": "LORA_NOT_FOUND", ...}}}))
    type(raised.error)  # serve_app.errors.LoraNotFound

So a caller catches `LoraNotFound` or `QueueFull`, with the service's message and details.
"""

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from http import HTTPStatus
from typing import Any

import httpx2
from pydantic import BaseModel, ValidationError

from serve_app.api.schemas.answers import RequestStatus
from serve_app.api.schemas.errors import ErrorBody, ErrorResponse
from serve_app.errors import (
    AdmissionError,
    AnswerNotUnderstood,
    FieldsInvalid,
    RefusedOtherwise,
    RequestCanceled,
    ServerUnreachable,
    ServiceError,
)

_EXCERPT = 200  # characters of an answer that is none of the API's
_BUSY = frozenset({HTTPStatus.TOO_MANY_REQUESTS, HTTPStatus.SERVICE_UNAVAILABLE})
# What a proxy in front of the service says while the service starts or moves. Ray Serve's own says 404 in plain text
# before it knows the application, and 500 where the replica that it had asked has died.
_OF_A_PROXY = frozenset(
    {
        HTTPStatus.NOT_FOUND,
        HTTPStatus.INTERNAL_SERVER_ERROR,
        HTTPStatus.BAD_GATEWAY,
        HTTPStatus.GATEWAY_TIMEOUT,
        *_BUSY,
    }
)


@dataclass(frozen=True)
class Refusal:
    """What an answer says against a call, and whether the same call may succeed later."""

    error: ServiceError
    temporary: bool
    retry_after_s: float | None = None


class _Problem(BaseModel):
    loc: list[str | int]
    msg: str


class _Problems(BaseModel):
    detail: list[_Problem]


def refusal_of(response: httpx2.Response) -> Refusal:
    """Return what a read response other than 2xx or 3xx stands for."""
    try:
        body = ErrorResponse.model_validate_json(response.content).detail.error
    except ValidationError:
        return _without_code(response)
    wait_s = _retry_after_s(response)
    temporary = response.status_code in _BUSY and wait_s is not None
    return Refusal(error_of(body, wait_s), temporary, wait_s)


def unreachable(server: str, fault: httpx2.TransportError) -> Refusal:
    """Return what a broken connection stands for."""
    reason = str(fault) or type(fault).__name__
    return Refusal(
        ServerUnreachable(
            f"{server} cannot be reached ({reason}); check the address and that the service runs", {"server": server}
        ),
        temporary=True,
    )


def error_of(body: ErrorBody, retry_after_s: float | None = None) -> ServiceError:
    """Return the error of that code, with its message and details."""
    kind = _CLASSES.get(body.code)
    if kind is None:
        return RefusedOtherwise(f"{body.message} ({body.code})", {**body.details, "code": body.code})
    if issubclass(kind, AdmissionError):
        return kind(body.message, body.details, retry_after_s=None if retry_after_s is None else round(retry_after_s))
    return kind(body.message, body.details)


def failure_of(status: RequestStatus) -> ServiceError | None:
    """Return why a request that has ended has no complete result; None if it succeeded or has not ended."""
    details = {"request_id": status.request_id}
    if status.status == "canceled":
        return RequestCanceled(f"request {status.request_id} was canceled; submit it again to render it", details)
    if status.status != "failed":
        return None
    body = ErrorBody(code=status.error_code or "", message=status.error or "the render failed", details=details)
    return error_of(body)


def not_understood(response: httpx2.Response, reason: str) -> AnswerNotUnderstood:
    """Return the error for an answer that is none of this API's."""
    return AnswerNotUnderstood(
        f"{response.url} answered {response.status_code}, and {reason}; check that it is the address of this service, "
        "and of the same version",
        {"status": response.status_code, "excerpt": response.text[:_EXCERPT]},
    )


def _without_code(response: httpx2.Response) -> Refusal:
    if response.status_code == HTTPStatus.UNPROCESSABLE_ENTITY:
        try:
            problems = _Problems.model_validate_json(response.content).detail
        except ValidationError:
            return Refusal(not_understood(response, "its body is no list of problems"), temporary=False)
        return Refusal(_fields_invalid(problems), temporary=False)
    error = not_understood(response, "its body is no error of this API")
    return Refusal(error, response.status_code in _OF_A_PROXY, _retry_after_s(response))


def _fields_invalid(problems: list[_Problem]) -> FieldsInvalid:
    listed = [{"field": _field(problem.loc), "message": problem.msg} for problem in problems]
    return FieldsInvalid("; ".join(f"{one['field']}: {one['message']}" for one in listed), {"problems": listed})


def _field(location: list[str | int]) -> str:
    """Return a location as JavaScript writes it: prompts[0].width; the first part says only `body` or `query`."""
    parts = [f"[{part}]" if isinstance(part, int) else f".{part}" for part in location[1:]]
    return "".join(parts).lstrip(".") or str(location[0])


def _retry_after_s(response: httpx2.Response) -> float | None:
    """Return Retry-After in seconds; the service never sends a date."""
    value = response.headers.get("Retry-After", "")
    return float(value) if value.isdecimal() else None


def _classes(base: type[ServiceError]) -> Iterator[tuple[str, type[ServiceError]]]:
    for kind in base.__subclasses__():
        yield kind.code, kind
        yield from _classes(kind)


_CLASSES: Mapping[str, type[ServiceError]] = dict(_classes(ServiceError))


def details_of(error: ServiceError) -> dict[str, Any]:
    """Return the error as `ErrorBody` has it: code, message and details."""
    return {"code": error.code, "message": error.message, "details": error.details}
