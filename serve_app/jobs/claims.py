"""The worker side of the job store: renders are claimed under a lease, and end under its fencing token.

Example:
    claim = await store.claims.claim(render_id, replica="r1", lease_s=15)
    canceled = await store.claims.renew(claim, steps_done=3, lease_s=15)  # heartbeat
    written = await store.claims.succeed(claim, output)  # False: the claim is no longer valid

Every change of state is a compare-and-set: its WHERE clause names the states it may start from and the fencing token of
the claim. So of two concurrent writers one succeeds, and a worker that has lost its claim changes nothing.
"""

import secrets
from collections.abc import Callable
from time import time
from typing import Any

from pydantic import SecretStr
from sqlalchemy import ColumnElement, Connection, Row, and_, func, select, update

from serve_app.errors import RenderError
from serve_app.jobs import outbox, transitions
from serve_app.jobs.costs import Measurement, add_cost
from serve_app.jobs.database import Database
from serve_app.jobs.endings import Ending, Tell, write_end
from serve_app.jobs.needs import add_need
from serve_app.jobs.records import Claim, Foreseen, Output, Preview
from serve_app.jobs.states import RenderEvent, RenderState
from serve_app.jobs.tables import previews, render_costs, render_needs, renders, request_tokens, tenant_usage
from serve_app.jobs.usage import add_use
from serve_app.spec import Priority, RenderSpec


class Claims:
    """Leases on the renders of one database. Each method is one transaction."""

    def __init__(self, database: Database, tell: Tell) -> None:
        self._database = database
        self._tell = tell

    async def claim(self, render_id: int, replica: str, lease_s: float) -> Claim | None:
        """Take a queued render for `replica` under a new lease; return None if it is no longer queued."""
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
            if row is None:
                return None
            outbox.record(connection, self._database, [row.request_id])
            return row, _read_token(connection, row.request_id)

        taken = await self._database.write(take)
        # Parsed after the commit: a spec that cannot be parsed uses up its attempts, instead of staying first forever.
        return None if taken is None else _to_claim(*taken, replica)

    async def foresee(self, render_id: int) -> Foreseen | None:
        """Read what a replica needs to prepare for a render, and change nothing; return None if it is not queued."""
        columns = [renders.c.request_id, renders.c.spec]
        query = select(*columns).where(renders.c.id == render_id, renders.c.state == RenderState.QUEUED)

        def look(connection: Connection) -> tuple[Row[Any], SecretStr | None] | None:
            row = connection.execute(query).one_or_none()
            return None if row is None else (row, _read_token(connection, row.request_id))

        found = await self._database.read(look)
        if found is None:
            return None
        row, hf_token = found
        return Foreseen(render_id=render_id, spec=RenderSpec.model_validate_json(row.spec), hf_token=hf_token)

    async def renew(self, claim: Claim, steps_done: int, lease_s: float, preview: Preview | None = None) -> bool | None:
        """Renew the lease (heartbeat), record progress, and show a new preview in place of the last one.

        Returns:
            Whether the render should be canceled; None if the claim is no longer valid and its holder must stop.
        """
        statement = (
            update(renders)
            .where(transitions.held(claim))
            .values(lease_expires_at=time() + lease_s, steps_done=steps_done)
            .returning(renders.c.cancel_requested)
        )

        def beat(connection: Connection) -> Row[Any] | None:
            row = connection.execute(statement).one_or_none()
            if row is not None and preview is not None:
                self._show(connection, claim, preview)
            return row

        row = await self._database.write(beat)
        return None if row is None else bool(row.cancel_requested)

    def _show(self, connection: Connection, claim: Claim, preview: Preview) -> None:
        shown = {"step": preview.step, "image": preview.image}
        new = self._database.insert(previews).values(render_id=claim.render_id, **shown)
        connection.execute(new.on_conflict_do_update(index_elements=["render_id"], set_=shown))

    async def succeed(self, claim: Claim, output: Output, measured: Measurement | None = None) -> bool:
        """End a claim with its video, and add what it took to the measurements, if given.

        Return False if the claim is no longer valid; then nothing was changed.
        """
        statement = transitions.change(RenderEvent.SUCCEED, transitions.held(claim)).values(
            output=output.model_dump_json(),
            output_bytes=output.size or 0,
            finished_at=time(),
            steps_done=claim.spec.sample_steps,
        )

        def publish(ending: Ending) -> bool:
            published = ending.apply(statement) == 1
            if published:
                self._add_use(ending, claim)
            if published and measured is not None:
                add_cost(ending.connection, self._database.insert(render_costs), measured)
                if measured.need is not None:
                    add_need(ending.connection, self._database.insert(render_needs), measured.deployment, measured.need)
            return published

        return await self._end(publish, claim)

    async def fail(self, claim: Claim, error: RenderError) -> bool:
        """End a claim with an error and cancel its siblings; return False if the claim is no longer valid."""

        def end(ending: Ending) -> bool:
            failed = ending.apply(transitions.failure(transitions.held(claim), error)) == 1
            if failed:
                self._add_use(ending, claim)
                transitions.cancel(ending, claim.request_id)  # its siblings
            return failed

        return await self._end(end, claim)

    async def cancel(self, claim: Claim) -> bool:
        """End a claim whose cancellation was requested; return False if the claim is no longer valid."""
        statement = transitions.change(RenderEvent.CANCEL, transitions.held(claim)).values(finished_at=time())

        def end(ending: Ending) -> bool:
            canceled = ending.apply(statement) == 1
            if canceled:
                self._add_use(ending, claim)
            return canceled

        return await self._end(end, claim)

    async def release(self, claim: Claim, max_attempts: int) -> bool:
        """Give back a claim whose holder died: the render is queued again, or failed if no attempt is left.

        Return False if the claim is no longer valid; then nothing was changed.
        """
        return await self._lose(transitions.held(claim), claim.spec.model, max_attempts) == 1

    async def expire_leases(self, model: str, max_attempts: int) -> int:
        """Give back every claim on that model's renders whose lease has expired; return how many there were."""
        expired = and_(
            renders.c.state == RenderState.PROCESSING, renders.c.lease_expires_at < time(), renders.c.model == model
        )
        return await self._lose(expired, model, max_attempts)

    async def running(self) -> int:
        """Return how many renders, of all models, are claimed now."""
        running = select(func.count()).select_from(renders).where(renders.c.state == RenderState.PROCESSING)
        return await self._database.read(lambda connection: connection.execute(running).scalar_one())

    async def _end(self, work: Callable[[Ending], bool], claim: Claim) -> bool:
        return await write_end(self._database, work, of=lambda _: [claim.request_id], tell=self._tell)

    def _add_use(self, ending: Ending, claim: Claim) -> None:
        add_use(ending.connection, self._database.insert(tenant_usage), claim)

    async def _lose(self, condition: ColumnElement[bool], model: str, max_attempts: int) -> int:
        def give_back(ending: Ending) -> list[str]:
            found = transitions.give_back(ending, condition, max_attempts)
            if found:
                self._database.notify(ending.connection, [model])
            return found

        lost: list[str] = await write_end(self._database, give_back, of=lambda found: found, tell=self._tell)
        return len(lost)


_CLAIMED = (
    renders.c.id,
    renders.c.request_id,
    renders.c.index,
    renders.c.attempt,
    renders.c.lease_token,
    renders.c.spec,
    renders.c.tenant,
    renders.c.cost_s,
    renders.c.priority,
    renders.c.created_at,
    renders.c.traceparent,
)


def _to_claim(row: Row[Any], hf_token: SecretStr | None, replica: str) -> Claim:
    columns = row._mapping
    return Claim(
        render_id=row.id,
        request_id=row.request_id,
        index=columns["index"],  # `row.index` is a method of tuples
        attempt=row.attempt,
        token=row.lease_token,
        spec=RenderSpec.model_validate_json(row.spec),
        replica=replica,
        tenant=row.tenant,
        cost_s=row.cost_s,
        priority=Priority.of_rank(row.priority),
        claimed_at=time(),
        waited_s=max(0.0, time() - row.created_at),
        traceparent=row.traceparent,
        hf_token=hf_token,
    )


def _read_token(connection: Connection, request_id: str) -> SecretStr | None:
    query = select(request_tokens.c.hf_token).where(request_tokens.c.request_id == request_id)
    found = connection.execute(query).scalar_one_or_none()
    return None if found is None else SecretStr(found)
