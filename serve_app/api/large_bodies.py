"""Bulkhead for large bodies: bounded memory, and no two of them in a row on the event loop.

Example:
    with bodies.room() as take:
        take(len(chunk))     # TooManyBodies where large bodies hold as much memory as they may
    async with bodies.turn(len(body)):
        content = parse(body)

A body up to `SMALL_BYTES` passes freely, so that whoever fills the room keeps no normal client out.
"""

import asyncio
import time
from collections.abc import AsyncIterator, Callable, Iterator
from contextlib import asynccontextmanager, contextmanager

from serve_app.errors import TooManyBodies

SMALL_BYTES = 64 * 1024  # of a body: a request of a hundred prompts
_ROOM_BYTES = 128 * 1024**2  # of memory for all that are larger


class LargeBodies:
    """Shares out memory and time of one process between the bodies of its requests; call it in one event loop."""

    def __init__(self, room_bytes: int = _ROOM_BYTES) -> None:
        self._room_bytes = room_bytes
        self._taken = 0
        self._turn = asyncio.Lock()
        self._rests_until = 0.0

    @contextmanager
    def room(self) -> Iterator[Callable[[int], None]]:
        """Hold memory for a body during the block; what this yields is told of each piece, in bytes, as it arrives.

        Raises:
            TooManyBodies: there is no room for the piece. The only large body gets all that it needs.
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

    @asynccontextmanager
    async def turn(self, size: int) -> AsyncIterator[None]:
        """Have the block, which is work on a body of `size` bytes, wait for others of its kind.

        Between two of them the event loop is free for everything else, for as long as the first one took.
        """
        if size <= SMALL_BYTES:
            yield
            return
        async with self._turn:
            await asyncio.sleep(max(self._rests_until - time.monotonic(), 0))
            started = time.monotonic()
            yield
            ended = time.monotonic()
            self._rests_until = ended + (ended - started)
