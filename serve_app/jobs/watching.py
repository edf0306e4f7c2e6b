"""Change polling for watched requests: one read serves all watchers, whatever the number of requests.

Example:
    news = await store.requests.look(known, shown={render_id: step}, places=True)

A look reads one short row for each watched render. A request is read as a whole only if more has changed than its
number of steps, because a whole request is a hundred times as long.
"""

from collections.abc import Mapping
from dataclasses import dataclass, field, replace

from sqlalchemy import Connection, RowMapping, select

from serve_app.jobs.records import Preview, RenderRecord, RequestRecord
from serve_app.jobs.rows import read_requests
from serve_app.jobs.standings import Place, read_places
from serve_app.jobs.states import RenderState
from serve_app.jobs.tables import previews, renders


@dataclass(frozen=True, slots=True)
class News:
    """What has changed since the last look, by the ids of requests and, for previews, of renders."""

    records: Mapping[str, RequestRecord] = field(default_factory=dict)
    gone: frozenset[str] = frozenset()  # deleted
    places: Mapping[str, Place] = field(default_factory=dict)  # of all that wait; empty unless asked for
    previews: Mapping[int, Preview] = field(default_factory=dict)


def read_news(
    connection: Connection, known: Mapping[str, RequestRecord], shown: Mapping[int, int], *, places: bool
) -> News:
    """Return what has changed of the requests in `known`, which are as they were last read.

    Args:
        connection: in autocommit mode.
        known: by id.
        shown: the steps of the last previews, by render, of those renders whose previews are wanted.
        places: whether the places in the queue are wanted, which takes two more statements.
    """
    found: dict[str, list[RowMapping]] = {request_id: [] for request_id in known}
    for row in connection.execute(_PROGRESS.where(renders.c.request_id.in_(known))).mappings():
        found[row["request_id"]].append(row)
    gone = frozenset(request_id for request_id, rows in found.items() if not rows)
    moved = {
        request_id: record
        for request_id, rows in found.items()
        if rows and (record := _moved(known[request_id], rows)) is not known[request_id]
    }
    changed = [request_id for request_id, record in moved.items() if record is None]
    read = read_requests(connection, [(request_id, None) for request_id in changed]) if changed else {}
    records = {request_id: record for request_id, record in moved.items() if record is not None}
    records |= {request_id: record for (request_id, _), record in read.items()}
    current = {request_id: records.get(request_id, record) for request_id, record in known.items()}
    return News(
        records=records,
        gone=gone,
        places=read_places(connection, current.values()) if places else {},
        previews=_read_previews(connection, shown) if shown else {},
    )


_PROGRESS = select(
    renders.c.request_id, renders.c.id, renders.c.state, renders.c.steps_done, renders.c.attempt
).order_by(renders.c.request_id, renders.c.index)


def _moved(known: RequestRecord, rows: list[RowMapping]) -> RequestRecord | None:
    """Return the record with its current steps, `known` itself if nothing changed, or None if anything else changed."""
    if [(row["id"], row["state"], row["attempt"]) for row in rows] != [
        (r.id, r.state, r.attempt) for r in known.renders
    ]:
        return None
    if [row["steps_done"] for row in rows] == [render.steps_done for render in known.renders]:
        return known
    moved = zip(known.renders, rows, strict=True)
    return replace(known, renders=tuple(replace(render, steps_done=row["steps_done"]) for render, row in moved))


def _read_previews(connection: Connection, shown: Mapping[int, int]) -> dict[int, Preview]:
    """Return the previews of these renders that are of another step than the last one."""
    steps = connection.execute(select(previews.c.render_id, previews.c.step).where(previews.c.render_id.in_(shown)))
    newer = [row.render_id for row in steps if row.step != shown[row.render_id]]
    if not newer:
        return {}
    rows = connection.execute(select(previews).where(previews.c.render_id.in_(newer)))
    return {row.render_id: Preview(row.step, bytes(row.image)) for row in rows}


def wants_preview(render: RenderRecord) -> bool:
    """Return whether a render produces previews now."""
    return render.spec.previews and render.state is RenderState.PROCESSING
