"""Calls of the API as values: method, path, body and the type of the answer (sans I/O).

Example:
    call = calls.status("b3e6e2e0-...")
    request = http.build_request(call.method, call.path, **call.options(), content=call.content())  # an httpx2.Client
    status = call.read(response)

Both clients, the synchronous and the asynchronous one, send these calls. So a path or a field stands here once.
"""

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Generic, TypedDict, TypeVar
from urllib.parse import quote
from uuid import uuid4

import httpx2
from pydantic import BaseModel, SecretStr, ValidationError

from serve_app.api.schemas.answers import Accepted, Deleted, RequestResult, RequestStatus, Status
from serve_app.api.schemas.bodies import Body, InferenceRequest
from serve_app.api.schemas.inspection import Inspection, InspectionRequest
from serve_app.api.schemas.listing import RequestDetails, RequestForecast, RequestList
from serve_app.api.schemas.loras import LoraFile, Loras
from serve_app.api.schemas.service import Health, Models
from serve_app.client.failures import not_understood

Answer = TypeVar("Answer", bound=BaseModel)


class Options(TypedDict):
    """Keywords of httpx2's `request`."""

    headers: dict[str, str]
    params: dict[str, str | list[str]]


@dataclass(frozen=True, kw_only=True)
class Wanted:
    """Which requests a list has. `pair` is a pair key; `text` stands in a prompt; `after` is the `next` of a page."""

    status: Sequence[Status] = ()
    pair: str | None = None
    text: str | None = None
    model: str | None = None
    limit: int = 20
    after: str | None = None

    def params(self) -> dict[str, str | list[str]]:
        """Return the query parameters."""
        texts = {"pair": self.pair, "text": self.text, "model": self.model, "after": self.after}
        given: dict[str, str | list[str]] = {name: value for name, value in texts.items() if value is not None}
        return given | {"status": [*self.status], "limit": str(self.limit)}


@dataclass(frozen=True, kw_only=True)
class Call(Generic[Answer]):
    """One call of the API. It may be sent again: none of them does its work twice."""

    method: str
    path: str
    answer: type[Answer]
    headers: Mapping[str, str] = field(default_factory=dict)
    params: Mapping[str, str | list[str]] = field(default_factory=dict)
    body: Body | None = None

    def options(self) -> Options:
        """Return headers and parameters as httpx2 takes them."""
        kind = {} if self.body is None else {"Content-Type": "application/json"}
        return Options(headers={**self.headers, **kind}, params=dict(self.params))

    def content(self) -> bytes | None:
        """Return the body as it is sent."""
        return None if self.body is None else _json(self.body)

    def read(self, response: httpx2.Response) -> Answer:
        """Return the answer of a successful response.

        Raises:
            AnswerNotUnderstood: it is none of this API's.
        """
        try:
            return self.answer.model_validate_json(response.content)
        except ValidationError as error:
            problem = error.errors(include_url=False)[0]
            where = ".".join(map(str, problem["loc"])) or "its body"
            raise not_understood(response, f"{where} is not as expected: {problem['msg']}") from None


def submit(body: InferenceRequest, idempotency_key: str | None) -> Call[Accepted]:
    """Return the call that queues a request. Its key makes it the same request, however often it is sent."""
    headers = {"Idempotency-Key": idempotency_key or str(uuid4())}
    return Call(method="POST", path="/v1/inference", answer=Accepted, headers=headers, body=body)


def status(request_id: str) -> Call[RequestStatus]:
    """Return the call that tells how far a request is."""
    return Call(method="GET", path=f"{request_path(request_id)}/status", answer=RequestStatus)


def result(request_id: str) -> Call[RequestResult]:
    """Return the call that tells of the videos of a request."""
    return Call(method="GET", path=f"{request_path(request_id)}/result", answer=RequestResult)


def cancel(request_id: str) -> Call[RequestStatus]:
    """Return the call that ends a request."""
    return Call(method="POST", path=f"{request_path(request_id)}/cancel", answer=RequestStatus)


def delete(request_id: str) -> Call[Deleted]:
    """Return the call that removes a request with its files."""
    return Call(method="DELETE", path=request_path(request_id), answer=Deleted)


def details(request_id: str) -> Call[RequestDetails]:
    """Return the call that tells of a request with all values in effect."""
    return Call(method="GET", path=request_path(request_id), answer=RequestDetails)


def page(wanted: Wanted) -> Call[RequestList]:
    """Return the call that lists requests, the newest first."""
    return Call(method="GET", path="/v1/requests", answer=RequestList, params=wanted.params())


def forecast(body: InferenceRequest) -> Call[RequestForecast]:
    """Return the call that tells what a request would cost, and accepts nothing."""
    return Call(method="POST", path="/v1/forecast", answer=RequestForecast, body=body)


def inspect(body: InspectionRequest) -> Call[Inspection]:
    """Return the call that looks into LoRA files."""
    return Call(method="POST", path="/v1/loras/inspect", answer=Inspection, body=body)


def loras() -> Call[Loras]:
    """Return the call that lists the LoRA files of the service."""
    return Call(method="GET", path="/v1/loras", answer=Loras)


def models() -> Call[Models]:
    """Return the call that lists the models of the service."""
    return Call(method="GET", path="/v1/models", answer=Models)


def health() -> Call[Health]:
    """Return the call that tells whether renders start."""
    return Call(method="GET", path="/health", answer=Health)


def upload(path: str, size: int, *, overwrite: bool) -> Call[LoraFile]:
    """Return the call that keeps a LoRA file under a path; its content is sent beside it, `size` bytes."""
    return Call(
        method="PUT",
        path=f"/v1/loras/{quote(path)}",
        answer=LoraFile,
        headers={"Content-Type": "application/octet-stream", "Content-Length": str(size)}
        | ({} if overwrite else {"If-None-Match": "*"}),
        params={"overwrite": "true"} if overwrite else {},
    )


def request_path(request_id: str) -> str:
    """Return the path of a request; whatever the id holds, it names nothing else."""
    return f"/v1/requests/{quote(request_id, safe='')}"


def _json(body: Body) -> bytes:
    """Return the fields that were set, with the token, which pydantic itself would write as asterisks."""
    return json.dumps(body.model_dump(exclude_unset=True), default=SecretStr.get_secret_value).encode()
