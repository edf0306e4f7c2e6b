"""Outgoing HTTP to addresses that clients name, behind an SSRF guard: LoRA sources, webhooks, image inputs.

Example:
    policy = NetPolicy(hosts=("*.example.com",))    # who may be reached, and how long it may take
    deadline = Deadline(30)

    def post() -> int:
        with Client(policy, deadline, ssl_context()) as client:
            with client.stream("POST", "https://hooks.example.com/done", content=b"{}") as response:
                return response.status_code

    status = retry(post, policy, deadline)

It raises two kinds of errors, which callers translate: `Forbidden` (the policy does not allow it; do not retry) and
`Transient` (a retry may help). Neither contains anything of the request except the host's name.
"""

from serve_app.net.bulkhead import Bulkhead, ShareLimits, host_of
from serve_app.net.client import Client, check_address, ssl_context
from serve_app.net.guard import AddressForbidden, Forbidden, HostForbidden, NetPolicy
from serve_app.net.retry import Deadline, TooSlow, Transient, retry

__all__ = [
    "AddressForbidden",
    "Bulkhead",
    "Client",
    "Deadline",
    "Forbidden",
    "HostForbidden",
    "NetPolicy",
    "ShareLimits",
    "TooSlow",
    "Transient",
    "check_address",
    "host_of",
    "retry",
    "ssl_context",
]
