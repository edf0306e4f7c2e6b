"""The statements that move renders from state to state, as `serve_app.jobs.states` allows."""

from collections.abc import Callable
from time import time
from typing import Any, TypeVar

from sqlalchemy import ColumnElement, Connection, Row, Select, Update, and_, delete, exists, select, update

from serve_app.errors import AttemptsExhausted, RenderError
from serve_app.jobs.database import Database
from serve_app.jobs.records import Claim
from serve_app.jobs.states import FINAL, RenderEvent, RenderState, after
from serve_app.jobs.tables import renders, request_tokens

Result = TypeVar("Result")

# Of every request that has ended. The table holds a row only for requests that are under way and brought a token, so
# this costs next to nothing; and what two siblings that end at the same moment leave over, the next sweep removes.
_FORGET_TOKENS = delete(request_tokens).where(
    ~exists().where(renders.c.request_id == request_tokens.c.request_id, renders.c.state.not_in(FINAL))
)


async def write_end(database: Database, work: Callable[[Connection], Result]) -> Result:
    """Write `work`, which may end requests; the tokens of those that have ended go in the same transaction."""

    def end(connection: Connection) -> tuple[Result, bool]:
        return work(connection), connection.execute(_FORGET_TOKENS).rowcount > 0

    result, _ = await database.write(end, scrub_if=lambda ended: ended[1])
    return result


def change(event: RenderEvent, condition: ColumnElement[bool]) -> Update:
    """An UPDATE of the rows under `condition` that may take `event`, to the state it leads to."""
    (target,) = {state for source in RenderState if (state := after(source, event))}
    sources = [source for source in RenderState if after(source, event)]
    return update(renders).where(condition, renders.c.state.in_(sources)).values(state=target)


def held(claim: Claim) -> ColumnElement[bool]:
    """True for the claim's row while the claim is valid."""
    return and_(
        renders.c.id == claim.render_id,
        renders.c.lease_token == claim.token,
        renders.c.state == RenderState.PROCESSING,
    )


def failure(condition: ColumnElement[bool], error: RenderError) -> Update:
    """The end, with an error, of the rows under `condition` that may fail."""
    return change(RenderEvent.FAIL, condition).values(
        error_code=error.code, error_message=_storable(error.message), finished_at=time()
    )


def _storable(text: str) -> str:
    """The text without what a database refuses, wherever the message came from: NUL, and halves of characters."""
    return text.encode("utf-8", "replace").decode().replace("\x00", "\ufffd")


def give_back(connection: Connection, condition: ColumnElement[bool], max_attempts: int) -> int:
    """End the claims under `condition`, whose holders are gone; returns how many there were."""
    # Locked where rows can be locked: a holder that renews or ends meanwhile is not overruled.
    found = connection.execute(_columns_of_lost(condition).with_for_update(skip_locked=True)).all()
    # A failure cancels its siblings, so it comes after those that are queued again.
    for row in sorted(found, key=lambda row: row.attempt >= max_attempts):
        ended = connection.execute(_end_of_lost(row, max_attempts))
        if ended.rowcount and not row.cancel_requested and row.attempt >= max_attempts:
            cancel(connection, row.request_id)
    return len(found)


def _columns_of_lost(condition: ColumnElement[bool]) -> Select[Any]:
    columns = (renders.c.id, renders.c.request_id, renders.c.attempt, renders.c.cancel_requested)
    return select(*columns).where(condition)


def _end_of_lost(row: Row[Any], max_attempts: int) -> Update:
    """What becomes of a render whose holder is gone."""
    this = renders.c.id == row.id
    if row.cancel_requested:
        return change(RenderEvent.CANCEL, this).values(finished_at=time())
    if row.attempt >= max_attempts:
        error = AttemptsExhausted(
            f"the render was started {row.attempt} times, and each time its replica was stopped, died or fell silent. "
            "If the service was not being restarted, the render may need more memory than a replica has: try fewer "
            "frames or a smaller size"
        )
        return failure(this, error)
    return change(RenderEvent.LOSE, this).values(lease_token=None, lease_expires_at=None, steps_done=0)


def cancel(connection: Connection, request_id: str) -> None:
    """Cancel what is queued of a request, and mark what is running."""
    unfinished = and_(renders.c.request_id == request_id, renders.c.state.not_in(FINAL))
    # Marking locks the rows first, so none can go from running back to queued between the two statements.
    connection.execute(update(renders).where(unfinished).values(cancel_requested=True))
    queued = and_(renders.c.request_id == request_id, renders.c.state == RenderState.QUEUED)
    connection.execute(change(RenderEvent.CANCEL, queued).values(finished_at=time()))
