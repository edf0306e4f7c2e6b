"""Links in answers (Host header injection): which host they may name.

The Host header is whatever a client writes, and a link with it may reach somebody else, through a cache, a log, a chat.
So a link names the arg `base_url`; or else the host that was called, where it is one of the arg `allowed_hosts`; or
else none, and is rooted (`/v1/requests/...`).
"""

from collections.abc import Sequence
from fnmatch import fnmatchcase
from ipaddress import ip_address
from typing import Annotated

from fastapi import Depends, Request

from serve_app.api.dependencies import ServicesDep

# Names that no stranger can own: RFC 6761 (localhost, test), 6762 (local), 8375 (home.arpa), ICANN's internal; and what
# routers and Kubernetes call theirs.
_PRIVATE_DOMAINS = ("localhost", "local", "internal", "home.arpa", "test", "lan", "svc", "svc.cluster.local")


async def _public_root(request: Request, services: ServicesDep) -> str:
    """Return what comes before a path in links, without a slash at its end."""
    settings = services.plan.settings
    if settings.base_url:
        return settings.base_url
    url = request.base_url
    host = _plain(url.hostname)
    known = _is_private(host, request) if settings.allowed_hosts is None else _matches(host, settings.allowed_hosts)
    # Where the header is no host at all, Starlette takes the address that the server listens at.
    readable = url.netloc == request.headers.get("host")
    return str(url).rstrip("/") if known and readable else url.path.rstrip("/")


PublicRootDep = Annotated[str, Depends(_public_root)]


def _plain(host: str | None) -> str:
    return (host or "").strip("[]").rstrip(".").lower()


def _matches(host: str, patterns: Sequence[str]) -> bool:
    return any(fnmatchcase(host, _plain(pattern)) for pattern in patterns)


def _is_private(host: str, request: Request) -> bool:
    """Return whether `host` is an address of this network or of this server, or a name that only this network has."""
    try:
        address = ip_address(host)
    except ValueError:
        return bool(host) and ("." not in host or any(host.endswith(f".{domain}") for domain in _PRIVATE_DOMAINS))
    server, _port = request.scope.get("server") or ("", None)
    return not address.is_global or host == server
