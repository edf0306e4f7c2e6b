"""Requests as they are stored, with their renders."""

from collections.abc import Collection
from itertools import groupby

from sqlalchemy import Connection, RowMapping, select

from serve_app.errors import RequestNotFound
from serve_app.jobs import rows
from serve_app.jobs.records import Line, RequestRecord
from serve_app.jobs.tables import renders, requests
from serve_app.spec import Priority

_WHOLE = (
    select(renders, requests.c.model, requests.c.created_at.label("accepted_at"))
    .join(requests)
    .order_by(renders.c.request_id, renders.c.index)
)


def read_requests(connection: Connection, ids: Collection[str]) -> dict[str, RequestRecord]:
    """Those of the requests that there are, by id."""
    found = connection.execute(_WHOLE.where(requests.c.id.in_(set(ids)))).mappings()
    return {request_id: _record(list(of_one)) for request_id, of_one in groupby(found, key=_request_id)}


def read_request(connection: Connection, request_id: str) -> RequestRecord:
    """One request.

    Raises:
        RequestNotFound: there is none with that id.
    """
    found = read_requests(connection, [request_id])
    if request_id not in found:
        raise not_found(request_id)
    return found[request_id]


def not_found(request_id: str) -> RequestNotFound:
    """The error for an id that names no request."""
    return RequestNotFound(f"Request not found: {request_id}", {"request_id": request_id})


def _request_id(row: RowMapping) -> str:
    request_id: str = row["request_id"]
    return request_id


def _record(found: list[RowMapping]) -> RequestRecord:
    first = found[0]
    return RequestRecord(
        id=first["request_id"],
        model=first["model"],
        created_at=first["accepted_at"],
        line=Line(first["tenant"], Priority.of_rank(first["priority"])),
        renders=tuple(rows.to_render(row) for row in found),
    )
