"""Calls that come together are answered together."""

import asyncio
from collections.abc import Awaitable, Callable, Hashable, Sequence
from functools import partial
from typing import Generic, TypeVar

Item = TypeVar("Item")
Key = TypeVar("Key", bound=Hashable)
Result = TypeVar("Result")


class Batches(Generic[Item, Result]):
    """Hands items to `answer` in batches: while it answers one batch, the next one gathers.

    A lone item is handed over at once, so this costs nothing where there is no crowd. `answer` gives a result for each
    item of its batch, in order; it begins after all of them were asked, so what it reads is no older than the question.
    """

    def __init__(self, answer: Callable[[Sequence[Item]], Awaitable[Sequence[Result]]]) -> None:
        self._answer = answer
        self._turn = asyncio.Lock()
        self._gathering: _Batch[Item, Result] = _Batch()

    async def ask(self, item: Item) -> Result:
        """The item's result, once its batch is answered; raises what the answer to its batch raised.

        The item of a caller that is canceled meanwhile may be answered all the same.
        """
        batch = self._gathering
        place = len(batch.items)
        batch.items.append(item)
        async with self._turn:
            if batch is self._gathering:  # the first of its batch to get the turn asks for all
                self._gathering = _Batch()
                batch.answered = asyncio.ensure_future(self._answer(batch.items))
                await asyncio.wait([batch.answered])
        return (await asyncio.shield(batch.answered))[place]


class _Batch(Generic[Item, Result]):
    answered: asyncio.Future[Sequence[Result]]  # once it is this batch's turn

    def __init__(self) -> None:
        self.items: list[Item] = []


class SharedAnswers(Generic[Key, Result]):
    """Answers a question once for all who ask it together; different questions do not wait for each other.

    Whoever asks while an answer is being found shares the next one, so that no answer is older than its question.
    Nothing is kept of questions that nobody is asking.
    """

    def __init__(self, answer: Callable[[Key], Awaitable[Result]]) -> None:
        self._answer = answer
        self._open: dict[Key, _Question[Result]] = {}

    async def ask(self, key: Key) -> Result:
        """The answer; raises what finding it raised."""
        question = self._open.get(key)
        if question is None:
            question = self._open[key] = _Question(partial(self._once, key))
        question.askers += 1
        try:
            return await question.batches.ask(None)
        finally:
            question.askers -= 1
            if not question.askers:
                del self._open[key]

    async def _once(self, key: Key, askers: Sequence[None]) -> Sequence[Result]:
        return [await self._answer(key)] * len(askers)


class _Question(Generic[Result]):
    def __init__(self, answer: Callable[[Sequence[None]], Awaitable[Sequence[Result]]]) -> None:
        self.batches = Batches(answer)
        self.askers = 0
