"""Bulkhead for large bodies: bounded memory, and time on the event loop for other requests between two of them.

Example:
    with bodies.room() as take:
        take(len(chunk))     # TooManyBodies if large bodies use all of their memory
    await bodies.turn(len(body))
    content = parse(body)

A body up to `SMALL_BYTES` is not limited, so that clients with large bodies cannot keep out normal clients.
"""

import asyncio
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager

from serve_app.errors import TooManyBodies

SMALL_BYTES = 64 * 1024  # of a body: a request of a hundred prompts
_REST = 3  # pause after a turn, in multiples of the time that the turn took
_ROOM_BYTES = 128 * 1024**2  # memory for all larger bodies together


class LargeBodies:
    """Limits the memory and the time of one process for large bodies. Use it on one event loop."""

    def __init__(self, room_bytes: int = _ROOM_BYTES) -> None:
        self._room_bytes = room_bytes
        self._taken = 0
        self._turn = asyncio.Lock()
        self._rests_until = 0.0

    @contextmanager
    def room(self) -> Iterator[Callable[[int], None]]:
        """Reserve memory for a body during the block: call the yielded function with the size of each piece in bytes.

        Raises:
            TooManyBodies: there is no memory for the piece. If there is only one large body, it is not limited.
        """
        size = held = 0

        def take(piece: int) -> None:
            nonlocal size, held
            size += piece
            more = max(size - SMALL_BYTES, 0) - held
            if self._taken > held and self._taken + more > self._room_bytes:
                raise TooManyBodies("as many large bodies are being read as this service has memory for; retry later")
            self._taken += more
            held += more

        try:
            yield take
        finally:
            self._taken -= held

    async def turn(self, size: int) -> None:
        """Wait until a body of `size` bytes may be processed; the turn lasts until the caller waits for something.

        After each turn the event loop is free for other work, for three times as long as the turn took.
        """
        if size <= SMALL_BYTES:
            return
        await self._turn.acquire()
        try:
            await asyncio.sleep(max(self._rests_until - time.monotonic(), 0))
        except asyncio.CancelledError:
            self._turn.release()
            raise
        asyncio.get_running_loop().call_soon(self._end, time.monotonic())

    def _end(self, started: float) -> None:
        ended = time.monotonic()
        self._rests_until = ended + _REST * (ended - started)
        self._turn.release()
