"""The job store: every accepted request, durable, with the only code that changes a render's state.

Each method is one transaction, and each change of state names the state it starts from in its WHERE clause, taken
from `serve_app.jobs.states`; so of two writers one wins, on SQLite and on PostgreSQL alike.
"""

import secrets
from collections.abc import AsyncIterator, Mapping, Sequence
from contextlib import asynccontextmanager
from functools import partial
from time import time
from typing import Any

from pydantic import SecretStr
from sqlalchemy import ColumnElement, Connection, Row, Select, Update, and_, delete, exists, func, select, update
from sqlalchemy.ext.asyncio import AsyncConnection

from serve_app.batches import Batches
from serve_app.errors import AttemptsExhausted, RenderError, RequestNotEnded, ServiceError
from serve_app.jobs import submissions
from serve_app.jobs.admission import Limits
from serve_app.jobs.cost_rows import Measurement, add_cost, read_costs
from serve_app.jobs.costs import CostKey, MeasuredCost
from serve_app.jobs.database import Database, to_the_end
from serve_app.jobs.leadership import Leadership
from serve_app.jobs.queue import Queue
from serve_app.jobs.reading import not_found, read_request
from serve_app.jobs.records import Accepted, Claim, Idempotency, NewRequest, Output, RequestRecord
from serve_app.jobs.spec import RenderSpec
from serve_app.jobs.standing import Standing, read_standings
from serve_app.jobs.states import FINAL, RenderEvent, RenderState, after
from serve_app.jobs.tables import render_costs, renders, request_tokens, requests

NO_LIMITS = Limits()


class JobStore:
    """Requests and renders in one database."""

    def __init__(self, url: str) -> None:
        self._database = Database(url)
        self._submissions = Batches(self._insert)
        self._standings = Batches(self._read_standings)
        self.queue = Queue(self._database)

    async def close(self) -> None:
        """Close the connections."""
        await self._database.close()

    def leadership(self, role: str) -> Leadership:
        """A candidate for a role that only one process may have."""
        return Leadership(self._database, role)

    @property
    def notifies(self) -> bool:
        """Whether the database itself tells who listens of new renders; see `serve_app.jobs.notices`."""
        return self._database.notifies

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

    @to_the_end
    async def _insert(self, batch: Sequence[tuple[NewRequest, Limits]]) -> Sequence[Accepted | ServiceError]:
        def insert_and_notify(connection: Connection) -> Sequence[Accepted | ServiceError]:
            outcomes = submissions.insert_all(connection, self._database.insert(requests), batch)
            self._database.notify_at_once(connection)
            return outcomes

        return await self._database.write_at_once(insert_and_notify)

    @to_the_end
    async def known(self, tenant: str, idempotency: Idempotency) -> Accepted | None:
        """The request that was accepted under this key; None where there is none.

        Raises:
            IdempotencyConflict: it came with another body.
        """
        return await self._database.read_at_once(
            partial(submissions.read_known, tenant=tenant, idempotency=idempotency)
        )

    @to_the_end
    async def request(self, request_id: str) -> RequestRecord:
        """One request with its renders.

        Raises:
            RequestNotFound: there is none with that id.
        """
        return await self._database.read_at_once(partial(read_request, request_id=request_id))

    async def standing(self, request_id: str) -> Standing:
        """One request and its place in the queue. Calls that come together are read together.

        Raises:
            RequestNotFound: there is none with that id.
        """
        found = await self._standings.ask(request_id)
        if found is None:
            raise not_found(request_id)
        return found

    @to_the_end
    async def _read_standings(self, ids: Sequence[str]) -> Sequence[Standing | None]:
        found = await self._database.read_at_once(partial(read_standings, ids=ids))
        return [found.get(request_id) for request_id in ids]

    @to_the_end
    async def claim(self, render_id: int, replica: str, lease_s: float) -> Claim | None:
        """Take a queued render for `replica` and start a lease; None where it is no longer queued."""
        now = time()
        statement = (
            _change(RenderEvent.CLAIM, renders.c.id == render_id)
            .values(
                attempt=renders.c.attempt + 1,
                lease_token=secrets.token_hex(16),
                lease_expires_at=now + lease_s,
                replica=replica,
                steps_done=0,
                started_at=func.coalesce(renders.c.started_at, now),
            )
            .returning(
                renders.c.request_id,
                renders.c.index,
                renders.c.attempt,
                renders.c.lease_token,
                renders.c.spec,
                renders.c.tenant,
                renders.c.cost_s,
            )
        )
        async with self._database.write() as connection:
            row = (await connection.execute(statement)).one_or_none()
            hf_token = None if row is None else await _read_token(connection, row.request_id)
        if row is None:
            return None
        return Claim(
            render_id=render_id,
            request_id=row.request_id,
            index=row[1],
            attempt=row.attempt,
            token=row.lease_token,
            spec=RenderSpec.model_validate_json(row.spec),
            tenant=row.tenant,
            cost_s=row.cost_s,
            hf_token=hf_token,
        )

    @to_the_end
    async def renew(self, claim: Claim, steps_done: int, lease_s: float) -> bool | None:
        """Prolong the lease and record progress.

        Returns:
            Whether the render should be canceled; None where the claim is no longer valid, and its holder must stop.
        """
        statement = (
            update(renders)
            .where(_held(claim))
            .values(lease_expires_at=time() + lease_s, steps_done=steps_done)
            .returning(renders.c.cancel_requested)
        )
        async with self._database.write() as connection:
            row = (await connection.execute(statement)).one_or_none()
        return None if row is None else bool(row.cancel_requested)

    @to_the_end
    async def costs(self, deployment: str) -> Mapping[CostKey, MeasuredCost]:
        """What renders have cost on that deployment."""
        async with self._database.read() as connection:
            return await read_costs(connection, deployment)

    @to_the_end
    async def succeed(self, claim: Claim, output: Output, measured: Measurement | None = None) -> bool:
        """Publish the video of a claim, and learn from what it cost.

        False where the claim is no longer valid, and nothing was changed.
        """
        statement = _change(RenderEvent.SUCCEED, _held(claim)).values(
            output=output.model_dump_json(), finished_at=time(), steps_done=claim.spec.sample_steps
        )
        async with self._ending() as connection:
            published = (await connection.execute(statement)).rowcount == 1
            if published and measured is not None:
                await add_cost(connection, self._database.insert(render_costs), measured)
            return published

    @to_the_end
    async def fail(self, claim: Claim, error: RenderError) -> bool:
        """End a claim with an error and cancel its siblings; False where the claim is no longer valid."""
        async with self._ending() as connection:
            failed = await connection.execute(_failure(_held(claim), error))
            if failed.rowcount:
                await _cancel(connection, claim.request_id)  # its siblings
            return failed.rowcount == 1

    @to_the_end
    async def cancel_claim(self, claim: Claim) -> bool:
        """End a claim whose cancellation was asked for; False where the claim is no longer valid."""
        statement = _change(RenderEvent.CANCEL, _held(claim)).values(finished_at=time())
        async with self._ending() as connection:
            return (await connection.execute(statement)).rowcount == 1

    @to_the_end
    async def cancel(self, request_id: str) -> RequestRecord:
        """End the request's queued renders now and ask for the end of its running ones. Idempotent.

        Raises:
            RequestNotFound: there is none with that id.
        """
        async with self._ending() as connection:
            await _cancel(connection, request_id)
            return await connection.run_sync(read_request, request_id)

    @to_the_end
    async def remove(self, request_id: str) -> None:
        """Delete a request and its renders, all of which have ended.

        Raises:
            RequestNotFound: there is none with that id.
            RequestNotEnded: a render of it has not ended; nothing was deleted.
        """
        async with self._database.write() as connection:
            record = await connection.run_sync(read_request, request_id)
            check_ended(record)
            await connection.execute(delete(renders).where(renders.c.request_id == request_id))
            await connection.execute(delete(requests).where(requests.c.id == request_id))

    async def release(self, claim: Claim, max_attempts: int) -> bool:
        """Give back a claim whose holder died: queued again, or failed when no attempt is left.

        False where the claim is no longer valid, and nothing was changed.
        """
        return await self._lose(_held(claim), max_attempts) == 1

    async def expire_leases(self, max_attempts: int) -> int:
        """Give back every claim whose lease ran out; returns how many there were."""
        expired = and_(renders.c.state == RenderState.PROCESSING, renders.c.lease_expires_at < time())
        return await self._lose(expired, max_attempts)

    @to_the_end
    async def _lose(self, condition: ColumnElement[bool], max_attempts: int) -> int:
        # Locked where rows can be locked: a holder that renews or ends meanwhile is not overruled.
        lost = _columns_of_lost(condition).with_for_update(skip_locked=True)
        async with self._ending() as connection:
            found = (await connection.execute(lost)).all()
            # A failure cancels its siblings, so it comes after those that are queued again.
            for row in sorted(found, key=lambda row: row.attempt >= max_attempts):
                ended = await connection.execute(_end_of_lost(row, max_attempts))
                if ended.rowcount and not row.cancel_requested and row.attempt >= max_attempts:
                    await _cancel(connection, row.request_id)
            if found:
                await self._database.notify(connection)
        return len(found)

    @asynccontextmanager
    async def _ending(self) -> AsyncIterator[AsyncConnection]:
        """A transaction that may end requests, whose tokens then go with it."""
        async with self._database.write() as connection:
            yield connection
            forgotten = (await connection.execute(_FORGET_TOKENS)).rowcount
        if forgotten:
            await self._database.scrub()


# Of every request that has ended. The table holds a row only for requests that are under way and brought a token, so
# this costs next to nothing; and what two siblings that end at the same moment leave over, the next sweep removes.
_FORGET_TOKENS = delete(request_tokens).where(
    ~exists().where(renders.c.request_id == request_tokens.c.request_id, renders.c.state.not_in(FINAL))
)


async def _read_token(connection: AsyncConnection, request_id: str) -> SecretStr | None:
    query = select(request_tokens.c.hf_token).where(request_tokens.c.request_id == request_id)
    found = (await connection.execute(query)).scalar_one_or_none()
    return None if found is None else SecretStr(found)


def _change(event: RenderEvent, condition: ColumnElement[bool]) -> Update:
    """An UPDATE of the rows under `condition` that may take `event`, to the state it leads to."""
    (target,) = {state for source in RenderState if (state := after(source, event))}
    sources = [source for source in RenderState if after(source, event)]
    return update(renders).where(condition, renders.c.state.in_(sources)).values(state=target)


def _held(claim: Claim) -> ColumnElement[bool]:
    """True for the claim's row while the claim is valid."""
    return and_(
        renders.c.id == claim.render_id,
        renders.c.lease_token == claim.token,
        renders.c.state == RenderState.PROCESSING,
    )


def _failure(condition: ColumnElement[bool], error: RenderError) -> Update:
    return _change(RenderEvent.FAIL, condition).values(
        error_code=error.code.value, error_message=_storable(error.message), finished_at=time()
    )


def _storable(text: str) -> str:
    """The text without what a database refuses, wherever the message came from: NUL, and halves of characters."""
    return text.encode("utf-8", "replace").decode().replace("\x00", "\ufffd")


def _columns_of_lost(condition: ColumnElement[bool]) -> Select[Any]:
    columns = (renders.c.id, renders.c.request_id, renders.c.attempt, renders.c.cancel_requested)
    return select(*columns).where(condition)


def _end_of_lost(row: Row[Any], max_attempts: int) -> Update:
    """What becomes of a render whose holder is gone."""
    this = renders.c.id == row.id
    if row.cancel_requested:
        return _change(RenderEvent.CANCEL, this).values(finished_at=time())
    if row.attempt >= max_attempts:
        error = AttemptsExhausted(
            f"the render was started {row.attempt} times, and each time its replica was stopped, died or fell silent. "
            "If the service was not being restarted, the render may need more memory than a replica has: try fewer "
            "frames or a smaller size"
        )
        return _failure(this, error)
    return _change(RenderEvent.LOSE, this).values(lease_token=None, lease_expires_at=None, steps_done=0)


async def _cancel(connection: AsyncConnection, request_id: str) -> None:
    """Cancel what is queued of a request, and mark what is running."""
    unfinished = and_(renders.c.request_id == request_id, renders.c.state.not_in(FINAL))
    # Marking locks the rows first, so none can go from running back to queued between the two statements.
    await connection.execute(update(renders).where(unfinished).values(cancel_requested=True))
    queued = and_(renders.c.request_id == request_id, renders.c.state == RenderState.QUEUED)
    await connection.execute(_change(RenderEvent.CANCEL, queued).values(finished_at=time()))


def check_ended(record: RequestRecord) -> None:
    """Raise RequestNotEnded where a render of the request has not ended."""
    running = [render.index for render in record.renders if render.state not in FINAL]
    if running:
        raise RequestNotEnded(
            f"request {record.id} has not ended; cancel it first, and delete it once its renders have stopped",
            {"request_id": record.id, "unfinished": running},
        )
