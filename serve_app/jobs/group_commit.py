"""Writes that arrive together are committed together."""

import asyncio
from collections.abc import Awaitable, Callable, Sequence
from typing import Generic, TypeVar

Item = TypeVar("Item")
Result = TypeVar("Result")


class GroupCommit(Generic[Item, Result]):
    """Hands items to `commit` in batches: while one batch is being committed, the next one gathers.

    A lone item is committed at once, so this costs nothing where there is no crowd. `commit` gives a result for each
    item of its batch, in order.
    """

    def __init__(self, commit: Callable[[Sequence[Item]], Awaitable[Sequence[Result]]]) -> None:
        self._commit = commit
        self._turn = asyncio.Lock()
        self._gathering: _Batch[Item, Result] = _Batch()

    async def write(self, item: Item) -> Result:
        """The item's result, once its batch is committed; raises what the commit of its batch raised.

        The item of a caller that is canceled meanwhile may be committed all the same.
        """
        batch = self._gathering
        place = len(batch.items)
        batch.items.append(item)
        async with self._turn:
            if batch is self._gathering:  # the first of its batch to get the turn commits for all
                self._gathering = _Batch()
                batch.committed = asyncio.ensure_future(self._commit(batch.items))
                await asyncio.wait([batch.committed])
        return (await asyncio.shield(batch.committed))[place]


class _Batch(Generic[Item, Result]):
    committed: asyncio.Future[Sequence[Result]]  # once it is this batch's turn

    def __init__(self) -> None:
        self.items: list[Item] = []
