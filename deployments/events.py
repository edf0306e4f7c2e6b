"""Waiting for an event, but not for ever."""

import asyncio


async def happened(event: asyncio.Event, within_s: float) -> bool:
    """Wait for `event` at most that many seconds; whether it is set."""
    try:
        await asyncio.wait_for(event.wait(), within_s)
    except TimeoutError:
        return False
    return True
