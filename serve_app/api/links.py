"""Links in answers (Host header injection): which host they may name, and the signatures of those to outputs.

A client can write anything into the Host header, and a link with that host may reach other people through a cache or a
log. So a link begins with the arg `base_url`. Without `base_url` it names the called host if `allowed_hosts` has
it. Else it names no host (`/v1/requests/...`).
"""

from collections.abc import Sequence
from dataclasses import dataclass
from fnmatch import fnmatchcase
from http import HTTPStatus
from ipaddress import ip_address
from typing import Annotated
from urllib.parse import urlencode, urlsplit

from fastapi import Depends, Request
from starlette.datastructures import URL, MutableHeaders
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from serve_app.access.links import LinkSigner
from serve_app.api.authentication import Authentication
from serve_app.api.dependencies import services_in

_LONGEST_HOST = 253  # characters of a name in the DNS
# Names that nobody can register: RFC 6761 (localhost, test), 6762 (local), 8375 (home.arpa), ICANN's internal; and the
# private domains of routers and Kubernetes.
_PRIVATE_DOMAINS = ("localhost", "local", "internal", "home.arpa", "test", "lan", "svc", "svc.cluster.local")


def _public_root(request: Request) -> str:
    """Return what comes before a path in links, without a slash at its end."""
    settings = services_in(request).plan.settings
    if settings.base_url:
        return settings.base_url
    url = request.base_url
    host = _plain(url.hostname)
    known = _is_private(host, request) if settings.allowed_hosts is None else _matches(host, settings.allowed_hosts)
    # Where the header is no host at all, Starlette takes the address that the server listens at.
    readable = url.netloc == request.headers.get("host") and len(host) <= _LONGEST_HOST
    return str(url).rstrip("/") if known and readable else url.path.rstrip("/")


@dataclass(frozen=True, slots=True)
class OutputLinks:
    """Makes links to outputs; where keys are on, signed ones, which a browser or a webhook's receiver can follow."""

    root: str  # before the path, without a slash at its end
    signer: LinkSigner | None
    lifetime_s: float

    def output(self, request_id: str, index: int, **parameters: str) -> str:
        """Return the address of an output, with further parameters of its query."""
        path = f"/v1/requests/{request_id}/outputs/{index}"
        signed = {} if self.signer is None else self.signer.query(path, self.lifetime_s)
        query = urlencode({**parameters, **signed})
        return f"{self.root}{path}?{query}" if query else f"{self.root}{path}"


async def _output_links(request: Request) -> OutputLinks:
    authentication: Authentication = request.app.state.authentication
    lifetime_s = services_in(request).plan.settings.link_lifetime_s
    return OutputLinks(_public_root(request), await authentication.links(), lifetime_s)


OutputLinksDep = Annotated[OutputLinks, Depends(_output_links)]


class RootedRedirects:
    """ASGI middleware that has Starlette's redirects from `/v1/models/` to `/v1/models` name no host."""

    def __init__(self, app: ASGIApp) -> None:
        self._app = app

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Serve one request."""

        async def rooted(message: Message) -> None:
            if message["type"] == "http.response.start" and message["status"] == HTTPStatus.TEMPORARY_REDIRECT:
                headers = MutableHeaders(scope=message)
                target = urlsplit(headers["location"])
                if target.netloc == URL(scope=scope).netloc:  # not the address of an output in a bucket
                    headers["location"] = target._replace(scheme="", netloc="").geturl()
            await send(message)

        await self._app(scope, receive, rooted if scope["type"] == "http" else send)


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
