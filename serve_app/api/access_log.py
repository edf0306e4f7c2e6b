"""Access log (audit trail): one line for each request that may change something, with who, what, which id, verdict.

    POST /v1/inference from 10.0.0.7 (team-a): b3e6e2e0-5d0c-4c3e-9d38-0d3f7f6a4b11, 200
    POST /v1/inference from 10.0.0.7 (team-a, key 9f2c41d07be3a865): -, 400 LORA_NOT_FOUND
    DELETE /v1/requests/{request_id} from 10.0.0.7 (team-a): b3e6e2e0-5d0c-4c3e-9d38-0d3f7f6a4b11, 409 REQUEST_NOT_ENDED

No line contains anything of a body or a query, because they contain prompts, tokens and signatures.
"""

import logging
from dataclasses import dataclass

from starlette.types import ASGIApp, Message, Receive, Scope, Send

from serve_app.echo import cut

# The Ingress logs at WARNING, because Serve's own line for each call would hide every other line. This logger has its
# own level, and the handlers of its parent.
logger = logging.getLogger("ray.serve.wan.requests")
logger.setLevel(logging.INFO)

_READING = frozenset({"GET", "HEAD", "OPTIONS"})
_KEY = "wan_lora.entry"
_LONGEST = 80  # of a value that a client chose
_UNKNOWN = "-"
_FAILED = 500


@dataclass(slots=True)
class Entry:
    """The values of one line, filled in while the request is processed."""

    tenant: str = _UNKNOWN
    key_id: str | None = None  # of the API key
    request_id: str = _UNKNOWN
    code: str = ""  # of the error
    status: int | None = None  # None: no answer was sent, because the client has disconnected


def entry_of(scope: Scope) -> Entry:
    """Return the entry of the request with that scope, to be completed."""
    state = scope.setdefault("state", {})
    entry: Entry = state.setdefault(_KEY, Entry())
    return entry


class AccessLog:
    """ASGI middleware that writes the line when the answer has been sent."""

    def __init__(self, app: ASGIApp) -> None:
        self._app = app

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Serve one request."""
        if scope["type"] != "http" or scope["method"] in _READING:
            await self._app(scope, receive, send)
            return
        entry = entry_of(scope)

        async def noting(message: Message) -> None:
            if message["type"] == "http.response.start":
                entry.status = message["status"]
            await send(message)

        try:
            await self._app(scope, receive, noting)
        except Exception:
            entry.status = entry.status or _FAILED
            raise
        finally:
            _write(scope, entry)


def _write(scope: Scope, entry: Entry) -> None:
    client, _port = scope.get("client") or (_UNKNOWN, None)
    logger.info(
        "%s %s from %s (%s): %s, %s%s",
        _harmless(scope["method"]),
        _path(scope),
        client,
        entry.tenant if entry.key_id is None else f"{entry.tenant}, key {entry.key_id}",
        _harmless(scope.get("path_params", {}).get("request_id", entry.request_id)),
        entry.status or "no answer",
        f" {entry.code}" if entry.code else "",
    )


def _path(scope: Scope) -> str:
    """Return the path of the route; that of the request if there is no route."""
    return getattr(scope.get("route"), "path", "") or _harmless(scope["path"])


def _harmless(text: str) -> str:
    """Return a client's text for a log line: truncated, and without characters that could begin a new line."""
    return ascii(cut(text, _LONGEST))[1:-1]
