"""Upgrades: two versions of the code on one database, of which the older one gives way, and what is refused."""

import json
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest
from sqlalchemy import func, select, text

from serve_app.errors import ConfigurationInvalid
from serve_app.jobs.coordination import dispatcher_of
from serve_app.jobs.revisions import REVISION
from serve_app.jobs.schema import migrate
from serve_app.jobs.states import RenderState
from serve_app.jobs.store import JobStore
from serve_app.jobs.tables import leaders, renders, requests
from tests.fixtures.specs import MODEL
from tests.fixtures.store import connect
from tests.serve_app.jobs.next_version import NEXT, THIS, Code, next_version
from tests.serve_app.jobs.rollout import Done

WITHIN_S = 60
SOME = 8  # renders
PATIENCE_S = 0.1  # of a start that is to be refused


class Service:
    """One process of one version at work."""

    def __init__(self, process: "subprocess.Popen[str]") -> None:
        self._process = process

    def stop(self) -> Done:
        """Stop it as an operator does; what it did, none of which failed."""
        self._process.terminate()
        told, wrong = self._process.communicate(timeout=WITHIN_S)
        assert self._process.returncode == 0, wrong
        return Done(**json.loads(told))


@contextmanager
def running(code: Code, url: str, tenant: str) -> Iterator[Service]:
    command = [sys.executable, "-m", "tests.serve_app.jobs.rollout", url, tenant]
    pipe = subprocess.PIPE
    with subprocess.Popen(command, **code.alone(), stdout=pipe, stderr=pipe, text=True) as process:
        try:
            yield Service(process)
        finally:
            process.kill()  # one that was stopped has ended


def run_migrations(code: Code, url: str) -> "subprocess.CompletedProcess[str]":
    start = f"from serve_app.jobs.schema import migrate; migrate({url!r}, patience_s={PATIENCE_S})"
    return subprocess.run([sys.executable, "-c", start], **code.alone(), capture_output=True, text=True, check=False)


def wait_until(true: Callable[[], bool], what: str) -> None:
    deadline = time.monotonic() + WITHIN_S
    while not true():
        assert time.monotonic() < deadline, what
        time.sleep(0.1)


def succeeded(url: str, tenant: str) -> int:
    count = select(func.count()).where(renders.c.state == RenderState.SUCCEEDED, renders.c.tenant == tenant)
    with connect(url) as connection:
        return connection.execute(count).scalar_one()


def leader(url: str) -> str | None:
    with connect(url) as connection:
        return connection.execute(select(leaders.c.revision)).scalar_one_or_none()


def test_two_versions_work_side_by_side_and_the_newer_one_leads(database_url: str, tmp_path: Path) -> None:
    def made(tenant: str, more: int) -> None:
        """Wait until that many more renders of that version's clients have succeeded."""
        enough = succeeded(database_url, tenant) + more
        wait_until(lambda: succeeded(database_url, tenant) >= enough, f"too few renders of {tenant} are made")

    with running(THIS, database_url, "old") as old:
        made("old", SOME)
        with running(next_version(tmp_path / "next"), database_url, "new") as new:
            made("new", SOME)  # the schema was changed under the old version, which goes on
            made("old", SOME)
            assert leader(database_url) == NEXT
            first = old.stop()
            # As a pod of the old version that is started again during the upgrade, and after it was taken back.
            with running(THIS, database_url, "old") as again:
                made("old", SOME)
                second = new.stop()
                made("old", SOME)
                assert leader(database_url) == REVISION
                third = again.stop()

    versions = (first, second, third)
    assert all(version.shown for version in versions)
    left, lost = unfinished(database_url)
    assert (lost, left + sum(done.succeeded for done in versions)) == (0, sum(done.accepted for done in versions))
    with connect(database_url) as connection:
        moods = connection.execute(text("SELECT DISTINCT tenant, mood FROM renders ORDER BY tenant")).all()
        assert [tuple(row) for row in moods] == [("new", "wild"), ("old", "calm")]


def unfinished(url: str) -> tuple[int, int]:
    """Return how many renders have not succeeded: queued, or under way, and others."""
    with connect(url) as connection:
        states = connection.execute(select(renders.c.state, func.count()).group_by(renders.c.state)).all()
        total = connection.execute(select(func.count()).select_from(requests)).scalar_one()
    counts = {row[0]: row[1] for row in states}
    assert sum(counts.values()) == total
    left = counts.pop(RenderState.QUEUED, 0) + counts.pop(RenderState.PROCESSING, 0)
    counts.pop(RenderState.SUCCEEDED)
    return left, sum(counts.values())


async def test_versions_that_cannot_work_side_by_side_refuse_to(database_url: str, tmp_path: Path) -> None:
    breaking = next_version(tmp_path / "next", compatible_from=NEXT)
    store = JobStore(database_url)
    dispatcher = store.leadership(dispatcher_of(MODEL))
    await dispatcher.hold(60, 1)
    refused = run_migrations(breaking, database_url)
    assert f"a service of an older version ({REVISION}) works on this database" in refused.stderr
    migrate(database_url)  # nothing was changed
    await dispatcher.resign()
    await store.close()
    assert run_migrations(breaking, database_url).returncode == 0
    with pytest.raises(ConfigurationInvalid, match=rf"another version .* \(revision {NEXT}\).*; start that version"):
        migrate(database_url)
