"""Health of the output store: can a file be stored there now? Concurrent callers share one check (single-flight).

Example:
    place = StorageHealth(OutputStore.from_url("s3://bucket/videos"))
    problem = await place.problem()  # None: a file could be stored there within the last seconds
"""

import logging

from serve_app.errors import OutputNotWritten
from serve_app.freshness import Fresh
from serve_app.outputs.base import OutputStore

logger = logging.getLogger("ray.serve.wan")

_FRESH_S = 5.0
_FAILING_FRESH_S = 1.0  # a store that works again should be noticed soon


class StorageHealth:
    """Checks one store, at most every few seconds, by storing and removing a small file."""

    def __init__(self, outputs: OutputStore) -> None:
        self._outputs = outputs
        self._state = Fresh(self._look, lambda problem: _FRESH_S if problem is None else _FAILING_FRESH_S)
        self._problem: str | None = None

    async def problem(self) -> str | None:
        """Return why nothing can be stored there now; None if a file can be stored."""
        return await self._state.now()

    async def known(self, within_s: float) -> str | None:
        """Return the result of the last check; the first call waits for one, but no longer than `within_s`."""
        return await self._state.soon(within_s, default=None)

    async def _look(self) -> str | None:
        problem = None
        try:
            await self._outputs.look()
        except OutputNotWritten as error:
            problem = error.message
        if (problem is None) != (self._problem is None):
            logger.log(
                logging.WARNING if problem is None else logging.ERROR,
                "outputs can be stored again" if problem is None else f"no render starts while outputs fail: {problem}",
            )
        self._problem = problem
        return problem
