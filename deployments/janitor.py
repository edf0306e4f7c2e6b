"""The janitor: retention in the background, in the one Dispatcher that holds its lease.

Example:
    janitor = Janitor(store, outputs)
    await janitor.run(lambda: self._plan.settings)  # until canceled
"""

import asyncio
import logging
from collections.abc import Callable
from time import monotonic

from serve_app.errors import StoreUnavailable
from serve_app.jobs.coordination import RETENTION
from serve_app.jobs.store import JobStore
from serve_app.outputs import OutputStore
from serve_app.retention.rules import RetentionRules
from serve_app.retention.sweeper import Sweeper
from serve_app.settings import RetentionMode, Settings

logger = logging.getLogger("ray.serve.wan")

_LEASE_S = 120.0  # renewed between the batches of a sweep
_ORPHANS_EVERY_S = 86_400.0  # listing a bucket and checking each output takes long


class Janitor:
    """Sweeps as often as the args say, while no other process does."""

    def __init__(self, store: JobStore, outputs: OutputStore) -> None:
        self._leadership = store.leadership(RETENTION)
        self._sweeper = Sweeper(store, outputs)
        self._orphans_at = 0.0

    async def run(self, settings: Callable[[], Settings]) -> None:
        """Sweep again and again."""
        while True:
            await asyncio.sleep(settings().retention_every_s)
            if settings().retention is not RetentionMode.OFF:
                await self._sweep(settings())

    async def _sweep(self, settings: Settings) -> None:
        with_orphans = monotonic() >= self._orphans_at
        dry_run = settings.retention is RetentionMode.DRY_RUN
        try:
            # Held until the next sweep, so that the same process sweeps again.
            if not await self._hold(settings):
                return
            report = await self._sweeper.sweep(
                RetentionRules.of(settings),
                dry_run=dry_run,
                with_orphans=with_orphans,
                go_on=lambda: self._hold(settings),
            )
        except (StoreUnavailable, OSError) as error:
            logger.warning("retention: %s", error)
            return
        if with_orphans and report.complete:
            self._orphans_at = monotonic() + _ORPHANS_EVERY_S
        if report.missing_names:
            logger.warning("retention: outputs without their file: %s", ", ".join(report.missing_names))
        logger.info("%s", report)

    async def _hold(self, settings: Settings) -> bool:
        return await self._leadership.hold(max(_LEASE_S, settings.retention_every_s * 1.5), 0)
