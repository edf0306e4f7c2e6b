"""The route class of OpenAI's Videos API: bodies as JSON or as a form, and every error in OpenAI's shape.

Example:
    router = APIRouter(route_class=VideosRoute)

{"error": {"message": "...", "type": "invalid_request_error", "param": "seconds", "code": "VALUE_INVALID"}}
"""

from collections.abc import AsyncIterator, Callable, Coroutine
from contextlib import asynccontextmanager
from typing import Any

from fastapi import Request, Response
from fastapi.exceptions import RequestValidationError
from fastapi.responses import JSONResponse
from fastapi.routing import APIRoute

from serve_app.api.access_log import entry_of
from serve_app.api.error_handlers import response_of
from serve_app.api.json_body import Parsed, body_of, is_form, json_of
from serve_app.api.large_bodies import LargeBodies
from serve_app.api.schemas.errors import Responses
from serve_app.api.schemas.videos import OpenAIErrorBody, OpenAIErrorResponse
from serve_app.api.videos.form import read_form
from serve_app.echo import cut
from serve_app.errors import ServiceError

_TYPES = {401: "authentication_error", 403: "permission_error", 429: "rate_limit_error"}
_SERVER_ERROR = 500
_INVALID = 400  # OpenAI has no 422
_INVALID_CODE = "VALUE_INVALID"

Handler = Callable[[Request], Coroutine[Any, Any, Response]]


class VideosRoute(APIRoute):
    """A route that answers every refusal as OpenAI does."""

    def get_route_handler(self) -> Handler:
        """Return FastAPI's handler, wrapped to read bodies before it, and to translate errors after it."""
        handle = super().get_route_handler()

        async def answer(request: Request) -> Response:
            try:
                async with _with_json(request) as read:
                    return await handle(read)
            except ServiceError as error:
                entry_of(request.scope).code = error.code
                return _refusal(error)
            except RequestValidationError as error:
                entry_of(request.scope).code = _INVALID_CODE
                return _invalid(error)

        return answer

    @staticmethod
    def refused(error: ServiceError) -> Response:
        """Return the answer to a request that the guard has refused."""
        return _refusal(error)


def refusals(*statuses: int) -> Responses:
    """Return the documentation of errors with these status codes."""
    return {status: {"model": OpenAIErrorResponse, "description": "An error in OpenAI's shape."} for status in statuses}


@asynccontextmanager
async def _with_json(request: Request) -> AsyncIterator[Request]:
    """Hold the request during the block, its body read as JSON or as a form."""
    if request.method != "POST":
        yield request
        return
    of_form = is_form(request.headers)
    bodies: LargeBodies = request.app.state.large_bodies
    async with body_of(request, checks_type=not of_form) as body:
        if of_form:
            await bodies.turn(len(body))
            content = await read_form(body, request.headers)
            yield Parsed(request, body, content, content_type="application/json")
        else:
            yield Parsed(request, body, await json_of(request, body))


def _refusal(error: ServiceError) -> Response:
    usual = response_of(error)
    said = error.body()["error"]
    details = said["details"]
    param = details.get("param") or details.get("field")
    content = _body(said["message"], error.status, None if param is None else str(param), error.code)
    return JSONResponse(
        content, status_code=error.status, headers={k: v for k, v in usual.headers.items() if k not in _OF_BODY}
    )


_OF_BODY = ("content-length", "content-type")


def _invalid(error: RequestValidationError) -> Response:
    """Return the first problem of a body or a parameter that does not fit its schema."""
    first, *others = error.errors()
    names = () if first["type"] == "json_invalid" else first["loc"]  # of invalid JSON, `loc` is a byte offset
    path = [str(step) for step in names if step not in ("body", "query", "path")]
    param = cut(".".join(path)) or None
    more = f" ({len(others)} more)" if others else ""
    message = f"{param}: {cut(first['msg'])}{more}" if param else f"{cut(first['msg'])}{more}"
    return JSONResponse(_body(message, _INVALID, param, _INVALID_CODE), status_code=_INVALID)


def _body(message: str, status: int, param: str | None, code: str) -> dict[str, Any]:
    kind = "server_error" if status >= _SERVER_ERROR else _TYPES.get(status, "invalid_request_error")
    error = OpenAIErrorBody(message=message, type=kind, param=param, code=code)
    return OpenAIErrorResponse(error=error).model_dump()
