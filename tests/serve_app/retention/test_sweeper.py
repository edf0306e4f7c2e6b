"""What a sweep removes, and what it never does."""

import os
from collections.abc import AsyncIterator
from dataclasses import replace
from pathlib import Path
from time import time
from uuid import uuid4

import pytest
import pytest_asyncio
from sqlalchemy import update

from serve_app.errors import RequestNotFound
from serve_app.jobs.tables import renders
from serve_app.retention.rules import RetentionRules
from serve_app.retention.sweeper import Sweeper, SweepReport
from serve_app.settings import RetentionMode, Settings
from tests.client import body
from tests.fixtures.api import Api, ServeApi, on_both_databases
from tests.fixtures.store import connect

DAY_S = 86_400
RULES = RetentionRules.of(Settings(retention=RetentionMode.ON))

pytestmark = on_both_databases


@pytest_asyncio.fixture
async def served(serve_api: ServeApi) -> AsyncIterator[Api]:
    async with serve_api() as api:
        yield api


async def finished(api: Api, *, days_ago: float = 0, video: bytes = b"a video") -> str:
    """Return a request that ended then; its id."""
    request_id = await api.submit(body())
    await api.finish(await api.claim(), video)
    at = time() - days_ago * DAY_S
    with connect(api.database_url) as connection:
        connection.execute(update(renders).where(renders.c.request_id == request_id).values(finished_at=at))
        connection.exec_driver_sql(f"UPDATE requests SET created_at = {at - 1} WHERE id = '{request_id}'")  # noqa: S608
    return request_id


def file(api: Api, name: str, *, hours_ago: float = 48) -> Path:
    """Return a file among the outputs, last changed then."""
    path = api.directory / "outputs" / name
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(b"some bytes")
    os.utime(path, (time() - hours_ago * 3600,) * 2)
    return path


async def sweep(api: Api, *, dry_run: bool = False, **rules: float) -> SweepReport:
    return await Sweeper(api.store, api.outputs).sweep(replace(RULES, **rules), dry_run=dry_run)  # type: ignore[arg-type]  # of the fields


async def exists(api: Api, request_id: str) -> bool:
    try:
        await api.store.requests.get(request_id)
    except RequestNotFound:
        return False
    return True


async def test_requests_beyond_their_age_go_with_their_files(served: Api) -> None:
    old, young = await finished(served, days_ago=8), await finished(served, days_ago=6)
    waiting = await served.submit(body())
    would = await sweep(served, dry_run=True, longest_s=7 * DAY_S)
    assert (would.expired, would.freed_bytes) == (1, len(b"a video"))
    assert await exists(served, old)
    report = await sweep(served, longest_s=7 * DAY_S)
    assert (report.expired, report.freed_bytes, report.failed) == (1, len(b"a video"), 0)
    assert [await exists(served, each) for each in (old, young, waiting)] == [False, True, True]
    assert not (served.directory / "outputs" / old).exists()
    assert (served.directory / "outputs" / young).exists()


async def test_the_oldest_go_until_the_rest_has_room(served: Api) -> None:
    ids = [await finished(served, days_ago=days, video=b"x" * 100) for days in (3, 2, 1)]
    would = await sweep(served, dry_run=True, most_bytes=250)
    assert (would.crowded_out, would.freed_bytes) == (1, 100)
    assert (await sweep(served, most_bytes=250)).crowded_out == 1
    assert [await exists(served, each) for each in ids] == [False, True, True]
    assert (await sweep(served, most_bytes=250)).crowded_out == 0


async def test_what_has_just_ended_stays_whatever_the_room(served: Api) -> None:
    request_id = await finished(served, video=b"x" * 100)
    report = await sweep(served, most_bytes=1, longest_s=0.001)
    assert (report.expired, report.crowded_out) == (0, 0)
    assert await exists(served, request_id)


async def test_files_that_no_request_knows_go_after_the_grace_period(served: Api) -> None:
    killed_post = file(served, f"{uuid4()}/inputs/{'0' * 64}")
    half_copied = file(served, f"{uuid4()}/.0-1.mp4.{uuid4().hex}")
    look = file(served, f".look-{uuid4().hex}")
    being_posted = file(served, f"{uuid4()}/inputs/{'1' * 64}", hours_ago=0.5)
    not_ours = file(served, "holiday/beach.mp4")
    would = await sweep(served, dry_run=True)
    assert (would.orphans, len(would.orphan_names)) == (3, 3)
    assert killed_post.exists()
    assert (await sweep(served)).orphans == 3
    assert [path.exists() for path in (killed_post, half_copied, look, being_posted, not_ours)] == [
        False,
        False,
        False,
        True,
        True,
    ]
    assert not killed_post.parent.exists()


async def test_of_an_ended_request_only_what_it_needs_stays(served: Api) -> None:
    request_id = await finished(served)
    output = next((served.directory / "outputs" / request_id).iterdir())
    os.utime(output, (0, 0))
    thumbnail = file(served, f"{request_id}/{output.stem}.thumbnail.webp")
    first_attempt = file(served, f"{request_id}/0-7.mp4")
    assert (await sweep(served)).orphan_names == [f"{request_id}/0-7.mp4"]
    assert [path.exists() for path in (output, thumbnail, first_attempt)] == [True, True, False]


@pytest.mark.parametrize("state", ["queued", "processing"])
async def test_every_file_of_a_request_that_has_not_ended_stays(served: Api, state: str) -> None:
    request_id = await served.submit(body())
    if state == "processing":
        await served.claim()
    first_attempt = file(served, f"{request_id}/0-1.mp4")
    assert (await sweep(served, longest_s=0.001, most_bytes=1)).orphans == 0
    assert first_attempt.exists()


async def test_an_output_without_its_file_is_said_and_stays(served: Api) -> None:
    request_id = await finished(served)
    output = next((served.directory / "outputs" / request_id).iterdir())
    output.unlink()
    report = await sweep(served)
    assert (report.missing, report.missing_names) == (1, [f"{request_id}/{output.name}"])
    assert await exists(served, request_id)


async def test_a_file_that_cannot_be_removed_leaves_the_request_for_the_next_sweep(served: Api) -> None:
    request_id = await finished(served, days_ago=8)
    folder = served.directory / "outputs" / request_id
    output = next(folder.iterdir())
    output.unlink()
    output.mkdir()  # which unlink refuses
    report = await sweep(served, longest_s=DAY_S)
    assert (report.expired, report.failed) == (0, 1)
    assert await exists(served, request_id)


async def test_a_sweep_stops_where_its_lease_is_gone(served: Api) -> None:
    await finished(served, days_ago=8)

    async def gone() -> bool:
        return False

    rules = replace(RULES, longest_s=DAY_S)
    assert not (await Sweeper(served.store, served.outputs).sweep(rules, dry_run=True, go_on=gone)).complete


async def test_answers_say_when_a_request_expires(serve_api: ServeApi) -> None:
    async with serve_api(retention="on", retention_days=30) as api:
        request_id = await api.submit(body())
        assert (await api.status(request_id))["expires_at"] is None
        await api.finish(await api.claim())
        status, result = await api.status(request_id), await api.result(request_id)
        assert status["expires_at"] == result["expires_at"] > status["finished_at"]
