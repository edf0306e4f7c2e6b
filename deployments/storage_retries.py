"""Retries of output storage under the lease: a finished render is kept until it can be stored; claims pause meanwhile.

Example:
    kept = await retries.kept(attempt, partial(outputs.put, name, path, media_type), outputs, size)

A test file of the same size shows whether the output store fails or only this file. If the test file fails, too, the
work is retried for as long as the lease can be held. If it can be stored, the render fails after a few tries.
"""

import logging
from collections.abc import Awaitable, Callable
from time import monotonic
from typing import TypeVar

from deployments.attempt import Attempt
from serve_app.errors import OutputNotWritten, StoreUnavailable
from serve_app.jobs.coordination import OUTPUTS_FAIL
from serve_app.jobs.store import JobStore
from serve_app.outputs import OutputStore
from serve_app.tasks import happened

logger = logging.getLogger("ray.serve.wan")

TRIES = 3  # for one file, in a store that accepts other files
RETRY_S = 1.0
_REMIND_S = 60.0  # between two lines in the log

Result = TypeVar("Result")


class StorageRetries:
    """Retries work that stores an output, and holds the pause in the job store while the output store fails."""

    def __init__(self, store: JobStore, lease_s: float) -> None:
        self._pause = store.leadership(OUTPUTS_FAIL)
        self._lease_s = lease_s

    async def kept(
        self, attempt: Attempt, work: Callable[[], Awaitable[Result]], place: OutputStore, size: int
    ) -> Result:
        """Return the result of `work`, which stores `size` bytes at `place`, as soon as it succeeds.

        Raises:
            AttemptAborted: the render was canceled, or its lease is lost.
            OutputNotWritten: the place takes other files, but not this one.
        """
        tries, told, paused = 0, -_REMIND_S, False
        try:
            while True:
                try:
                    return await work()
                except OutputNotWritten as error:
                    attempt.check()
                    attempt.lives()
                    if await _takes_others(place, size):
                        tries += 1
                        if tries == TRIES:
                            raise
                    else:
                        paused = await self._hold_pause() or paused
                    if monotonic() - told >= _REMIND_S:
                        told = monotonic()
                        logger.error("%s; the finished render is kept, and stored once that is possible", error)
                if await happened(attempt.stopped, RETRY_S):
                    attempt.check()
        finally:
            if paused:
                await self._end_pause()

    async def _hold_pause(self) -> bool:
        try:
            return await self._pause.hold(self._lease_s, 0)
        except StoreUnavailable:
            return False  # the job store does not answer, so nothing can be claimed

    async def _end_pause(self) -> None:
        try:
            await self._pause.resign()
        except StoreUnavailable as error:
            logger.warning("%s; the pause ends with its lease", error)


async def _takes_others(place: OutputStore, size: int) -> bool:
    try:
        await place.look(size)
    except OutputNotWritten:
        return False
    return True
