"""Webhooks of a request: the check of its URL (SSRF) at submission, and the log of its deliveries."""

from functools import partial

from fastapi import APIRouter

from serve_app.api.dependencies import SenderDep, Services, ServicesDep
from serve_app.api.requests import RequestId, known_form
from serve_app.api.schemas.answers import timestamp
from serve_app.api.schemas.bodies import RequestOptions
from serve_app.api.schemas.errors import NO_SUCH_REQUEST, UNAVAILABLE, WRONG_HEADER
from serve_app.api.schemas.webhooks import WebhookAttempt, WebhookDelivery, WebhookLog
from serve_app.errors import WebhookRefused
from serve_app.jobs.outbox import Delivery
from serve_app.jobs.records import Webhook, WebhookEvent
from serve_app.net import Forbidden, Transient, check_address, host_of
from serve_app.webhooks.delivery import policy_of

router = APIRouter(tags=["requests"], responses=UNAVAILABLE | WRONG_HEADER)


@router.get("/v1/requests/{request_id}/webhooks", responses=NO_SUCH_REQUEST)
async def webhooks(request_id: RequestId, services: ServicesDep, sender: SenderDep) -> WebhookLog:
    """Return what the request's webhook was told, with every attempt."""
    hook, deliveries = await services.store.outbox.log(known_form(request_id), owner=sender.owner)
    return WebhookLog(
        url=None if hook is None else hook.url,
        events=[] if hook is None else list(hook.events),
        deliveries=[_delivery(delivery) for delivery in deliveries],
    )


async def checked_webhook(body: RequestOptions, services: Services, fetcher: str) -> Webhook | None:
    """Return the webhook of a body after a check of its URL; None if it has none.

    Raises:
        WebhookRefused: the policy forbids the address, or its host's name is unknown.
        TooManyFetches: too many addresses are being checked.
    """
    if body.webhook_url is None:
        return None
    settings, url = services.plan.settings, body.webhook_url
    if settings.webhook_secret is None:
        raise _refused(
            "this server sends no webhooks: its operator must set WEBHOOK_SECRET, with which they are signed"
        )
    host = host_of(url)
    check = partial(check_address, url, policy_of(settings))
    try:
        await services.fetches.run(check, host=host, sender=fetcher)
    except (Forbidden, Transient) as fault:
        raise _refused(f"webhook_url is refused: {fault}") from None  # a cause may quote the address
    events = body.webhook_events or [WebhookEvent.ENDED]
    return Webhook(url=url, host=host, events=tuple(event for event in WebhookEvent if event in events))


def _refused(message: str) -> WebhookRefused:
    return WebhookRefused(message, {"field": "webhook_url"})


def _delivery(delivery: Delivery) -> WebhookDelivery:
    return WebhookDelivery(
        id=delivery.message_id,
        event=delivery.event,
        index=delivery.index,
        state=delivery.state,
        created_at=timestamp(delivery.created_at),
        next_attempt_at=timestamp(delivery.next_at),
        attempts=[
            WebhookAttempt(attempt=each.number, at=timestamp(each.at), status=each.status, error=each.error)
            for each in delivery.attempts
        ],
    )
