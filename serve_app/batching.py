"""Group commit (batching) and single-flight for asyncio: concurrent calls share one transaction, or one answer.

Neither delays a call that comes alone:

    inserts = Batches(insert_all)      # async def insert_all(rows) -> one result a row
    row_id = await inserts.ask(row)    # many callers, one transaction

    reads = SharedAnswers(read)        # async def read(key) -> result
    value = await reads.ask(key)       # many callers of one key, one read
"""

import asyncio
from collections.abc import Awaitable, Callable, Hashable, Sequence
from functools import partial
from typing import Generic, TypeVar

from serve_app.tasks import detached

Item = TypeVar("Item")
Key = TypeVar("Key", bound=Hashable)
Result = TypeVar("Result")


class Batches(Generic[Item, Result]):
    """Group commit: passes items to `answer` in batches; while it answers one batch, the next one is collected.

    A single item is passed on at once, so there is no delay without concurrency. `answer` returns a result for each
    item of its batch, in order. It begins after all of them were asked, so it never returns data older than a question.
    """

    def __init__(
        self,
        answer: Callable[[Sequence[Item]], Awaitable[Sequence[Result]]],
        when_idle: Callable[[], object] | None = None,
    ) -> None:
        """Take the function that answers a batch, and `when_idle`, which is called when the last item is answered."""
        self._answer = answer
        self._when_idle = when_idle
        self._gathering: list[_Asked[Item, Result]] = []
        self._answering: asyncio.Task[None] | None = None

    def ask(self, item: Item) -> asyncio.Future[Result]:
        """Return the item's result, once its batch is answered; raises what the answer to its batch raised.

        The item of a caller that is canceled meanwhile may still be answered.
        """
        loop = asyncio.get_running_loop()
        result: asyncio.Future[Result] = loop.create_future()
        self._gathering.append((item, result))
        if self._answering is None:
            # Detached, because it answers many callers: if one is canceled, the others must still get their results.
            self._answering = detached(self._answer_all())
        return result

    async def _answer_all(self) -> None:
        try:
            while self._gathering:
                batch, self._gathering = self._gathering, []
                await self._answer_batch(batch)
        finally:
            self._answering = None
            if self._when_idle is not None:
                self._when_idle()

    async def _answer_batch(self, batch: "Sequence[_Asked[Item, Result]]") -> None:
        try:
            answered = list(zip(batch, await self._answer([item for item, _ in batch]), strict=True))
        except BaseException as error:
            for _, result in batch:
                if not result.done():
                    result.set_exception(error)
            if not isinstance(error, Exception):
                raise
        else:
            for (_, result), answer in answered:
                if not result.done():  # its caller was not canceled meanwhile
                    result.set_result(answer)


_Asked = tuple[Item, asyncio.Future[Result]]


class SharedAnswers(Generic[Key, Result]):
    """Single-flight: answers a question once for all concurrent callers; other questions do not wait for it.

    A call during an answer shares the next one, so that no answer is older than its question. Answers are not cached.
    """

    def __init__(self, answer: Callable[[Key], Awaitable[Result]]) -> None:
        self._answer = answer
        self._open: dict[Key, Batches[None, Result]] = {}

    def ask(self, key: Key) -> asyncio.Future[Result]:
        """Return the answer; raises what finding it raised."""
        question = self._open.get(key)
        if question is None:
            question = self._open[key] = Batches(partial(self._once, key), partial(self._open.pop, key))
        return question.ask(None)

    async def _once(self, key: Key, askers: Sequence[None]) -> Sequence[Result]:
        return [await self._answer(key)] * len(askers)
