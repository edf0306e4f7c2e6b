"""Writes that arrive together are committed together."""

import asyncio
from collections.abc import Awaitable, Callable, Sequence
from typing import Generic, TypeVar

Item = TypeVar("Item")


class GroupCommit(Generic[Item]):
    """Hands items to `commit` in batches: while one batch is being committed, the next one gathers.

    A lone item is committed at once, so this costs nothing where there is no crowd.
    """

    def __init__(self, commit: Callable[[Sequence[Item]], Awaitable[None]]) -> None:
        self._commit = commit
        self._turn = asyncio.Lock()
        self._gathering: _Batch[Item] = _Batch()

    async def write(self, item: Item) -> None:
        """Return once the item's batch is committed, or raise what the commit of its batch raised.

        The item of a caller that is canceled meanwhile may be committed all the same.
        """
        batch = self._gathering
        batch.items.append(item)
        async with self._turn:
            if batch is self._gathering:  # the first of its batch to get the turn commits for all
                self._gathering = _Batch()
                batch.committed = asyncio.ensure_future(self._commit(batch.items))
                await asyncio.wait([batch.committed])
        await asyncio.shield(batch.committed)


class _Batch(Generic[Item]):
    committed: asyncio.Future[None]  # once it is this batch's turn

    def __init__(self) -> None:
        self.items: list[Item] = []
