"""What happens to a request with a webhook is recorded with the change itself, once, and told in order."""

import asyncio
import json
from typing import Any

from serve_app.errors import RenderFailed
from serve_app.jobs.outbox import Attempt, DeliveryState, Due
from serve_app.jobs.records import Webhook, WebhookEvent
from serve_app.jobs.store import JobStore
from tests.serve_app.jobs.helpers import claim_next, output, submit

EVERYTHING = tuple(WebhookEvent)


def hook(*events: WebhookEvent, host: str = "https://hooks.example.com") -> Webhook:
    return Webhook(url=f"{host}/done", host=host, events=events or EVERYTHING)


async def told(store: JobStore, due: Due, state: DeliveryState = DeliveryState.DELIVERED, next_at: float = 0) -> None:
    await store.outbox.attempted(due, Attempt(at=1.0, status=200, error=None, state=state, next_at=next_at))


async def everything_due(store: JobStore) -> list[dict[str, Any]]:
    """Tell what is due until nothing is; the payloads in their order."""
    payloads = []
    while due := await store.outbox.due(limit=10):
        for each in due:
            payloads.append(json.loads(each.payload))
            await told(store, each)
    return payloads


async def test_a_request_is_told_from_its_start_to_its_end(store: JobStore) -> None:
    request_id = await submit(store, 2, webhook=hook())
    assert await store.outbox.due(limit=10) == []
    for _ in range(2):
        claim = await claim_next(store)
        assert await store.claims.succeed(claim, output(claim))
    payloads = await everything_due(store)
    assert [(payload["type"], payload["data"].get("index")) for payload in payloads] == [
        ("request.started", None),
        ("request.output", 0),
        ("request.output", 1),
        ("request.ended", None),
    ]
    assert payloads[-1]["data"] == {"request_id": request_id, "model": "wan22_14b_t2v", "status": "succeeded"}


async def test_only_what_was_asked_for_is_told(store: JobStore) -> None:
    await submit(store, 2, webhook=hook(WebhookEvent.ENDED))
    await store.claims.fail(await claim_next(store), RenderFailed("the fox ran away"))
    (payload,) = await everything_due(store)
    assert payload["data"] | {"request_id": ""} == {
        "request_id": "",
        "model": "wan22_14b_t2v",
        "status": "failed",
        "error_code": "RENDER_FAILED",
        "error": "the fox ran away",
    }


async def test_a_canceled_request_ends_once_however_often_it_is_canceled(store: JobStore) -> None:
    request_id = await submit(store, webhook=hook())
    await store.requests.cancel(request_id)
    await store.requests.cancel(request_id)
    assert [payload["data"]["status"] for payload in await everything_due(store)] == ["canceled"]


async def test_a_lost_render_starts_once_and_ends_with_its_last_attempt(store: JobStore) -> None:
    await submit(store, webhook=hook())
    assert await store.claims.release(await claim_next(store), max_attempts=2)
    assert await store.claims.release(await claim_next(store), max_attempts=2)
    assert [payload["type"] for payload in await everything_due(store)] == ["request.started", "request.ended"]


async def test_renders_that_end_at_the_same_moment_end_the_request_once(store: JobStore) -> None:
    await submit(store, 4, webhook=hook(WebhookEvent.ENDED))
    claims = [await claim_next(store) for _ in range(4)]
    await asyncio.gather(*(store.claims.succeed(claim, output(claim)) for claim in claims))
    assert [payload["data"]["status"] for payload in await everything_due(store)] == ["succeeded"]


async def test_a_later_event_waits_for_an_earlier_one(store: JobStore) -> None:
    await submit(store, webhook=hook())
    claim = await claim_next(store)
    await store.claims.succeed(claim, output(claim))
    (started,) = await store.outbox.due(limit=10)
    await told(store, started, DeliveryState.PENDING, next_at=9e12)
    assert await store.outbox.due(limit=10) == []


async def test_a_later_event_is_told_once_an_earlier_one_is_given_up(store: JobStore) -> None:
    request_id = await submit(store, webhook=hook())
    claim = await claim_next(store)
    await store.claims.succeed(claim, output(claim))
    (started,) = await store.outbox.due(limit=10)
    await told(store, started, DeliveryState.GIVEN_UP)
    assert [payload["type"] for payload in await everything_due(store)] == ["request.output", "request.ended"]
    webhook, deliveries = await store.outbox.log(request_id)
    assert webhook == hook()
    assert [delivery.state for delivery in deliveries] == ["given_up", "delivered", "delivered"]


async def test_busy_hosts_and_what_is_under_way_are_left_out(store: JobStore) -> None:
    for host in ("https://slow.example.com", "https://quick.example.com"):
        await store.requests.cancel(await submit(store, webhook=hook(host=host)))
    slow, quick = await store.outbox.due(limit=10)
    assert await store.outbox.due(limit=10, but_hosts=["https://slow.example.com"]) == [quick]
    assert await store.outbox.due(limit=10, but_ids=[quick.id]) == [slow]


async def test_what_is_deleted_is_not_told(store: JobStore) -> None:
    request_id = await submit(store, webhook=hook())
    await store.requests.cancel(request_id)
    (due,) = await store.outbox.due(limit=10)
    await store.requests.remove(request_id)
    await told(store, due)  # one that was under way
    assert await store.outbox.due(limit=10) == []


async def test_a_request_without_a_webhook_records_nothing(store: JobStore) -> None:
    request_id = await submit(store)
    await store.requests.cancel(request_id)
    assert await store.outbox.due(limit=10) == []
    assert await store.outbox.log(request_id) == (None, [])
