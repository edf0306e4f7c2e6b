"""How requests enter the store: in batches, each of them admitted, refused or recognised by itself."""

from collections.abc import Sequence

from sqlalchemy import Connection, insert, select

from serve_app.errors import IdempotencyConflict, ServiceError
from serve_app.jobs import rows
from serve_app.jobs.admission import Limits, admit
from serve_app.jobs.database import Upsert
from serve_app.jobs.queue import read_load
from serve_app.jobs.records import Accepted, Idempotency, NewRequest
from serve_app.jobs.tables import renders, request_tokens, requests

Outcome = Accepted | ServiceError


def insert_all(
    connection: Connection, into_requests: Upsert, batch: Sequence[tuple[NewRequest, Limits]]
) -> list[Outcome]:
    """What became of each, in order; `into_requests` is an INSERT into `requests`. One transaction at a time."""
    load = read_load(connection)
    outcomes: dict[str, Outcome] = {}
    admitted = []
    for request, limits in batch:
        try:
            if known := _known(connection, request):
                outcomes[request.id] = known
                continue
            load = admit(request, load, limits)
        except ServiceError as refusal:
            outcomes[request.id] = refusal
        else:
            admitted.append(request)
    inserted = _insert(connection, into_requests, admitted)
    for request in admitted:
        # One that lost its key, to another of the same batch, is what the winner is.
        outcomes[request.id] = (
            Accepted(request_id=request.id, created_at=request.created_at)
            if request.id in inserted
            else _outcome_of_winner(connection, request)
        )
    return [outcomes[request.id] for request, _ in batch]


def read_known(connection: Connection, tenant: str, idempotency: Idempotency) -> Accepted | None:
    """The request that was accepted under that key; None where there is none.

    Raises:
        IdempotencyConflict: it came with another body.
    """
    query = select(requests.c.id, requests.c.created_at, requests.c.body_digest).where(
        requests.c.tenant == tenant, requests.c.idempotency_key == idempotency.key
    )
    found = connection.execute(query).one_or_none()
    if found is None:
        return None
    if found.body_digest != idempotency.digest:
        raise IdempotencyConflict(
            f"Idempotency-Key '{idempotency.key}' stands for request {found.id} with another body; send a new key",
            {"request_id": found.id, "idempotency_key": idempotency.key},
        )
    return Accepted(request_id=found.id, created_at=found.created_at, replayed=True)


def _known(connection: Connection, request: NewRequest) -> Accepted | None:
    if request.idempotency is None:
        return None
    return read_known(connection, request.tenant, request.idempotency)


def _outcome_of_winner(connection: Connection, request: NewRequest) -> Outcome:
    try:
        winner = _known(connection, request)
    except IdempotencyConflict as conflict:
        return conflict
    if winner is None:
        raise AssertionError(f"request {request.id} was neither inserted nor found")
    return winner


def _insert(connection: Connection, into_requests: Upsert, admitted: Sequence[NewRequest]) -> set[str]:
    """The ids of those that were inserted, with their renders and tokens."""
    if not admitted:
        return set()
    once_per_key = into_requests.on_conflict_do_nothing(
        index_elements=["tenant", "idempotency_key"], index_where=requests.c.idempotency_key.is_not(None)
    )
    # Rows beside the statement and not in it: so it is compiled once, however many there are.
    new_rows = [rows.of_request(request) for request in admitted]
    kept = connection.execute(once_per_key.returning(requests.c.id), new_rows)
    inserted = set(kept.scalars())
    new = [request for request in admitted if request.id in inserted]
    if new:
        connection.execute(insert(renders), [row for request in new for row in rows.of_renders(request)])
    if tokens := [row for request in new for row in rows.of_tokens(request)]:
        connection.execute(insert(request_tokens), tokens)
    return inserted
