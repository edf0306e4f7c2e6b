"""Schemas of the log of a request's webhook."""

from pydantic import BaseModel, Field

from serve_app.jobs.outbox import DeliveryState
from serve_app.jobs.records import WebhookEvent

_TIME = "2026-01-17T00:00:00.000Z"


class WebhookAttempt(BaseModel):
    """One attempt at a delivery."""

    attempt: int = Field(description="From 1.", examples=[1])
    at: str = Field(examples=[_TIME])
    status: int | None = Field(description="HTTP status of the answer; null where there was none.", examples=[503])
    error: str | None = Field(description="Null where it was delivered.", examples=["the receiver answered 503"])


class WebhookDelivery(BaseModel):
    """One message to the webhook."""

    id: str = Field(description="The header `webhook-id` of every attempt.", examples=["msg_2c9d"])
    event: WebhookEvent = Field(description="What it tells.")
    index: int | None = Field(description="Of the prompt, for `output`.")
    state: DeliveryState = Field(
        description="`pending`, `delivered`, or `given_up`: after a day, or once the receiver has answered 410."
    )
    created_at: str = Field(description="When it happened.", examples=[_TIME])
    next_attempt_at: str | None = Field(description="Of a pending one.", examples=[_TIME])
    attempts: list[WebhookAttempt] = Field(description="In their order.")


class WebhookLog(BaseModel):
    """A request's webhook, and what it was told."""

    url: str | None = Field(description="Null where the request has none.")
    events: list[WebhookEvent] = Field(description="What it wants to hear.")
    deliveries: list[WebhookDelivery] = Field(description="In the order in which they are told.")
