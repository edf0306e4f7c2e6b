"""Headers for browsers: security headers of every answer (CSP), and which web pages may call the API (CORS).

Example:
    add_headers_for_browsers(app, settings.cors_origins)
"""

from collections.abc import Sequence

from fastapi import FastAPI
from starlette.datastructures import MutableHeaders
from starlette.middleware.cors import CORSMiddleware
from starlette.types import ASGIApp, Message, Receive, Scope, Send

_METHODS = ("GET", "HEAD", "POST", "PUT", "DELETE")
_TAKEN = (
    "Authorization",
    "Content-Encoding",
    "Content-Type",
    "Idempotency-Key",
    "If-None-Match",
    "If-Range",
    "Last-Event-ID",
    "Prefer",
    "Range",
    "X-Tenant",
)
_GIVEN = (
    "Accept-Ranges",
    "Content-Disposition",
    "Content-Range",
    "ETag",
    "Idempotency-Replayed",
    "Preference-Applied",
    "RateLimit",
    "RateLimit-Policy",
    "Retry-After",
    "WWW-Authenticate",
    "openai-poll-after-ms",
)
_PREFLIGHT_KEPT_S = 600

_HTML = "text/html"
_POLICIES = {  # Content-Security-Policy by the kind of the answer
    # Swagger UI starts from a script in its page.
    _HTML: "default-src 'self'; script-src 'self' 'unsafe-inline'; style-src 'self' 'unsafe-inline'; "
    "img-src 'self' data:; object-src 'none'; base-uri 'none'; frame-ancestors 'none'",
    # An output that is opened as a page: it may be shown, but nothing in it may run. A browser plays a video in a
    # sandbox only with allow-same-origin; that is harmless without scripts.
    "": "default-src 'none'; img-src 'self' data:; media-src 'self'; style-src 'unsafe-inline'; "
    "frame-ancestors 'none'; sandbox allow-same-origin",
}
_ALWAYS = {
    "X-Content-Type-Options": "nosniff",
    "Referrer-Policy": "no-referrer",  # the address of an output may hold a signature
}


def add_headers_for_browsers(app: FastAPI, origins: Sequence[str]) -> None:
    """Add security headers to every answer of `app`, and allow pages of these origins (`*`: all) to call it."""
    app.add_middleware(SecurityHeaders)
    if origins:
        app.add_middleware(
            CORSMiddleware,
            allow_origins=origins,
            allow_methods=_METHODS,
            allow_headers=_TAKEN,
            expose_headers=_GIVEN,
            max_age=_PREFLIGHT_KEPT_S,
        )


class SecurityHeaders:
    """ASGI middleware that adds the security headers that an answer does not have yet."""

    def __init__(self, app: ASGIApp) -> None:
        self._app = app

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Serve one request."""

        async def guarded(message: Message) -> None:
            if message["type"] == "http.response.start":
                headers = MutableHeaders(scope=message)
                kind = _HTML if headers.get("content-type", "").startswith(_HTML) else ""
                for name, value in {**_ALWAYS, "Content-Security-Policy": _POLICIES[kind]}.items():
                    headers.setdefault(name, value)
            await send(message)

        await self._app(scope, receive, guarded if scope["type"] == "http" else send)
