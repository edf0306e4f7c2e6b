"""The job store: every accepted request, durable. Only through it does a render's state change.

Each method is one transaction, and each change of state names the state it starts from in its WHERE clause, taken
from `serve_app.jobs.states`; so of two writers one wins, on SQLite and on PostgreSQL alike.
"""

import secrets
from collections.abc import Callable, Mapping, Sequence
from functools import partial
from time import time
from typing import Any, TypeVar

from pydantic import SecretStr
from sqlalchemy import ColumnElement, Connection, Row, and_, delete, func, select, update

from serve_app.batching import Batches
from serve_app.costs import CostKey, MeasuredCost
from serve_app.errors import RenderError, RequestNotEnded, ServiceError
from serve_app.jobs import submissions, transitions
from serve_app.jobs.admission import Limits
from serve_app.jobs.cost_rows import Measurement, add_cost, read_costs
from serve_app.jobs.database import Database, to_the_end
from serve_app.jobs.leadership import Leadership
from serve_app.jobs.queue import Queue
from serve_app.jobs.reading import not_found, read_request
from serve_app.jobs.records import Accepted, Claim, Idempotency, NewRequest, Output, RequestRecord
from serve_app.jobs.standing import Standing, read_standings
from serve_app.jobs.states import FINAL, RenderEvent, RenderState
from serve_app.jobs.tables import render_costs, renders, request_tokens, requests
from serve_app.spec import RenderSpec

NO_LIMITS = Limits()

Result = TypeVar("Result")


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
            # In turn, because who may still come in depends on who came in before.
            self._database.take_turn(connection)
            outcomes = submissions.insert_all(connection, self._database.insert(requests), batch)
            self._database.notify(connection)
            return outcomes

        return await self._database.write(insert_and_notify)

    @to_the_end
    async def known(self, tenant: str, idempotency: Idempotency) -> Accepted | None:
        """The request that was accepted under this key; None where there is none.

        Raises:
            IdempotencyConflict: it came with another body.
        """
        return await self._database.read(partial(submissions.read_known, tenant=tenant, idempotency=idempotency))

    @to_the_end
    async def request(self, request_id: str) -> RequestRecord:
        """One request with its renders.

        Raises:
            RequestNotFound: there is none with that id.
        """
        return await self._database.read(partial(read_request, request_id=request_id))

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
        found = await self._database.read(partial(read_standings, ids=ids))
        return [found.get(request_id) for request_id in ids]

    @to_the_end
    async def claim(self, render_id: int, replica: str, lease_s: float) -> Claim | None:
        """Take a queued render for `replica` and start a lease; None where it is no longer queued."""
        now = time()
        statement = (
            transitions.change(RenderEvent.CLAIM, renders.c.id == render_id)
            .values(
                attempt=renders.c.attempt + 1,
                lease_token=secrets.token_hex(16),
                lease_expires_at=now + lease_s,
                replica=replica,
                steps_done=0,
                started_at=func.coalesce(renders.c.started_at, now),
            )
            .returning(*_CLAIMED)
        )

        def take(connection: Connection) -> tuple[Row[Any], SecretStr | None] | None:
            row = connection.execute(statement).one_or_none()
            return None if row is None else (row, _read_token(connection, row.request_id))

        taken = await self._database.write(take)
        # Once it is committed: a spec that cannot be read has used up an attempt, and does not wait for ever.
        return None if taken is None else _to_claim(*taken)

    @to_the_end
    async def renew(self, claim: Claim, steps_done: int, lease_s: float) -> bool | None:
        """Prolong the lease and record progress.

        Returns:
            Whether the render should be canceled; None where the claim is no longer valid, and its holder must stop.
        """
        statement = (
            update(renders)
            .where(transitions.held(claim))
            .values(lease_expires_at=time() + lease_s, steps_done=steps_done)
            .returning(renders.c.cancel_requested)
        )
        row = await self._database.write(lambda connection: connection.execute(statement).one_or_none())
        return None if row is None else bool(row.cancel_requested)

    @to_the_end
    async def costs(self, deployment: str) -> Mapping[CostKey, MeasuredCost]:
        """What renders have cost on that deployment."""
        return await self._database.read(partial(read_costs, deployment=deployment))

    @to_the_end
    async def succeed(self, claim: Claim, output: Output, measured: Measurement | None = None) -> bool:
        """Publish the video of a claim, and learn from what it cost.

        False where the claim is no longer valid, and nothing was changed.
        """
        statement = transitions.change(RenderEvent.SUCCEED, transitions.held(claim)).values(
            output=output.model_dump_json(), finished_at=time(), steps_done=claim.spec.sample_steps
        )

        def publish(connection: Connection) -> bool:
            published = connection.execute(statement).rowcount == 1
            if published and measured is not None:
                add_cost(connection, self._database.insert(render_costs), measured)
            return published

        return await self._end(publish)

    @to_the_end
    async def fail(self, claim: Claim, error: RenderError) -> bool:
        """End a claim with an error and cancel its siblings; False where the claim is no longer valid."""

        def end(connection: Connection) -> bool:
            failed = connection.execute(transitions.failure(transitions.held(claim), error)).rowcount == 1
            if failed:
                transitions.cancel(connection, claim.request_id)  # its siblings
            return failed

        return await self._end(end)

    @to_the_end
    async def cancel_claim(self, claim: Claim) -> bool:
        """End a claim whose cancellation was asked for; False where the claim is no longer valid."""
        statement = transitions.change(RenderEvent.CANCEL, transitions.held(claim)).values(finished_at=time())
        return await self._end(lambda connection: connection.execute(statement).rowcount == 1)

    @to_the_end
    async def cancel(self, request_id: str) -> RequestRecord:
        """End the request's queued renders now and ask for the end of its running ones. Idempotent.

        Raises:
            RequestNotFound: there is none with that id.
        """

        def end(connection: Connection) -> RequestRecord:
            transitions.cancel(connection, request_id)
            return read_request(connection, request_id)

        return await self._end(end)

    @to_the_end
    async def remove(self, request_id: str) -> None:
        """Delete a request and its renders, all of which have ended.

        Raises:
            RequestNotFound: there is none with that id.
            RequestNotEnded: a render of it has not ended; nothing was deleted.
        """

        def delete_rows(connection: Connection) -> None:
            check_ended(read_request(connection, request_id))
            connection.execute(delete(renders).where(renders.c.request_id == request_id))
            connection.execute(delete(requests).where(requests.c.id == request_id))

        await self._database.write(delete_rows)

    async def release(self, claim: Claim, max_attempts: int) -> bool:
        """Give back a claim whose holder died: queued again, or failed when no attempt is left.

        False where the claim is no longer valid, and nothing was changed.
        """
        return await self._lose(transitions.held(claim), max_attempts) == 1

    async def expire_leases(self, max_attempts: int) -> int:
        """Give back every claim whose lease ran out; returns how many there were."""
        expired = and_(renders.c.state == RenderState.PROCESSING, renders.c.lease_expires_at < time())
        return await self._lose(expired, max_attempts)

    @to_the_end
    async def _lose(self, condition: ColumnElement[bool], max_attempts: int) -> int:
        def give_back(connection: Connection) -> int:
            found = transitions.give_back(connection, condition, max_attempts)
            if found:
                self._database.notify(connection)
            return found

        return await self._end(give_back)

    async def _end(self, work: Callable[[Connection], Result]) -> Result:
        """What `work` returns; it may end requests, whose tokens then go with it."""

        def end(connection: Connection) -> tuple[Result, int]:
            return work(connection), connection.execute(transitions.FORGET_TOKENS).rowcount

        result, forgotten = await self._database.write(end)
        if forgotten:
            await self._database.scrub()
        return result


_CLAIMED = (
    renders.c.id,
    renders.c.request_id,
    renders.c.index,
    renders.c.attempt,
    renders.c.lease_token,
    renders.c.spec,
    renders.c.tenant,
    renders.c.cost_s,
)


def _to_claim(row: Row[Any], hf_token: SecretStr | None) -> Claim:
    columns = row._mapping
    return Claim(
        render_id=row.id,
        request_id=row.request_id,
        index=columns["index"],  # of a row, that is a method
        attempt=row.attempt,
        token=row.lease_token,
        spec=RenderSpec.model_validate_json(row.spec),
        tenant=row.tenant,
        cost_s=row.cost_s,
        hf_token=hf_token,
    )


def _read_token(connection: Connection, request_id: str) -> SecretStr | None:
    query = select(request_tokens.c.hf_token).where(request_tokens.c.request_id == request_id)
    found = connection.execute(query).scalar_one_or_none()
    return None if found is None else SecretStr(found)


def check_ended(record: RequestRecord) -> None:
    """Raise RequestNotEnded where a render of the request has not ended."""
    running = [render.index for render in record.renders if render.state not in FINAL]
    if running:
        raise RequestNotEnded(
            f"request {record.id} has not ended; cancel it first, and delete it once its renders have stopped",
            {"request_id": record.id, "unfinished": running},
        )
