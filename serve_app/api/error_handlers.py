"""Error responses: every error has one of two documented shapes, and a bounded size.

The shapes are `{"detail": {"error": {...}}}`, as in the reference server, and FastAPI's list of problems for a body or
a parameter that does not fit its schema (422).
"""

from collections.abc import Sequence
from typing import Any

from fastapi import FastAPI, Request, Response
from fastapi.exception_handlers import http_exception_handler
from fastapi.exceptions import RequestValidationError
from fastapi.responses import JSONResponse
from starlette.exceptions import HTTPException

from serve_app.api.access_log import entry_of
from serve_app.api.schemas.items import MORE_PROBLEMS
from serve_app.echo import ITEMS, cut, remainder
from serve_app.errors import (
    AdmissionError,
    BodyTooSlow,
    ImageSourceUnavailable,
    KeyInvalid,
    KeyRequired,
    LoraSourceUnavailable,
    LoraStorageUnavailable,
    MethodNotAllowed,
    OutputStorageUnavailable,
    PathNotFound,
    RateExceeded,
    ScopeRequired,
    ServiceError,
    StoreUnavailable,
    TooManyBodies,
    TooManyFetches,
    TooManyListeners,
)

_RETRY_AFTER_S = 5  # for errors that have no time of their own
_TEMPORARY = (
    StoreUnavailable,
    OutputStorageUnavailable,
    LoraSourceUnavailable,
    ImageSourceUnavailable,
    TooManyFetches,
    TooManyBodies,
    LoraStorageUnavailable,
    TooManyListeners,
)
_NAME_LENGTH = 100  # of a field, which may be one that the client made up
_REALM = 'Bearer realm="wan-lora"'


def add_refusals(app: FastAPI) -> None:
    """Make `app` answer every error in its documented shape."""
    app.exception_handler(ServiceError)(_service_error)
    app.exception_handler(RequestValidationError)(_validation_error)
    app.exception_handler(HTTPException)(_no_route)


def response_of(error: ServiceError) -> JSONResponse:
    """Return the response for `error`."""
    retry_after_s = _retry_after_s(error)
    headers = {} if retry_after_s is None else {"Retry-After": str(retry_after_s)}
    if isinstance(error, RateExceeded):
        headers |= error.headers
    if challenge := _challenge(error):
        headers["WWW-Authenticate"] = challenge
    if isinstance(error, BodyTooSlow):
        headers["Connection"] = "close"  # else the rest of the body would be read as the next request
    return JSONResponse({"detail": error.body()}, status_code=error.status, headers=headers)


def _challenge(error: ServiceError) -> str | None:
    """Return the header WWW-Authenticate for an error (RFC 6750, section 3)."""
    if isinstance(error, KeyRequired):
        return _REALM
    if isinstance(error, KeyInvalid):
        return f'{_REALM}, error="invalid_token"'
    if isinstance(error, ScopeRequired):
        return f'{_REALM}, error="insufficient_scope", scope="{error.details["scope"]}"'
    return None


async def _service_error(request: Request, error: ServiceError) -> JSONResponse:
    _note(request, error.code)
    return response_of(error)


def _retry_after_s(error: ServiceError) -> int | None:
    if isinstance(error, AdmissionError):
        return error.retry_after_s
    return _RETRY_AFTER_S if isinstance(error, _TEMPORARY) else None


async def _validation_error(request: Request, error: RequestValidationError) -> JSONResponse:
    """Return FastAPI's 422 body with the first 20 problems, and without the input, which may contain a token."""
    problems = [problem for problem in error.errors() if problem["type"] != MORE_PROBLEMS]
    count = len(problems) + sum(more["ctx"]["count"] for more in error.errors() if more["type"] == MORE_PROBLEMS)
    _note(request, str(problems[0]["type"]) if problems else "")
    detail = [{"loc": _where(item["loc"]), "msg": cut(item["msg"]), "type": item["type"]} for item in problems[:ITEMS]]
    detail += [{"loc": ["body"], "msg": more, "type": MORE_PROBLEMS} for more in remainder(count)]
    return JSONResponse({"detail": detail}, status_code=422)


def _note(request: Request, code: str) -> None:
    """Record the error in the access log and the metrics."""
    entry_of(request.scope).code = code
    request.app.state.services.observers.refused(code)


def _where(location: Sequence[Any]) -> list[Any]:
    return [cut(step, _NAME_LENGTH) if isinstance(step, str) else step for step in location]


async def _no_route(request: Request, error: HTTPException) -> Response:
    """Return the response for an unknown path, or for a method that the path does not have."""
    path, method = cut(request.url.path), request.method
    refused: ServiceError
    if error.status_code == MethodNotAllowed.status:
        refused = MethodNotAllowed(f"{path} has no method {cut(method)}", {"path": path})
    elif error.status_code != PathNotFound.status:
        return await http_exception_handler(request, error)
    else:
        refused = PathNotFound(f"There is nothing at {path}; see /docs for what there is", {"path": path})
    response = await _service_error(request, refused)
    response.headers.update(error.headers or {})
    return response
