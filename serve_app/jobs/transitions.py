"""State transitions as compare-and-set statements: the WHERE clause names the states that an event may start from.

Example:
    cancel = change(RenderEvent.CANCEL, renders.c.id == render_id)  # an UPDATE

`serve_app.jobs.states` decides which transitions exist.
"""

from time import time
from typing import Any

from sqlalchemy import ColumnElement, Row, Select, Update, and_, select, update

from serve_app.errors import AttemptsExhausted, RenderError
from serve_app.jobs.endings import Ending
from serve_app.jobs.records import Claim
from serve_app.jobs.states import FINAL, RenderEvent, RenderState, after
from serve_app.jobs.tables import renders


def change(event: RenderEvent, condition: ColumnElement[bool]) -> Update:
    """Return an UPDATE that applies `event` to the rows under `condition` whose state allows it."""
    (target,) = {state for source in RenderState if (state := after(source, event))}
    sources = [source for source in RenderState if after(source, event)]
    return update(renders).where(condition, renders.c.state.in_(sources)).values(state=target)


def held(claim: Claim) -> ColumnElement[bool]:
    """Return the condition that selects the claim's row while the claim is valid (its fencing token is current)."""
    return and_(
        renders.c.id == claim.render_id,
        renders.c.lease_token == claim.token,
        renders.c.state == RenderState.PROCESSING,
    )


def failure(condition: ColumnElement[bool], error: RenderError) -> Update:
    """Return an UPDATE that ends the rows under `condition` with an error, if their state allows it."""
    return change(RenderEvent.FAIL, condition).values(
        error_code=error.code, error_message=_storable(error.message), finished_at=time()
    )


def _storable(text: str) -> str:
    """Return the text without what a database refuses: NUL and unpaired surrogates."""
    return text.encode("utf-8", "replace").decode().replace("\x00", "\ufffd")


def give_back(ending: Ending, condition: ColumnElement[bool], max_attempts: int) -> list[str]:
    """Take back the claims under `condition`, whose holders are gone; return the request of each."""
    # SKIP LOCKED (PostgreSQL): a row that its holder is renewing or ending right now is not lost.
    found = ending.connection.execute(_columns_of_lost(condition).with_for_update(skip_locked=True)).all()
    # A failure cancels its siblings, so renders to be queued again come first.
    for row in sorted(found, key=lambda row: row.attempt >= max_attempts):
        changed = ending.apply(_end_of_lost(row, max_attempts))
        if changed and not row.cancel_requested and row.attempt >= max_attempts:
            cancel(ending, row.request_id)
    return [row.request_id for row in found]


def _columns_of_lost(condition: ColumnElement[bool]) -> Select[Any]:
    columns = (renders.c.id, renders.c.request_id, renders.c.attempt, renders.c.cancel_requested)
    return select(*columns).where(condition)


def _end_of_lost(row: Row[Any], max_attempts: int) -> Update:
    """Return the UPDATE for a render whose holder is gone: to canceled, failed or queued again."""
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


def cancel(ending: Ending, request_id: str) -> None:
    """Cancel the queued renders of a request, and mark its running ones for cancellation."""
    unfinished = and_(renders.c.request_id == request_id, renders.c.state.not_in(FINAL))
    # The first UPDATE locks the rows, so none can go from running back to queued before the second one.
    ending.connection.execute(update(renders).where(unfinished).values(cancel_requested=True))
    queued = and_(renders.c.request_id == request_id, renders.c.state == RenderState.QUEUED)
    ending.apply(change(RenderEvent.CANCEL, queued).values(finished_at=time()))
