"""Row mapping: from records to table rows and back, and reads of whole requests."""

from collections.abc import Collection
from itertools import groupby
from typing import Any

from sqlalchemy import ColumnElement, Connection, RowMapping, or_, select, tuple_

from serve_app.errors import RequestNotFound
from serve_app.jobs.ownership import Wanted, may_see
from serve_app.jobs.records import Line, NewRequest, Output, RenderRecord, RequestRecord
from serve_app.jobs.states import RenderState
from serve_app.jobs.tables import renders, requests
from serve_app.spec import Priority, RenderSpec

_WHOLE = (
    select(renders, requests.c.created_at.label("accepted_at"))
    .join(requests)
    .order_by(renders.c.request_id, renders.c.index)
)


def of_request(request: NewRequest) -> dict[str, Any]:
    """Return its row in `requests`."""
    return {
        "id": request.id,
        "model": request.model,
        "created_at": request.created_at,
        "tenant": request.tenant,
        "priority": request.priority.rank,
        "idempotency_key": request.idempotency.key if request.idempotency else None,
        "body_digest": request.idempotency.digest if request.idempotency else None,
    }


def of_renders(request: NewRequest) -> list[dict[str, Any]]:
    """Return its rows in `renders`, one for each prompt."""
    return [
        {
            "request_id": request.id,
            "index": index,
            "state": RenderState.QUEUED,
            "pair_key": spec.pair_key,
            "spec": spec.model_dump_json(),
            "created_at": request.created_at,
            "model": request.model,
            "tenant": request.tenant,
            "priority": request.priority.rank,
            "cost_s": cost_s,
            "steps": spec.sample_steps,
            "searched": searchable(spec.prompt),
            "traceparent": request.traceparent,
        }
        for index, (spec, cost_s) in enumerate(zip(request.specs, request.costs, strict=True))
    ]


def searchable(text: str) -> str:
    """Return a text as searches compare it: case-folded (Unicode), and without NUL, which PostgreSQL refuses."""
    return text.casefold().replace("\0", "")


def of_tokens(request: NewRequest) -> list[dict[str, Any]]:
    """Return its row in `request_tokens`; none if it has no token."""
    if request.hf_token is None:
        return []
    return [{"request_id": request.id, "hf_token": request.hf_token.get_secret_value()}]


def to_render(row: RowMapping) -> RenderRecord:
    """Return the record of a row of `renders`."""
    return RenderRecord(
        id=row["id"],
        index=row["index"],
        state=RenderState(row["state"]),
        # A newer version beside this one may have written more: shown without it, while who renders must know it.
        spec=RenderSpec.model_validate_json(row["spec"], extra="ignore"),
        cost_s=row["cost_s"],
        steps_done=row["steps_done"],
        attempt=row["attempt"],
        started_at=row["started_at"],
        finished_at=row["finished_at"],
        output=None if row["output"] is None else Output.model_validate_json(row["output"]),
        error_code=row["error_code"],
        error_message=row["error_message"],
    )


def read_requests(connection: Connection, wanted: Collection[Wanted]) -> dict[Wanted, RequestRecord]:
    """Return the wanted requests that exist and that their owners may see, with one statement."""
    rows = connection.execute(_WHOLE.where(visible(wanted))).mappings()
    found = {request_id: _record(list(of_one)) for request_id, of_one in groupby(rows, key=_request_id)}
    return {
        (request_id, owner): record
        for request_id, owner in wanted
        if (record := found.get(request_id)) is not None and may_see(owner, record.line.tenant)
    }


def read_request(connection: Connection, request_id: str, owner: str | None = None) -> RequestRecord:
    """Return one request.

    Raises:
        RequestNotFound: there is none with that id, or another tenant owns it.
    """
    wanted = (request_id, owner)
    found = read_requests(connection, [wanted])
    if wanted not in found:
        raise not_found(request_id)
    return found[wanted]


def not_found(request_id: str) -> RequestNotFound:
    """Return the error for an id that names no request of this owner."""
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
        renders=tuple(to_render(row) for row in found),
    )


def visible(wanted: Collection[Wanted]) -> ColumnElement[bool]:
    """Return the SQL condition on `requests` that holds for the wanted ids which their owners may see.

    An id that another tenant owns matches no row, like an unknown id, and no entry of the index `requests_of_owner`
    either, so that both take the same time: the row is never read.
    """
    ids = {request_id for request_id, owner in wanted if owner is None}
    owned = {(request_id, owner) for request_id, owner in wanted if owner is not None}
    anyones, owners = requests.c.id.in_(ids), tuple_(requests.c.id, requests.c.tenant).in_(owned)
    if ids and owned:
        return or_(anyones, owners)
    return owners if owned else anyones
