"""One attempt at a delivery (at-least-once, exponential backoff), behind the SSRF guard.

Example:
    attempt = deliver(due, settings, master, ssl_context())  # blocking; the attempt says when the next one is due
"""

import random
import ssl
from http import HTTPStatus
from time import time

from pydantic import SecretStr

from serve_app.jobs.outbox import Attempt, DeliveryState, Due
from serve_app.net import Client, Deadline, Forbidden, NetPolicy, Transient
from serve_app.settings import Settings
from serve_app.webhooks.signing import secret_of, signed

LONGEST_WAIT_S = 3600.0
GIVE_UP_S = 24 * 3600.0
_JITTER = 0.1  # so that deliveries that failed together are not repeated together


def policy_of(settings: Settings) -> NetPolicy:
    """Return the network policy of webhooks: which addresses they may be sent to."""
    return NetPolicy(
        hosts=settings.webhook_hosts,
        private_hosts=settings.webhook_private_hosts,
        allow_http=settings.webhook_allow_http,
        max_redirects=0,  # a redirect means that the receiver has moved, and its client must register the new address
        connect_timeout_s=settings.webhook_timeout_s,
        read_timeout_s=settings.webhook_timeout_s,
    )


def deliver(due: Due, settings: Settings, master: SecretStr, context: ssl.SSLContext) -> Attempt:
    """Send the message once, and return the outcome. Blocking, for at most `webhook_timeout_s`."""
    at = time()
    status, error = None, None
    try:
        status = _status(due, settings, master, context, at)
    except (Forbidden, Transient) as fault:
        error = str(fault)
    if status is not None and HTTPStatus.OK <= status < HTTPStatus.MULTIPLE_CHOICES:
        return Attempt(at, status, None, DeliveryState.DELIVERED, at)
    if status is not None:
        error = f"the receiver answered {status}"
    next_at = time() + wait_s(due.attempts + 1, settings.webhook_backoff_s)
    is_over = status == HTTPStatus.GONE or next_at > due.created_at + GIVE_UP_S
    return Attempt(at, status, error, DeliveryState.GIVEN_UP if is_over else DeliveryState.PENDING, next_at)


def wait_s(attempts: int, first_s: float) -> float:
    """Return the seconds to wait after `attempts` failures: doubled each time, at most an hour, plus 10 % jitter."""
    wait = min(first_s * 2.0 ** min(attempts - 1, 30), LONGEST_WAIT_S)
    return wait * (1 + random.uniform(0, _JITTER))  # noqa: S311 - spreads load, guards nothing


def _status(due: Due, settings: Settings, master: SecretStr, context: ssl.SSLContext, at: float) -> int:
    headers = signed(secret_of(due.tenant, master), due.message_id, due.payload, at)
    with (
        Client(policy_of(settings), Deadline(settings.webhook_timeout_s), context) as client,
        client.stream("POST", due.url, headers=headers, content=due.payload.encode()) as response,
    ):
        return response.status_code
