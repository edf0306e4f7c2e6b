"""Group commit: a lone item at once, a crowd in the next batch, errors for their own batch only."""

import asyncio
from collections.abc import Sequence

import pytest

from serve_app.batching import Batches


class Ledger:
    """Records batches; a commit takes a moment, and one that holds a forbidden number fails whole.

    The result of a number is its tenfold.
    """

    def __init__(self) -> None:
        self.batches: list[list[int]] = []

    async def commit(self, batch: Sequence[int]) -> Sequence[int]:
        await asyncio.sleep(0.01)
        if 13 in batch:
            raise ValueError("13")
        self.batches.append(list(batch))
        return [10 * number for number in batch]

    def committed(self) -> list[int]:
        return [number for batch in self.batches for number in batch]


async def test_a_lone_item_is_committed_by_itself() -> None:
    ledger = Ledger()
    assert await Batches(ledger.commit).ask(1) == 10
    assert ledger.batches == [[1]]


async def test_a_crowd_shares_the_commit_after_the_running_one() -> None:
    ledger = Ledger()
    batches = Batches(ledger.commit)
    results = await asyncio.gather(*(batches.ask(number) for number in range(100, 150)))
    assert results == [10 * number for number in range(100, 150)]
    assert sorted(ledger.committed()) == list(range(100, 150))
    assert len(ledger.batches) <= 2


async def test_nobody_is_answered_before_the_commit() -> None:
    ledger = Ledger()
    batches = Batches(ledger.commit)

    async def write(number: int) -> bool:
        await batches.ask(number)
        return any(number in batch for batch in ledger.batches)

    assert all(await asyncio.gather(*(write(number) for number in range(100, 120))))


async def test_a_failed_commit_fails_its_batch_and_no_other() -> None:
    ledger = Ledger()
    batches = Batches(ledger.commit)
    first = batches.ask(1)
    await asyncio.sleep(0)
    results = await asyncio.gather(batches.ask(13), batches.ask(2), return_exceptions=True)
    await first
    assert [type(result) for result in results] == [ValueError, ValueError]
    await batches.ask(3)
    assert ledger.batches == [[1], [3]]


@pytest.mark.parametrize("canceled", [0, 1, 2])
async def test_a_caller_that_leaves_disturbs_no_other_caller(canceled: int) -> None:
    ledger = Ledger()
    batches = Batches(ledger.commit)
    tasks = [batches.ask(number) for number in range(3)]
    await asyncio.sleep(0.001)
    tasks[canceled].cancel()
    results = await asyncio.gather(*tasks, return_exceptions=True)
    stayed = {number: result for number, result in enumerate(results) if number != canceled}
    assert stayed == {number: 10 * number for number in range(3) if number != canceled}
    assert {number for number in range(3) if number != canceled} <= set(ledger.committed())
