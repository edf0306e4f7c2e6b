"""Transactions in which renders end: what goes with the end of a render, and who is told of it, exactly once.

Example:
    def end(ending: Ending) -> bool:
        return ending.apply(statement) == 1

    await write_end(database, end, of=lambda _: [claim.request_id], tell=observers.finished)

A render may be ended by a Generator, by a client while it waits, by the failure of a sibling, or because its replicas
died too often. Each of these is an UPDATE here, so whoever counts what `tell` says counts every end once.
"""

from collections.abc import Callable, Collection, Sequence
from dataclasses import dataclass
from typing import Generic, TypeVar

from sqlalchemy import Connection, Update, delete, exists

from serve_app.jobs import outbox
from serve_app.jobs.database import Database
from serve_app.jobs.states import FINAL, RenderState
from serve_app.jobs.tables import previews, renders, request_tokens

Result = TypeVar("Result")

# Deletes the tokens of all ended requests. The table holds only tokens of unfinished requests, so this is cheap. If two
# renders of a request end in concurrent transactions, both may miss the token; the next call deletes it.
_FORGET_TOKENS = delete(request_tokens).where(
    ~exists().where(renders.c.request_id == request_tokens.c.request_id, renders.c.state.not_in(FINAL))
)
# Deletes the previews of renders that no longer run. Each running render has at most one, so this is cheap, too.
_FORGET_PREVIEWS = delete(previews).where(
    ~exists().where(renders.c.id == previews.c.render_id, renders.c.state == RenderState.PROCESSING)
)


@dataclass(frozen=True, slots=True)
class RenderEnd:
    """The end of a render: its final state, and the code of its error if it failed."""

    model: str
    state: RenderState
    code: str | None


_END = (renders.c.model, renders.c.state, renders.c.error_code)

Tell = Callable[[Sequence[RenderEnd]], None]


def nobody(_ends: Sequence[RenderEnd]) -> None:
    """Tell nobody."""


class Ending:
    """An open transaction that may end renders, and the renders that it has ended so far."""

    def __init__(self, connection: Connection) -> None:
        self.connection = connection
        self.ends: list[RenderEnd] = []

    def apply(self, statement: Update) -> int:
        """Execute an UPDATE of renders; return how many rows it changed."""
        rows = self.connection.execute(statement.returning(*_END)).all()
        ends = (RenderEnd(row.model, RenderState(row.state), row.error_code) for row in rows)
        self.ends += [end for end in ends if end.state in FINAL]
        return len(rows)


@dataclass(frozen=True, slots=True)
class _Ended(Generic[Result]):
    result: Result
    ends: Sequence[RenderEnd]
    has_tokens: bool


async def write_end(
    database: Database, work: Callable[[Ending], Result], *, of: Callable[[Result], Collection[str]], tell: Tell
) -> Result:
    """Run `work`, which may end the requests that `of` names afterwards; `tell` hears what ended, once it is committed.

    Their webhooks' events are recorded, and the tokens of ended requests and previews deleted, in the same transaction.
    """

    def end(connection: Connection) -> _Ended[Result]:
        ending = Ending(connection)
        result = work(ending)
        outbox.record(connection, database, of(result))
        connection.execute(_FORGET_PREVIEWS)
        return _Ended(result, ending.ends, has_tokens=connection.execute(_FORGET_TOKENS).rowcount > 0)

    ended = await database.write(
        end, scrub_if=lambda ended: ended.has_tokens, committed=lambda ended: tell(ended.ends) if ended.ends else None
    )
    return ended.result
