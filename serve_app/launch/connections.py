"""Connection timeouts of Serve's Python proxy (slow-loris protection): heads must arrive, and answers be read, in time.

uvicorn closes a connection that is idle after an answer (`keep_alive_timeout_s` of Serve's `http_options`), and waits
forever for a first request, or for the rest of a head. Serve hands uvicorn no option for that, but calls a function in
the proxy's process before it starts to listen:

    RAY_SERVE_HTTP_PROXY_CALLBACK_IMPORT_PATH=serve_app.launch.connections.limit_heads
    WAN_LORA_HEAD_TIMEOUT_S=15
    WAN_LORA_READ_TIMEOUT_S=60

The last is for a client that takes nothing of an answer: without it, the connection and its place last as long as the
client likes. What a client sends of a body behind the answer to it (413, say) is read slowly: uvicorn reads all of it,
for nobody, at the cost of other clients. `wan-lora serve` sets the first.

HAProxy in its place has a timeout of its own, `RAY_SERVE_HAPROXY_TIMEOUT_CLIENT_S`, which is an hour by default. Bodies
are timed by the application itself, with the arg `body_timeout_s`.
"""

import asyncio
import os
import time
from typing import Any

from starlette.middleware import Middleware
from uvicorn.protocols.http import auto
from uvicorn.protocols.http.httptools_impl import HttpToolsProtocol

# What a cluster that starts now has in its environment, unless an operator says otherwise.
ENVIRONMENT = {
    "RAY_SERVE_HTTP_PROXY_CALLBACK_IMPORT_PATH": "serve_app.launch.connections.limit_heads",
    "RAY_SERVE_HAPROXY_TIMEOUT_CLIENT_S": "60",
}
_VARIABLE = "WAN_LORA_HEAD_TIMEOUT_S"
_DEFAULT_S = 15.0
_UNREAD_VARIABLE = "WAN_LORA_READ_TIMEOUT_S"
_UNREAD_DEFAULT_S = 60.0  # as HAProxy's above
_DISCARDED_BYTES_PER_S = 64 * 2**20  # of all connections together: some percent of a core


def limit_heads() -> list[Middleware]:
    """Make this process's uvicorn close connections whose head does not arrive in time; return no middleware."""
    auto.AutoHTTPProtocol = TimedHeads
    return []


class Discarding:
    """Says when the next bytes that nobody needs may be read; all connections of the process take turns."""

    def __init__(self) -> None:
        self._free_at = 0.0

    def wait_s(self, size: int) -> float:
        """Return for how long not to read after `size` bytes."""
        now = time.monotonic()
        self._free_at = max(self._free_at, now) + size / _DISCARDED_BYTES_PER_S
        return self._free_at - now


class TimedHeads(HttpToolsProtocol):
    """uvicorn's protocol, which closes the connection if a head is not complete in time, counted from its first byte.

    The first head of a connection is counted from its start. It also ends a connection whose client reads nothing while
    an answer waits to be sent, and reads slowly what arrives of a body that is answered already.
    """

    _discarding = Discarding()
    _needless = False  # whether a part of what has just arrived belongs to a body that is answered
    _resting: asyncio.TimerHandle | None = None
    _late: asyncio.TimerHandle | None = None
    _unread: asyncio.TimerHandle | None = None

    def connection_made(self, transport: asyncio.Transport) -> None:  # type: ignore[override]  # as in the base class
        """Begin to wait for the first head."""
        super().connection_made(transport)
        self._wait()

    def on_message_begin(self) -> None:
        """Begin to wait for the rest of a head."""
        super().on_message_begin()
        self._wait()

    def on_headers_complete(self) -> None:
        """End the wait."""
        self._stop()
        super().on_headers_complete()

    def data_received(self, data: bytes) -> None:
        """Take what has arrived. If a part of it belongs to a body that is answered, read nothing more for a while."""
        self._needless = False
        super().data_received(data)
        if self._needless and self._resting is None:
            self.flow.pause_reading()
            self._resting = self.loop.call_later(self._discarding.wait_s(len(data)), self._read_on)
        if self._needless and self._late is None and self.cycle.response_complete:
            # uvicorn has ended its wait for the next request with these bytes, and would wait for the rest forever.
            self.timeout_keep_alive_task = self.loop.call_later(
                self.timeout_keep_alive, self.timeout_keep_alive_handler
            )

    def on_body(self, body: bytes) -> None:
        """Take a piece of the body, and note whether its answer is complete."""
        super().on_body(body)
        self._needless = self._needless or self.cycle.response_complete

    def pause_writing(self) -> None:
        """Begin to wait for the client to read: asyncio holds all that it may hold of the answer."""
        super().pause_writing()
        self._wait_for_reader()

    def resume_writing(self) -> None:
        """End that wait."""
        self._read()
        super().resume_writing()

    def connection_lost(self, exc: Exception | None) -> None:
        """End all waits."""
        self._stop()
        if self._resting is not None:
            self._resting.cancel()
        self._read()
        super().connection_lost(exc)

    def _wait(self) -> None:
        self._stop()
        self._late = self.loop.call_later(float(os.environ.get(_VARIABLE, _DEFAULT_S)), self._close)

    def _stop(self) -> None:
        if self._late is not None:
            self._late.cancel()
            self._late = None

    def _wait_for_reader(self, before: int | None = None) -> None:
        """End the connection if, since the last look, the client has read none of the `before` bytes that waited."""
        left: int = self.transport.get_write_buffer_size()
        if before is not None and left >= before:
            self.transport.abort()
            return
        late_s = float(os.environ.get(_UNREAD_VARIABLE, _UNREAD_DEFAULT_S))
        self._unread = self.loop.call_later(late_s, self._wait_for_reader, left)

    def _read(self) -> None:
        if self._unread is not None:
            self._unread.cancel()
            self._unread = None

    def _read_on(self) -> None:
        self._resting = None
        if not self.transport.is_closing():
            self.flow.resume_reading()

    def _close(self) -> None:
        transport: Any = self.transport
        if not transport.is_closing():
            transport.close()
