"""Signatures of webhooks (HMAC-SHA256, Standard Webhooks), with a secret for each tenant.

A tenant's secret is derived from the secret of the service (`webhook_secret`), so it needs no storage.

Example:
    headers = signed(secret_of("team-a", master), "msg_1", payload, now)

A receiver verifies them with `standardwebhooks.Webhook(secret).verify(payload, headers)`.
"""

import base64
import hashlib
import hmac
from collections.abc import Mapping
from datetime import UTC, datetime

from pydantic import SecretStr
from standardwebhooks import Webhook


def secret_of(tenant: str, master: SecretStr) -> SecretStr:
    """Return the secret with which a tenant's receivers verify webhooks. It reveals nothing about other tenants'."""
    key = hmac.digest(master.get_secret_value().encode(), f"webhooks of {tenant}".encode(), hashlib.sha256)
    return SecretStr(f"whsec_{base64.b64encode(key).decode()}")


def signed(secret: SecretStr, message_id: str, payload: str, at: float) -> Mapping[str, str]:
    """Return the headers of a message that is sent at that time (seconds since the epoch)."""
    now = datetime.fromtimestamp(at, UTC)
    return {
        "Content-Type": "application/json",
        "webhook-id": message_id,
        "webhook-timestamp": str(int(now.timestamp())),
        "webhook-signature": Webhook(secret.get_secret_value()).sign(message_id, now, payload),
    }
