"""Streaming uploads: the pieces of a file, read anew for each attempt."""

import asyncio
from collections.abc import AsyncIterator, Iterator
from pathlib import Path

_PIECE = 1 << 20  # bytes


def pieces_of(path: Path) -> Iterator[bytes]:
    """Yield the content of a file."""
    with path.open("rb") as file:
        while piece := file.read(_PIECE):
            yield piece


async def async_pieces_of(path: Path) -> AsyncIterator[bytes]:
    """Yield the content of a file; it is read in a thread."""
    with await asyncio.to_thread(path.open, "rb") as file:
        while piece := await asyncio.to_thread(file.read, _PIECE):
            yield piece
