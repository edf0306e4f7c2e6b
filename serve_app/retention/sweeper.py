"""The retention sweep: remove expired requests, the oldest requests beyond the size limit, and orphaned files.

Example:
    report = await Sweeper(store, outputs).sweep(RetentionRules.of(settings), dry_run=False)

It never removes what is in use: requests that have not ended, and anything younger than the grace period. Files are
removed before rows, as with DELETE, so that the next sweep finds and repeats an interrupted removal.
"""

import logging
from collections.abc import Awaitable, Callable
from dataclasses import dataclass, field
from time import time

from serve_app.jobs.store import JobStore
from serve_app.outputs import OutputStore, StoredFile
from serve_app.retention.orphans import orphans, request_of
from serve_app.retention.rules import RetentionRules

logger = logging.getLogger("ray.serve.wan")

_BATCH = 200  # requests or files at a time
_NAMED = 20  # in the report

GoOn = Callable[[], Awaitable[bool]]


async def _always() -> bool:
    return True


@dataclass(slots=True)
class SweepReport:
    """What a sweep removed, or would have removed."""

    dry_run: bool
    expired: int = 0  # requests, by age
    crowded_out: int = 0  # requests, by size
    freed_bytes: int = 0
    orphans: int = 0  # files without a request
    missing: int = 0  # outputs whose file is missing; their requests now answer 410
    orphan_names: list[str] = field(default_factory=list)  # the first ones
    missing_names: list[str] = field(default_factory=list)
    failed: int = 0  # requests and files that could not be removed now
    complete: bool = True  # False if it was stopped

    def __str__(self) -> str:
        verb = "would remove" if self.dry_run else "removed"
        return (
            f"retention {verb} {self.expired} requests by age and {self.crowded_out} by size, and {self.orphans} "
            f"files without a request: {self.freed_bytes} bytes; {self.missing} outputs have lost their file; "
            f"{self.failed} could not be removed"
        )


class Sweeper:
    """Sweeps one job store and the place of its outputs."""

    def __init__(self, store: JobStore, outputs: OutputStore) -> None:
        self._store = store
        self._outputs = outputs

    async def sweep(
        self, rules: RetentionRules, *, dry_run: bool, with_orphans: bool = True, go_on: GoOn = _always
    ) -> SweepReport:
        """Sweep once. `go_on` is asked between batches, and stops the sweep if it says no.

        Raises:
            StoreUnavailable: the database does not answer.
            OSError: the outputs cannot be listed.
        """
        report = SweepReport(dry_run)
        if rules.longest_s is not None:
            await self._by_age(time() - max(rules.longest_s, rules.grace_s), report, go_on)
        if rules.most_bytes is not None:
            await self._by_size(rules.most_bytes, time() - rules.grace_s, report, go_on)
        if with_orphans:
            await self._orphans(time() - rules.grace_s, report, go_on)
            await self._missing(report, go_on)
        return report

    async def _by_age(self, ended_before: float, report: SweepReport, go_on: GoOn) -> None:
        after = 0.0, ""
        while found := await self._store.retention.ended(ended_before, after, _BATCH):
            for ended in found:
                report.expired += await self._remove(ended.request_id, ended.size, report)
            after = found[-1].ended_at, found[-1].request_id
            if not await self._goes_on(report, go_on):
                return

    async def _by_size(self, most_bytes: int, ended_before: float, report: SweepReport, go_on: GoOn) -> None:
        # In a dry run, expired requests still exist. They are the oldest, so they are counted first here.
        excess = await self._store.retention.stored_bytes() - most_bytes
        kept = report.expired if report.dry_run else 0
        after = 0.0, ""
        while excess > 0 and (found := await self._store.retention.ended(ended_before, after, _BATCH)):
            for ended in found:
                if kept:
                    kept -= 1
                    excess -= ended.size
                elif excess > 0 and ended.size:
                    report.crowded_out += await self._remove(ended.request_id, ended.size, report)
                    excess -= ended.size
            after = found[-1].ended_at, found[-1].request_id
            if not await self._goes_on(report, go_on):
                return

    async def _remove(self, request_id: str, size: int, report: SweepReport) -> bool:
        """Remove an ended request with its files; return whether it is gone, or would be."""
        if not report.dry_run:
            records = await self._store.retention.records([request_id])
            if (record := records.get(request_id)) is None:  # a client has deleted it meanwhile
                return False
            try:
                await self._outputs.delete([*record.output_names, *record.input_names])
            except OSError as error:
                logger.warning("retention: request %s stays, as a file cannot be removed: %s", request_id, error)
                report.failed += 1
                return False
            await self._store.requests.remove(request_id)
        report.freed_bytes += size
        return True

    async def _orphans(self, older_than: float, report: SweepReport, go_on: GoOn) -> None:
        batch: list[StoredFile] = []
        async for file in self._outputs.files():
            batch.append(file)
            if len(batch) == _BATCH:
                await self._orphans_of(batch, older_than, report)
                batch = []
                if not await self._goes_on(report, go_on):
                    return
        await self._orphans_of(batch, older_than, report)

    async def _orphans_of(self, batch: list[StoredFile], older_than: float, report: SweepReport) -> None:
        # The rows are read after the files, so requests that were accepted in between are found.
        ids = {request_id for file in batch if (request_id := request_of(file.name))}
        records = await self._store.retention.records(ids)
        for file in orphans(batch, records, older_than):
            if not report.dry_run:
                try:
                    await self._outputs.delete([file.name])
                except OSError as error:
                    logger.warning("retention: %s cannot be removed: %s", file.name, error)
                    report.failed += 1
                    continue
            report.orphans += 1
            report.freed_bytes += file.size
            _name(file.name, report.orphan_names)

    async def _missing(self, report: SweepReport, go_on: GoOn) -> None:
        after = 0
        while found := await self._store.retention.published(after, _BATCH):
            for output in found:
                if not await self._outputs.has(output.name):
                    report.missing += 1
                    _name(output.name, report.missing_names)
            after = found[-1].render_id
            if not await self._goes_on(report, go_on):
                return

    async def _goes_on(self, report: SweepReport, go_on: GoOn) -> bool:
        report.complete = await go_on()
        return report.complete


def _name(name: str, names: list[str]) -> None:
    if len(names) < _NAMED:
        names.append(name)
