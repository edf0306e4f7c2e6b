"""The guard (authorization): every path needs an API key with the right scope, unless it is named here as public.

    @router.post("/v1/loras/inspect")
    @needs(Scope.READ)  # else GET needs `read` and every other method `submit`
    async def inspect_loras(...): ...

It runs before the router, and before anything of a body is read. A path that it does not know needs a key, so a new
route is closed by default.
"""

from collections.abc import Callable, Sequence
from typing import Any, TypeVar

from fastapi.routing import APIRoute
from starlette.datastructures import Headers, QueryParams
from starlette.responses import Response
from starlette.routing import BaseRoute, Match
from starlette.types import ASGIApp, Receive, Scope, Send

from serve_app.access.keys import Scope as KeyScope
from serve_app.access.keys import allows
from serve_app.access.links import EXPIRES, SIGNATURE
from serve_app.api.access_log import entry_of
from serve_app.api.authentication import Authentication
from serve_app.api.error_handlers import response_of
from serve_app.api.rate_headers import RateHeaders
from serve_app.errors import KeyInvalid, KeyRequired, LinkInvalid, ScopeRequired, ServiceError
from serve_app.jobs.ownership import DEFAULT_TENANT, TENANT_HEADER, Sender, sender_with_key
from serve_app.settings import Settings

# Paths without anyone's data: liveness, the documentation, the files of the page.
PUBLIC_PATHS = frozenset({"/", "/health", "/health/live", "/health/ready", "/docs", "/openapi.json"})
PUBLIC_FOLDERS = ("/docs/", "/page/")

_READING = frozenset({"GET", "HEAD"})
_SENDER = "wan_lora.sender"
_NEEDED, _OPENED_BY_LINK = "needed_scope", "opened_by_link"

Endpoint = TypeVar("Endpoint", bound=Callable[..., Any])


def needs(scope: KeyScope) -> Callable[[Endpoint], Endpoint]:
    """Return a decorator that sets the scope that an endpoint needs."""

    def mark(endpoint: Endpoint) -> Endpoint:
        setattr(endpoint, _NEEDED, scope)
        return endpoint

    return mark


def opened_by_link(endpoint: Endpoint) -> Endpoint:
    """Mark an endpoint as open to signed links, too (decorator). It must serve only what its path names."""
    setattr(endpoint, _OPENED_BY_LINK, True)
    return endpoint


def sender_in(scope: Scope) -> Sender | None:
    """Return the sender that the guard found by an API key or a link; None if keys are off."""
    found: Sender | None = scope.get(_SENDER)
    return found


def needed_scope(route: APIRoute | None, method: str) -> KeyScope:
    """Return the scope that a key must have for a method of a route."""
    by_method = KeyScope.READ if method in _READING else KeyScope.SUBMIT
    needed: KeyScope = getattr(route.endpoint, _NEEDED, by_method) if route else by_method
    return needed


def is_public(path: str) -> bool:
    """Return whether everyone may read what is at `path`."""
    return path in PUBLIC_PATHS or path.startswith(PUBLIC_FOLDERS)


class Guard:
    """ASGI middleware that checks API keys, scopes and rates, and records the sender of each request."""

    def __init__(
        self,
        app: ASGIApp,
        routes: Sequence[BaseRoute],
        authentication: Callable[[], Authentication],
        rates: Callable[[], RateHeaders],
        settings: Callable[[], Settings],
    ) -> None:
        """Take the routes, which may need another scope than their method says, and functions for the current state."""
        self._app = app
        self._authentication = authentication
        self._settings = settings
        self._rates = rates
        self._routes = [route for route in routes if isinstance(route, APIRoute)]

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Serve one request."""
        if scope["type"] == "http" and not (scope["method"] in _READING and is_public(_path(scope))):
            try:
                keys_on = await self._authentication().is_on()
                if keys_on:
                    await self._check(scope, self._route(scope))
                send = self._within_rate(scope, send, keys_on=keys_on)
            except ServiceError as refusal:
                entry_of(scope).code = refusal.code
                answer: Callable[[ServiceError], Response] = getattr(self._route(scope), "refused", response_of)
                await answer(refusal)(scope, receive, send)
                return
        await self._app(scope, receive, send)

    async def _check(self, scope: Scope, route: APIRoute | None) -> None:
        """Record the sender of the request. Raise ServiceError if the sender is unknown or not allowed to send it."""
        headers = Headers(scope=scope)
        if "authorization" in headers:
            sender = await self._authentication().sender(_token(headers["authorization"]))
            sender = sender_with_key(sender, headers.get(TENANT_HEADER))
            _check_scope(sender, needed_scope(route, scope["method"]))
        elif route is not None and hasattr(route.endpoint, _OPENED_BY_LINK) and _is_link(scope):
            sender = await self._opened(scope)
        else:
            raise KeyRequired(
                "an API key is needed: send the header `Authorization: Bearer <key>`; the service's operator makes "
                "keys with `wan-lora keys make`"
            )
        scope[_SENDER] = sender
        entry = entry_of(scope)
        entry.tenant, entry.key_id = sender.tenant, sender.key_id

    def _within_rate(self, scope: Scope, send: Send, *, keys_on: bool) -> Send:
        """Take one call from the tenant's rate; return `send` with the rest of the rate in the headers.

        Raises:
            RateExceeded: no call is left now.
        """
        sender, settings = sender_in(scope), self._settings()
        if keys_on and sender is not None and sender.key_id is None:
            return send  # a signed link: a browser may send any number of range requests
        named = Headers(scope=scope).get(TENANT_HEADER) if settings.trust_tenant_header else None
        return self._rates().checked(sender.tenant if sender else named or DEFAULT_TENANT, settings, send)

    async def _opened(self, scope: Scope) -> Sender:
        query = QueryParams(scope["query_string"])
        signer = await self._authentication().links()
        if signer is None or not signer.accepts(_path(scope), query[EXPIRES], query[SIGNATURE]):
            raise LinkInvalid(
                "this link has expired, or is not as it was given out; GET the result again for a new one",
                {"path": _path(scope)},
            )
        return Sender(DEFAULT_TENANT, owner=None, scopes=frozenset({KeyScope.READ}))

    def _route(self, scope: Scope) -> APIRoute | None:
        """Return the route that will serve the request; the router matches it again."""
        method = "GET" if scope["method"] == "HEAD" else scope["method"]
        asked = {**scope, "method": method}
        return next((route for route in self._routes if route.matches(asked)[0] is Match.FULL), None)


def _path(scope: Scope) -> str:
    """Return the path below the prefix at which the application is served."""
    path: str = scope["path"]
    prefix = scope.get("root_path", "").rstrip("/")
    return path.removeprefix(prefix) if prefix and path.startswith(f"{prefix}/") else path


def _is_link(scope: Scope) -> bool:
    query = QueryParams(scope["query_string"])
    return EXPIRES in query and SIGNATURE in query and scope["method"] in _READING


def _token(header: str) -> str:
    scheme, _, token = header.partition(" ")
    if scheme.lower() != "bearer":
        raise KeyInvalid("the header Authorization must be `Bearer <key>`", {"header": "Authorization"})
    return token.strip()


def _check_scope(sender: Sender, needed: KeyScope) -> None:
    if not allows(sender.scopes, needed):
        raise ScopeRequired(
            f"the API key lacks the scope `{needed.value}`; the operator of the service makes keys with it",
            {"scope": needed.value, "has": sorted(sender.scopes)},
        )
