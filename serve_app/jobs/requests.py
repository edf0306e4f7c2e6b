"""The client side of the job store: requests are submitted, read, canceled and removed.

Example:
    accepted = await store.requests.submit(request, limits)
    record = await store.requests.get(accepted.request_id, owner="team-a")

Every method takes the `owner`: the tenant whose requests the client may see, or None if it may see all. A request of
another tenant is answered like an unknown id.
"""

from collections.abc import Mapping, Sequence
from functools import partial

from sqlalchemy import Connection, delete, insert, select

from serve_app.batching import Batches
from serve_app.errors import IdempotencyConflict, RequestNotEnded, ServiceError
from serve_app.jobs import outbox, rows, transitions
from serve_app.jobs.admission import Limits, admit, admit_tenant
from serve_app.jobs.database import Database, Upsert
from serve_app.jobs.endings import Ending, Tell, write_end
from serve_app.jobs.listing import Cursor, Filter, Page, read_page
from serve_app.jobs.ownership import Wanted
from serve_app.jobs.queue import read_loads
from serve_app.jobs.records import Accepted, Idempotency, NewRequest, RequestRecord
from serve_app.jobs.rows import read_request
from serve_app.jobs.standings import Standing, read_standings
from serve_app.jobs.states import FINAL
from serve_app.jobs.tables import renders, request_tokens, requests, webhooks
from serve_app.jobs.usage import read_usages
from serve_app.jobs.watching import News, read_news

NO_LIMITS = Limits()

Outcome = Accepted | ServiceError


class Requests:
    """Requests of clients in one database. Each method is at most one transaction."""

    def __init__(self, database: Database, tell: Tell) -> None:
        self._database = database
        self._tell = tell
        self._submissions = Batches(self._insert)
        self._standings = Batches(self._read_standings)

    async def submit(self, request: NewRequest, limits: Limits = NO_LIMITS) -> Accepted:
        """Insert a request and its renders, or find the request that was accepted with the same idempotency key.

        Group commit: requests that arrive while a transaction runs share the next one.

        Raises:
            StoreUnavailable: the database did not answer; nothing was written.
            AdmissionError: a limit would be exceeded; nothing was written.
            IdempotencyConflict: the key was used with another body.
        """
        outcome = await self._submissions.ask((request, limits))
        if isinstance(outcome, ServiceError):
            raise outcome
        return outcome

    async def _insert(self, batch: Sequence[tuple[NewRequest, Limits]]) -> Sequence[Accepted | ServiceError]:
        def insert_and_notify(connection: Connection) -> Sequence[Accepted | ServiceError]:
            # The limits must count every request that was admitted before.
            self._database.lock_submissions(connection)
            outcomes = insert_all(connection, self._database.insert(requests), batch)
            self._database.notify(connection, {request.model for request, _ in batch})
            return outcomes

        return await self._database.write(insert_and_notify)

    async def known(self, tenant: str, idempotency: Idempotency) -> Accepted | None:
        """Return the request that was accepted with this idempotency key; None if there is none.

        Raises:
            IdempotencyConflict: the key was used with another body.
        """
        return await self._database.read(partial(read_known, tenant=tenant, idempotency=idempotency))

    async def get(self, request_id: str, *, owner: str | None = None) -> RequestRecord:
        """Return a request with its renders.

        Raises:
            RequestNotFound: there is none with that id, or another tenant owns it.
        """
        return await self._database.read(partial(read_request, request_id=request_id, owner=owner))

    async def standing(self, request_id: str, *, owner: str | None = None) -> Standing:
        """Return a request and its place in the queue. Concurrent calls share one read.

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

    async def page(
        self,
        wanted: Filter,
        *,
        limit: int,
        after: Cursor | None = None,
        owner: str | None = None,
        oldest_first: bool = False,
    ) -> Page:
        """Return at most `limit` requests after `after` that pass the filter, newest first; see `jobs.listing`."""
        of_page = partial(read_page, wanted=wanted, limit=limit, after=after, owner=owner, oldest_first=oldest_first)
        return await self._database.read(of_page)

    async def look(self, known: Mapping[str, RequestRecord], shown: Mapping[int, int], *, places: bool) -> News:
        """Return what has changed of these requests since they were read; see `jobs.watching`."""
        return await self._database.read(partial(read_news, known=known, shown=shown, places=places))

    async def cancel(self, request_id: str, *, owner: str | None = None) -> RequestRecord:
        """Cancel the request's queued renders, and mark its running ones for cancellation. Idempotent.

        Raises:
            RequestNotFound: there is none with that id, or another tenant owns it.
        """

        def end(ending: Ending) -> RequestRecord:
            read_request(ending.connection, request_id, owner)
            transitions.cancel(ending, request_id)
            return read_request(ending.connection, request_id)

        return await write_end(self._database, end, of=lambda record: [record.id], tell=self._tell)

    async def remove(self, request_id: str, *, owner: str | None = None) -> None:
        """Delete a request whose renders have all ended.

        Raises:
            RequestNotFound: there is none with that id, or another tenant owns it.
            RequestNotEnded: a render has not ended; nothing was deleted.
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
    """Insert those requests that are new and admitted; return the outcome of each, in order.

    Only one transaction at a time may do this, because `admit` counts what is queued.

    Args:
        connection: in a transaction.
        into_requests: an INSERT into `requests`.
        batch: requests with the limits that apply to them.
    """
    loads = read_loads(connection, {request.model for request, _ in batch})
    counted = {request.tenant for request, limits in batch if limits.count_usage}
    gpus = {model: count for _, limits in batch for model, count in limits.gpus.items()}
    usages = read_usages(connection, counted, gpus)
    outcomes: dict[str, Outcome] = {}
    admitted = []
    for request, limits in batch:
        try:
            if known := _known(connection, request):
                outcomes[request.id] = known
                continue
            after = admit(request, loads[request.model], limits)
            if limits.count_usage:
                usages[request.tenant] = admit_tenant(request, usages[request.tenant], limits)
            loads[request.model] = after
        except ServiceError as refusal:
            outcomes[request.id] = refusal
        else:
            admitted.append(request)
    inserted = _insert(connection, into_requests, admitted)
    for request in admitted:
        # A request that was not inserted has the idempotency key of another one in this batch, and gets its outcome.
        outcomes[request.id] = (
            Accepted(request_id=request.id, created_at=request.created_at)
            if request.id in inserted
            else _outcome_of_winner(connection, request)
        )
    return [outcomes[request.id] for request, _ in batch]


def read_known(connection: Connection, tenant: str, idempotency: Idempotency) -> Accepted | None:
    """Return the request that was accepted with that idempotency key; None if there is none.

    Raises:
        IdempotencyConflict: the key was used with another body.
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
    """Insert requests with their renders and tokens; return the ids of those whose idempotency key was free."""
    if not admitted:
        return set()
    once_per_key = into_requests.on_conflict_do_nothing(
        index_elements=["tenant", "idempotency_key"], index_where=requests.c.idempotency_key.is_not(None)
    )
    # Rows as parameters (executemany): the statement is compiled once for any number of rows.
    new_rows = [rows.of_request(request) for request in admitted]
    kept = connection.execute(once_per_key.returning(requests.c.id), new_rows)
    inserted = set(kept.scalars())
    new = [request for request in admitted if request.id in inserted]
    if new:
        connection.execute(insert(renders), [row for request in new for row in rows.of_renders(request)])
    if tokens := [row for request in new for row in rows.of_tokens(request)]:
        connection.execute(insert(request_tokens), tokens)
    if hooks := [outbox.of_webhook(request.id, request.webhook) for request in new if request.webhook]:
        connection.execute(insert(webhooks), hooks)
    return inserted
