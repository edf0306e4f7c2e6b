"""Lists of requests (keyset pagination): newest or oldest first, filtered; later pages cost no more than the first.

Example:
    page = await store.requests.page(Filter(states={RenderState.SUCCEEDED}, text="fox"), limit=20, owner="team-a")
    page = await store.requests.page(Filter(), limit=20, after=page.next)  # until `next` is None

One call examines at most `LOOKED_AT` requests, so that a filter with few matches does not hold a connection for long.
Therefore a page may have fewer requests than asked for, even none, although more follow.
"""

import base64
import binascii
from dataclasses import dataclass
from math import isfinite
from typing import Self
from uuid import UUID

from sqlalchemy import ColumnElement, Connection, and_, asc, case, desc, func, select, tuple_

from serve_app.errors import CursorInvalid
from serve_app.jobs.rows import searchable
from serve_app.jobs.standings import Standing, read_standings
from serve_app.jobs.states import RenderState
from serve_app.jobs.tables import renders, requests

LOOKED_AT = 5_000


@dataclass(frozen=True, slots=True)
class Cursor:
    """A position in the list: after the request with this time of acceptance and this id."""

    created_at: float
    request_id: str

    @property
    def text(self) -> str:
        """Return the text that clients send back (base64url, opaque to them)."""
        return base64.urlsafe_b64encode(f"{self.created_at!r} {self.request_id}".encode()).decode().rstrip("=")

    @classmethod
    def read(cls, text: str) -> Self:
        """Parse the text of a cursor.

        Raises:
            CursorInvalid: it is not a text that `Cursor.text` returns.
        """
        try:
            padded = text + "=" * (-len(text) % 4)
            created_at, request_id = base64.b64decode(padded, b"-_", validate=True).decode("ascii").split(" ")
            found = cls(float(created_at), str(UUID(request_id)))
        except (binascii.Error, ValueError):
            found = None
        if found is None or not isfinite(found.created_at) or found.text != text:
            raise CursorInvalid(
                "after is none of the values that `next` had; leave it out to begin with the newest request",
                {"field": "after"},
            )
        return found


@dataclass(frozen=True, slots=True)
class Filter:
    """Conditions on the listed requests; an omitted one is not applied."""

    states: frozenset[RenderState] = frozenset()  # of the request
    pair_key: str | None = None
    text: str | None = None  # a part of a prompt; case is ignored
    model: str | None = None


@dataclass(frozen=True, slots=True)
class Page:
    """One page. `next` is None if nothing follows."""

    standings: tuple[Standing, ...]
    next: Cursor | None


def read_page(
    connection: Connection,
    wanted: Filter,
    *,
    limit: int,
    after: Cursor | None,
    owner: str | None,
    oldest_first: bool = False,
) -> Page:
    """Return the first `limit` requests after `after` that `owner` may see and that pass the filter."""
    age = tuple_(requests.c.created_at, requests.c.id)
    end = None if after is None else tuple_(after.created_at, after.request_id)
    in_order = asc if oldest_first else desc
    within = [
        *([] if end is None else [age > end if oldest_first else age < end]),
        *([] if owner is None else [requests.c.tenant == owner]),
        *([] if wanted.model is None else [requests.c.model == wanted.model]),
    ]
    ordered = (in_order(requests.c.created_at), in_order(requests.c.id))
    looked_at = select(requests.c.created_at, requests.c.id).where(*within).order_by(*ordered).limit(LOOKED_AT)
    last = looked_at.offset(LOOKED_AT - 1).limit(1)
    some = looked_at.subquery()
    passing = (
        select(some.c.created_at, some.c.id)
        .where(*_passes(wanted, some.c.id))
        .order_by(in_order(some.c.created_at), in_order(some.c.id))
        .limit(limit + 1)
    )
    rows = [Cursor(*row) for row in connection.execute(passing)]
    found = rows[:limit]
    standings = read_standings(connection, [(cursor.request_id, owner) for cursor in found])
    listed = tuple(standings[key] for cursor in found if (key := (cursor.request_id, owner)) in standings)
    if len(rows) > limit:
        return Page(listed, found[-1])
    furthest = connection.execute(last).one_or_none()
    return Page(listed, None if furthest is None else Cursor(*furthest))


def _passes(wanted: Filter, request_id: ColumnElement[str]) -> list[ColumnElement[bool]]:
    of_request = renders.c.request_id == request_id
    conditions: list[ColumnElement[bool]] = []
    if wanted.pair_key is not None:
        conditions.append(select(renders.c.id).where(of_request, renders.c.pair_key == wanted.pair_key).exists())
    if wanted.text:
        holds = renders.c.searched.contains(searchable(wanted.text), autoescape=True)
        conditions.append(select(renders.c.id).where(of_request, holds).exists())
    if wanted.states:
        state = select(_request_state()).where(of_request).scalar_subquery()
        conditions.append(state.in_([state.value for state in wanted.states]))
    return conditions


def _request_state() -> ColumnElement[str]:
    """Return `serve_app.jobs.states.request_state` as an aggregate over the rows of one request's renders."""

    def count(*states: RenderState) -> ColumnElement[int]:
        return func.sum(case((renders.c.state.in_([state.value for state in states]), 1), else_=0))

    every = func.count()
    queued, canceled = count(RenderState.QUEUED), count(RenderState.CANCELED)
    ended = count(RenderState.SUCCEEDED, RenderState.CANCELED)
    return case(
        (count(RenderState.FAILED) > 0, RenderState.FAILED.value),
        (and_(queued > 0, queued + canceled == every), RenderState.QUEUED.value),
        (ended < every, RenderState.PROCESSING.value),
        (canceled > 0, RenderState.CANCELED.value),
        else_=RenderState.SUCCEEDED.value,
    )
