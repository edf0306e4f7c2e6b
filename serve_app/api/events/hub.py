"""Fan-out of changes: one read, a few times a second, covers all requests that have listeners in this process.

Example:
    hub = EventHub(store, describe)
    async with hub.watching(request_id, owner=sender.owner) as watch:
        while True:
            snapshot = watch.snapshot  # None once the request is deleted
            await watch.changed(within_s=15)

All listeners share the snapshots, so the reads do not grow with their number. Without listeners, nothing is read.
"""

import asyncio
import logging
from collections.abc import AsyncIterator, Callable, Iterable, Mapping, Sequence
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from time import monotonic

from pydantic import BaseModel

from serve_app.api.schemas.answers import RequestStatus
from serve_app.errors import StoreUnavailable
from serve_app.jobs.records import Preview, RequestRecord
from serve_app.jobs.standings import Standing
from serve_app.jobs.states import FINAL, RenderState
from serve_app.jobs.store import JobStore
from serve_app.jobs.watching import News, wants_preview
from serve_app.tasks import detached, happened

logger = logging.getLogger("ray.serve.wan")

LOOK_S = 0.3  # between two reads; heartbeats write progress every half second
PLACES_S = 2.0  # least time between two reads of positions in the queue, of which every waiting listener hears
# Listeners hear of positions one after another: told at once, five hundred hold the event loop for 0.15 s.
TOLD_PER_S = 100


@dataclass(frozen=True, slots=True)
class Snapshot:
    """A request as of the last read. `previews` are by the index of the prompt."""

    standing: Standing
    status: RequestStatus
    previews: Mapping[int, Preview] = field(default_factory=dict)
    _documents: dict[str, str] = field(default_factory=dict, compare=False, repr=False)

    def json(self, name: str, make: Callable[[], BaseModel]) -> str:
        """Return the JSON of a part of it, which is made for the first listener who hears of it."""
        document = self._documents.get(name)
        if document is None:
            document = self._documents[name] = make().model_dump_json()
        return document

    @property
    def record(self) -> RequestRecord:
        """Return the request."""
        return self.standing.record


class Watch:
    """One listener's view of a request."""

    def __init__(self, request: "_Watched") -> None:
        self._request = request
        self._news = asyncio.Event()
        request.listeners.add(self._news)

    @property
    def snapshot(self) -> Snapshot | None:
        """Return the request as of the last read; None after it was deleted."""
        return self._request.snapshot

    async def changed(self, within_s: float) -> bool:
        """Wait until there is a newer snapshot than at the last call; return whether there is one."""
        if not await happened(self._news, within_s):
            return False
        self._news.clear()
        return True

    async def ended(self, within_s: float) -> Snapshot | None:
        """Wait until the request has ended, and return it; None if that takes longer, or it is deleted."""
        deadline = monotonic() + within_s
        while (snapshot := self.snapshot) is not None and snapshot.record.state not in FINAL:
            left_s = deadline - monotonic()
            if left_s <= 0:
                return None
            await self.changed(left_s)
        return snapshot

    def close(self) -> None:
        """Stop listening."""
        self._request.listeners.discard(self._news)


@dataclass(slots=True)
class _Watched:
    snapshot: Snapshot | None
    listeners: set[asyncio.Event] = field(default_factory=set)

    def show(self, snapshot: Snapshot | None) -> None:
        self.snapshot = snapshot
        for listener in self.listeners:
            listener.set()


def _tell_one_by_one(listeners: Sequence[asyncio.Event]) -> None:
    loop = asyncio.get_running_loop()
    for number, listener in enumerate(listeners):
        loop.call_later(number / TOLD_PER_S, listener.set)


class EventHub:
    """The watched requests of one process. Use it on one event loop."""

    def __init__(self, store: JobStore, describe: Callable[[Standing], RequestStatus]) -> None:
        """`describe` makes the status that clients see."""
        self._store = store
        self._describe = describe
        self._watched: dict[str, _Watched] = {}
        self._looking: asyncio.Task[None] | None = None

    @asynccontextmanager
    async def watching(self, request_id: str, *, owner: str | None) -> AsyncIterator[Watch]:
        """Watch a request while the block runs.

        Raises:
            RequestNotFound: there is none with that id, or another tenant owns it.
            StoreUnavailable: the database did not answer.
        """
        standing = await self._store.requests.standing(request_id, owner=owner)
        request = self._watched.setdefault(request_id, _Watched(None))
        if request.snapshot is None:
            request.snapshot = self._snapshot(standing)
        watch = Watch(request)
        if self._looking is None:
            self._looking = detached(self._look_again_and_again())
        try:
            yield watch
        finally:
            watch.close()
            if not request.listeners and self._watched.get(request_id) is request:
                del self._watched[request_id]

    @property
    def _listening(self) -> int:
        return sum(len(request.listeners) for request in self._watched.values())

    def _snapshot(self, standing: Standing) -> Snapshot:
        return Snapshot(standing, self._describe(standing))

    async def _look_again_and_again(self) -> None:
        places_at = monotonic()
        try:
            while self._watched:
                await asyncio.sleep(LOOK_S)
                places = monotonic() - places_at >= max(PLACES_S, self._listening / TOLD_PER_S)
                places_at = monotonic() if places else places_at
                try:
                    await self._look(places=places)
                except StoreUnavailable as error:
                    logger.warning("%s; who listens hears of it when the store is back", error)
                except Exception:
                    logger.exception("a look at the watched requests failed")
        finally:
            self._looking = None

    async def _look(self, *, places: bool) -> None:
        snapshots = {
            request_id: request.snapshot
            for request_id, request in self._watched.items()
            if request.snapshot is not None
        }
        if not snapshots:
            return
        known = {request_id: snapshot.record for request_id, snapshot in snapshots.items()}
        news = await self._store.requests.look(known, _shown(snapshots.values()), places=places)
        waiting: list[asyncio.Event] = []
        for request_id, before in snapshots.items():
            request = self._watched.get(request_id)
            if request is None or request.snapshot is not before:  # the last listener has left
                continue
            if request_id in news.gone:
                request.show(None)
            elif (now := self._after(before, news, places=places)) == before:
                continue
            elif now.record == before.record and now.previews == before.previews:  # only its place is another
                request.snapshot = now
                waiting += request.listeners
            else:
                request.show(now)
        _tell_one_by_one(waiting)

    def _after(self, before: Snapshot, news: News, *, places: bool) -> Snapshot:
        record = news.records.get(before.record.id, before.record)
        # Until the next read of the queue, the last known position is better than none.
        place = news.places.get(record.id) if places else before.standing.place
        standing = Standing(record, place if _waits(record) else None)
        shown = dict(before.previews)
        for render in record.renders:
            if not wants_preview(render):
                shown.pop(render.index, None)
            elif render.id in news.previews:
                shown[render.index] = news.previews[render.id]
        if standing == before.standing:
            return before if shown == before.previews else Snapshot(before.standing, before.status, shown)
        return Snapshot(standing, self._describe(standing), shown)


def _waits(record: RequestRecord) -> bool:
    return any(render.state is RenderState.QUEUED for render in record.renders)


def _shown(snapshots: Iterable[Snapshot]) -> dict[int, int]:
    """Return the step of the preview that each render shows whose request wants some; 0 if there is none yet."""
    return {
        render.id: snapshot.previews[render.index].step if render.index in snapshot.previews else 0
        for snapshot in snapshots
        for render in snapshot.record.renders
        if wants_preview(render)
    }
