"""The connection of both clients: the server's address, and the API key (bearer token), which only it gets (httpx2)."""

from collections.abc import Generator

import httpx2

from serve_app.errors import ServerUnreachable

HEADERS = {"User-Agent": "wan-lora-client", "Accept": "application/json"}


def server_at(address: str) -> httpx2.URL:
    """Return the address of a server, such as http://gpu-box:8000.

    Raises:
        ServerUnreachable: it is no address of a server.
    """
    try:
        url = httpx2.URL(address)
    except httpx2.InvalidURL:
        url = httpx2.URL()
    if url.scheme not in ("http", "https") or not url.host:
        raise ServerUnreachable(
            f"{address!r} is no address of a server; write it as http://host:8000", {"server": address}
        )
    return url


class BearerKey(httpx2.Auth):
    """Sends the key to one server. A link to another host, such as a bucket's, is followed without it."""

    def __init__(self, server: httpx2.URL, key: str | None) -> None:
        self._origin = _origin(server)
        self._key = key

    def auth_flow(self, request: httpx2.Request) -> Generator[httpx2.Request, httpx2.Response, None]:
        """Add the key to a request."""
        if self._key and _origin(request.url) == self._origin:
            request.headers["Authorization"] = f"Bearer {self._key}"
        yield request


def _origin(url: httpx2.URL) -> tuple[str, str, int | None]:
    return url.scheme, url.host, url.port
