"""The client side of the job store: requests are submitted, read, canceled and removed.

    >>> accepted = await store.requests.submit(request, limits)
    >>> record = await store.requests.get(accepted.request_id, owner="team-a")

Every method takes the `owner`: the tenant whose requests the client may see, or None where it may see all. A request
of another tenant is answered as one that does not exist.
"""

from collections.abc import Sequence
from functools import partial

from sqlalchemy import Connection, delete, insert, select

from serve_app.batching import Batches
from serve_app.errors import IdempotencyConflict, RequestNotEnded, ServiceError
from serve_app.jobs import rows, transitions
from serve_app.jobs.admission import Limits, admit
from serve_app.jobs.database import Database, Upsert
from serve_app.jobs.queue import read_load
from serve_app.jobs.records import Accepted, Idempotency, NewRequest, RequestRecord
from serve_app.jobs.rows import Wanted, read_request
from serve_app.jobs.standing import Standing, read_standings
from serve_app.jobs.states import FINAL
from serve_app.jobs.tables import renders, request_tokens, requests

NO_LIMITS = Limits()

Outcome = Accepted | ServiceError


class Requests:
    """Requests of clients in one database. Each method is one transaction."""

    def __init__(self, database: Database) -> None:
        self._database = database
        self._submissions = Batches(self._insert)
        self._standings = Batches(self._read_standings)

    async def submit(self, request: NewRequest, limits: Limits = NO_LIMITS) -> Accepted:
        """Make a request and its renders durable in one transaction, or find the one that its key stands for.

        Requests that arrive while one transaction runs share the next one: a burst costs a few commits.

        Raises:
            StoreUnavailable: nothing was written.
            AdmissionError: a limit stands against it; nothing was written.
            IdempotencyConflict: its key was used with another body.
        """
        outcome = await self._submissions.ask((request, limits))
        if isinstance(outcome, ServiceError):
            raise outcome
        return outcome

    async def _insert(self, batch: Sequence[tuple[NewRequest, Limits]]) -> Sequence[Accepted | ServiceError]:
        def insert_and_notify(connection: Connection) -> Sequence[Accepted | ServiceError]:
            # In turn, because who may still come in depends on who came in before.
            self._database.take_turn(connection)
            outcomes = insert_all(connection, self._database.insert(requests), batch)
            self._database.notify(connection)
            return outcomes

        return await self._database.write(insert_and_notify)

    async def known(self, tenant: str, idempotency: Idempotency) -> Accepted | None:
        """The request that was accepted under this key; None where there is none.

        Raises:
            IdempotencyConflict: it came with another body.
        """
        return await self._database.read(partial(read_known, tenant=tenant, idempotency=idempotency))

    async def get(self, request_id: str, *, owner: str | None = None) -> RequestRecord:
        """Read one request with its renders.

        Raises:
            RequestNotFound: there is none with that id, or another tenant owns it.
        """
        return await self._database.read(partial(read_request, request_id=request_id, owner=owner))

    async def standing(self, request_id: str, *, owner: str | None = None) -> Standing:
        """Read one request and its place in the queue. Calls that come together are read together.

        Raises:
            RequestNotFound: there is none with that id, or another tenant owns it.
        """
        found = await self._standings.ask((request_id, owner))
        if found is None:
            raise rows.not_found(request_id)
        return found

    async def _read_standings(self, wanted: Sequence[Wanted]) -> Sequence[Standing | None]:
        found = await self._database.read(partial(read_standings, wanted=wanted))
        return [found.get(key) for key in wanted]

    async def cancel(self, request_id: str, *, owner: str | None = None) -> RequestRecord:
        """End the request's queued renders now and ask for the end of its running ones. Idempotent.

        Raises:
            RequestNotFound: there is none with that id, or another tenant owns it.
        """

        def end(connection: Connection) -> RequestRecord:
            read_request(connection, request_id, owner)
            transitions.cancel(connection, request_id)
            return read_request(connection, request_id)

        return await transitions.write_end(self._database, end)

    async def remove(self, request_id: str, *, owner: str | None = None) -> None:
        """Delete a request and its renders, all of which have ended.

        Raises:
            RequestNotFound: there is none with that id, or another tenant owns it.
            RequestNotEnded: a render of it has not ended; nothing was deleted.
        """

        def delete_rows(connection: Connection) -> None:
            check_ended(read_request(connection, request_id, owner))
            connection.execute(delete(renders).where(renders.c.request_id == request_id))
            connection.execute(delete(requests).where(requests.c.id == request_id))

        await self._database.write(delete_rows)


def check_ended(record: RequestRecord) -> None:
    """Raise RequestNotEnded if a render of the request has not ended."""
    running = [render.index for render in record.renders if render.state not in FINAL]
    if running:
        raise RequestNotEnded(
            f"request {record.id} has not ended; cancel it first, and delete it once its renders have stopped",
            {"request_id": record.id, "unfinished": running},
        )


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
