"""Rate limit headers: `RateLimit` and `RateLimit-Policy` of draft-ietf-httpapi-ratelimit-headers-10.

Example:
    send = RateHeaders().checked("team-a", settings, send)  # raises RateExceeded
"""

import math

from starlette.datastructures import MutableHeaders
from starlette.types import Message, Send

from serve_app.access.limits import TenantLimits
from serve_app.access.rates import Rate, Rates, RateState
from serve_app.errors import RateExceeded
from serve_app.settings import Settings

_NAME = "requests_per_s"  # of the policy, as of the limit
_BURST_S = 2.0  # without a burst in the settings: the calls of so many seconds may come at once


class RateHeaders:
    """The rates of the tenants at one Ingress."""

    def __init__(self) -> None:
        self._rates = Rates()

    def checked(self, tenant: str, settings: Settings, send: Send) -> Send:
        """Take one call from the tenant's rate; return `send` with headers that say what is left, if there is a limit.

        Raises:
            RateExceeded: no call is left now.
        """
        limits = settings.limits_of(tenant)
        if limits.requests_per_s is None:
            return send
        rate = _rate(limits, limits.requests_per_s).shared_by(settings.ingress_replicas)
        state = self._rates.take(tenant, rate)
        headers = _headers(rate, state)
        if not state.allowed:
            raise RateExceeded(
                f"more than {limits.requests_per_s:g} calls a second; try again in {state.next_in_s} s",
                {"limit_name": _NAME, "limit": limits.requests_per_s, "retry_after_s": state.next_in_s},
                retry_after_s=state.next_in_s,
                headers=headers,
            )

        async def with_headers(message: Message) -> None:
            if message["type"] == "http.response.start":
                MutableHeaders(scope=message).update(headers)
            await send(message)

        return with_headers


def _rate(limits: TenantLimits, per_s: float) -> Rate:
    return Rate(per_s, limits.burst or max(1, math.ceil(per_s * _BURST_S)))


def _headers(rate: Rate, state: RateState) -> dict[str, str]:
    """Return q: calls of a whole bucket, w: seconds in which it fills; r: calls left, t: seconds until it is full."""
    window_s = math.ceil(rate.burst / rate.per_s)
    return {
        "RateLimit-Policy": f'"{_NAME}";q={rate.burst};w={window_s}',
        "RateLimit": f'"{_NAME}";r={state.remaining};t={state.full_in_s}',
    }
