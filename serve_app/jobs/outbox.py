"""The outbox of webhooks (transactional outbox): events are stored in the transaction of the change that caused them.

Example:
    record(connection, database, [request_id])         # in the transaction that changes the state of its renders
    due = await store.outbox.due(limit=50)             # deliveries to attempt now, oldest first
    await store.outbox.attempted(due[0], Attempt(...)) # the outcome

The deliveries of one request are made in the order of their ids: a later one waits until the earlier ones are delivered
or given up. `serve_app.webhooks` makes them.
"""

import json
from collections.abc import Collection, Iterable, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from enum import StrEnum
from time import time
from typing import Any
from uuid import uuid4

from sqlalchemy import Connection, Row, and_, exists, insert, select, update

from serve_app.jobs.database import Database
from serve_app.jobs.records import Webhook, WebhookEvent
from serve_app.jobs.rows import read_request
from serve_app.jobs.states import FINAL, RenderState, request_state
from serve_app.jobs.tables import renders, requests, webhook_attempts, webhook_deliveries, webhooks

_WHOLE = -1  # the index of an event of the whole request


class DeliveryState(StrEnum):
    """The state of a delivery."""

    PENDING = "pending"  # to be attempted, now or again later
    DELIVERED = "delivered"  # the receiver answered 2xx
    GIVEN_UP = "given_up"  # it did not for a day, or answered 410 (Gone): it wants no more events


@dataclass(frozen=True, slots=True)
class Due:
    """A delivery whose next attempt is due."""

    id: int
    request_id: str
    tenant: str
    url: str
    host: str
    message_id: str
    payload: str
    created_at: float
    attempts: int  # so far


@dataclass(frozen=True, slots=True)
class Attempt:
    """The outcome of one attempt at a delivery."""

    at: float
    status: int | None  # HTTP status of the answer; None if there was none
    error: str | None  # None if it was delivered
    state: DeliveryState  # of the delivery from now on
    next_at: float  # of one that is still pending


@dataclass(frozen=True, slots=True)
class LoggedAttempt:
    """One attempt in the log of a delivery; `number` counts from 1."""

    number: int
    at: float
    status: int | None
    error: str | None


@dataclass(frozen=True, slots=True)
class Delivery:
    """A delivery with its log."""

    message_id: str
    event: WebhookEvent
    index: int | None
    created_at: float
    state: DeliveryState
    next_at: float | None
    attempts: tuple[LoggedAttempt, ...]


class Outbox:
    """The webhooks of one database."""

    def __init__(self, database: Database) -> None:
        self._database = database

    async def due(self, *, limit: int, but_hosts: Collection[str] = (), but_ids: Collection[int] = ()) -> list[Due]:
        """Return the oldest deliveries that are due, at most one for each request.

        Deliveries to `but_hosts`, and those with `but_ids`, are left out.
        """
        earlier = webhook_deliveries.alias()
        is_first = ~exists().where(
            earlier.c.request_id == webhook_deliveries.c.request_id,
            earlier.c.state == DeliveryState.PENDING,
            earlier.c.id < webhook_deliveries.c.id,
        )
        query = (
            select(*_DUE)
            .join(webhooks, webhooks.c.request_id == webhook_deliveries.c.request_id)
            .join(requests, requests.c.id == webhook_deliveries.c.request_id)
            .where(
                webhook_deliveries.c.state == DeliveryState.PENDING,
                webhook_deliveries.c.next_at <= time(),
                webhooks.c.host.not_in(but_hosts),
                webhook_deliveries.c.id.not_in(but_ids),
                is_first,
            )
            .order_by(webhook_deliveries.c.next_at, webhook_deliveries.c.id)
            .limit(limit)
        )
        rows = await self._database.read(lambda connection: connection.execute(query).all())
        return [Due(**row._mapping) for row in rows]

    async def attempted(self, due: Due, attempt: Attempt) -> None:
        """Log an attempt and store the new state of its delivery; do nothing if the request was deleted meanwhile."""
        this = webhook_deliveries.c.id == due.id
        change = (
            update(webhook_deliveries)
            .where(this, webhook_deliveries.c.state == DeliveryState.PENDING)
            .values(state=attempt.state, attempts=webhook_deliveries.c.attempts + 1, next_at=attempt.next_at)
            .returning(webhook_deliveries.c.attempts)
        )

        def log(connection: Connection) -> None:
            number = connection.execute(change).scalar_one_or_none()
            if number is not None:
                row = {"delivery_id": due.id, "number": number, "at": attempt.at}
                connection.execute(insert(webhook_attempts).values(**row, status=attempt.status, error=attempt.error))

        await self._database.write(log)

    async def log(self, request_id: str, *, owner: str | None = None) -> tuple[Webhook | None, list[Delivery]]:
        """Return the webhook of a request, if it has one, and all its deliveries.

        Raises:
            RequestNotFound: there is none with that id, or another tenant owns it.
        """

        def read(connection: Connection) -> tuple[Webhook | None, list[Delivery]]:
            read_request(connection, request_id, owner)
            hook = connection.execute(select(webhooks).where(webhooks.c.request_id == request_id)).one_or_none()
            return (None, []) if hook is None else (_to_webhook(hook), _deliveries(connection, request_id))

        return await self._database.read(read)


_DUE = (
    webhook_deliveries.c.id,
    webhook_deliveries.c.request_id,
    requests.c.tenant,
    webhooks.c.url,
    webhooks.c.host,
    webhook_deliveries.c.message_id,
    webhook_deliveries.c.payload,
    webhook_deliveries.c.created_at,
    webhook_deliveries.c.attempts,
)


def record(connection: Connection, database: Database, request_ids: Iterable[str]) -> None:
    """Store the new events of those requests that have a webhook; call it after the change itself."""
    # The lock (PostgreSQL) makes two transactions that end renders of one request run one after the other, so that the
    # second one sees that all renders have ended. Lock order: renders first, then webhooks.
    hooks = select(webhooks).where(webhooks.c.request_id.in_(set(request_ids))).with_for_update()
    for hook in connection.execute(hooks).all():
        if new := _happened(connection, hook.request_id, _to_webhook(hook)):
            once = database.insert(webhook_deliveries).on_conflict_do_nothing(
                index_elements=["request_id", "event", "index"]
            )
            connection.execute(once, new)


def of_webhook(request_id: str, webhook: Webhook) -> dict[str, Any]:
    """Return its row in `webhooks`."""
    return {
        "request_id": request_id,
        "url": webhook.url,
        "host": webhook.host,
        "events": ",".join(webhook.events),
    }


def _to_webhook(row: Row[Any]) -> Webhook:
    return Webhook(url=row.url, host=row.host, events=tuple(WebhookEvent(name) for name in row.events.split(",")))


def _happened(connection: Connection, request_id: str, webhook: Webhook) -> list[dict[str, Any]]:
    """Return a row for each event of the request so far that its client has subscribed to."""
    columns = (renders.c.index, renders.c.state, renders.c.model, renders.c.error_code, renders.c.error_message)
    found = (
        connection.execute(select(*columns).where(renders.c.request_id == request_id).order_by(renders.c.index))
        .mappings()
        .all()
    )
    states = [RenderState(row["state"]) for row in found]
    data: dict[str, Any] = {"request_id": request_id, "model": found[0]["model"]}
    rows = []
    if any(state is not RenderState.QUEUED for state in states) and set(states) != {RenderState.CANCELED}:
        rows.append((WebhookEvent.STARTED, _WHOLE, data))
    rows += [
        (WebhookEvent.OUTPUT, row["index"], data | {"index": row["index"]})
        for row, state in zip(found, states, strict=True)
        if state is RenderState.SUCCEEDED
    ]
    if set(states) <= FINAL:
        failed = next((row for row, state in zip(found, states, strict=True) if state is RenderState.FAILED), None)
        why = {} if failed is None else {"error_code": failed["error_code"], "error": failed["error_message"]}
        rows.append((WebhookEvent.ENDED, _WHOLE, data | {"status": request_state(states)} | why))
    return [_of_delivery(request_id, *row) for row in rows if row[0] in webhook.events]


def _of_delivery(request_id: str, event: WebhookEvent, index: int, data: dict[str, Any]) -> dict[str, Any]:
    now = time()
    timestamp = datetime.fromtimestamp(now, UTC).isoformat(timespec="milliseconds").replace("+00:00", "Z")
    payload = {"type": f"request.{event}", "timestamp": timestamp, "data": data}
    return {
        "request_id": request_id,
        "event": event,
        "index": index,
        "message_id": f"msg_{uuid4().hex}",
        "payload": json.dumps(payload),
        "created_at": now,
        "state": DeliveryState.PENDING,
        "next_at": now,
    }


def _deliveries(connection: Connection, request_id: str) -> list[Delivery]:
    of_request = webhook_deliveries.c.request_id == request_id
    found = (
        connection.execute(select(webhook_deliveries).where(of_request).order_by(webhook_deliveries.c.id))
        .mappings()
        .all()
    )
    logged = connection.execute(
        select(webhook_attempts)
        .join(webhook_deliveries, and_(webhook_deliveries.c.id == webhook_attempts.c.delivery_id, of_request))
        .order_by(webhook_attempts.c.delivery_id, webhook_attempts.c.number)
    ).all()
    return [
        Delivery(
            message_id=row["message_id"],
            event=WebhookEvent(row["event"]),
            index=None if row["index"] == _WHOLE else row["index"],
            created_at=row["created_at"],
            state=DeliveryState(row["state"]),
            next_at=row["next_at"] if row["state"] == DeliveryState.PENDING else None,
            attempts=_attempts([each for each in logged if each.delivery_id == row["id"]]),
        )
        for row in found
    ]


def _attempts(logged: Sequence[Row[Any]]) -> tuple[LoggedAttempt, ...]:
    return tuple(LoggedAttempt(number=row.number, at=row.at, status=row.status, error=row.error) for row in logged)
