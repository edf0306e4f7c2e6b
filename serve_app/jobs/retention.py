"""Retention queries of the job store: which requests have ended, the size of their outputs, what was published.

Example:
    await store.retention.ended(before, after=(0.0, ""), limit=200)
"""

from collections.abc import Collection, Sequence
from functools import partial
from typing import NamedTuple

from sqlalchemy import func, select, tuple_

from serve_app.jobs.database import Database
from serve_app.jobs.records import Output, RequestRecord
from serve_app.jobs.rows import read_requests
from serve_app.jobs.tables import renders, requests


class Ended(NamedTuple):
    """An ended request: when its last render ended, and the bytes of its outputs."""

    ended_at: float
    request_id: str
    size: int


class Published(NamedTuple):
    """A published output."""

    render_id: int
    name: str


class Retention:
    """Reads for retention in one database."""

    def __init__(self, database: Database) -> None:
        self._database = database

    async def ended(self, before: float, after: tuple[float, str], limit: int) -> Sequence[Ended]:
        """Return requests whose last render ended before `before`, after the position `after`; the earliest first."""
        ended_at = func.max(renders.c.finished_at)
        query = (
            select(ended_at, requests.c.id, func.sum(renders.c.output_bytes))
            .join_from(requests, renders)
            .where(requests.c.created_at < before)  # a range of an index: what ended before was accepted before
            .group_by(requests.c.id)
            .having(func.count() == func.count(renders.c.finished_at), ended_at < before)
            .having(tuple_(ended_at, requests.c.id) > tuple_(*after))
            .order_by(ended_at, requests.c.id)
            .limit(limit)
        )
        found = await self._database.read(lambda connection: connection.execute(query).all())
        return [Ended(at, request_id, int(size)) for at, request_id, size in found]

    async def stored_bytes(self) -> int:
        """Return the bytes of all published outputs."""
        query = select(func.coalesce(func.sum(renders.c.output_bytes), 0))
        return await self._database.read(lambda connection: int(connection.execute(query).scalar_one()))

    async def records(self, ids: Collection[str]) -> dict[str, RequestRecord]:
        """Return by id those of these requests that exist."""
        found = await self._database.read(partial(read_requests, wanted=[(request_id, None) for request_id in ids]))
        return {request_id: record for (request_id, _), record in found.items()}

    async def published(self, after: int, limit: int) -> Sequence[Published]:
        """Return at most `limit` published outputs of renders with ids above `after`, in the order of the ids."""
        query = (
            select(renders.c.id, renders.c.output)
            .where(renders.c.id > after, renders.c.output.is_not(None))
            .order_by(renders.c.id)
            .limit(limit)
        )
        found = await self._database.read(lambda connection: connection.execute(query).all())
        return [Published(render_id, Output.model_validate_json(output).name) for render_id, output in found]
