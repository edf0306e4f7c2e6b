"""Backup and restore with the commands of docs/operations.md: after a restore the queue goes on where it was."""

import os
import re
import subprocess
import sys
from pathlib import Path

import pytest

from serve_app.jobs.records import NewRequest
from serve_app.jobs.states import RenderState
from serve_app.jobs.store import JobStore
from tests.fixtures.results import make_output
from tests.fixtures.specs import MODEL
from tests.fixtures.store import KINDS, NewDatabase, queued
from tests.postgres_server import BINARIES
from tests.serve_app.jobs.helpers import claim_next, counted_totals, kept_totals, new_request

DOCS = Path(__file__).parents[3] / "docs" / "operations.md"
LONG_S = 600.0


def documented(start: str) -> str:
    """Return the command of the documentation that begins so."""
    (command,) = re.findall(rf"^    ({re.escape(start)} .*)$", DOCS.read_text(), re.MULTILINE)
    return str(command)


def run(command: str, directory: Path, database_url: str = "") -> None:
    path = f"{Path(sys.executable).parent}:{BINARIES}:{os.environ['PATH']}"
    environment = {**os.environ, "DATABASE_URL": database_url, "PATH": path}
    subprocess.run(["/bin/bash", "-ec", command], cwd=directory, env=environment, check=True)


def backed_up_and_restored(kind: str, directory: Path, url: str, new_database: NewDatabase) -> str:
    """Back up the database while it is open, and restore it to another place; return the URL of that."""
    if kind == "sqlite":
        (directory / "var").mkdir()
        (directory / "var" / "jobs.db").symlink_to(url.removeprefix("sqlite:///"))
        run(documented("python -c"), directory)
        return f"sqlite:///{directory / 'backup.db'}"
    run(documented("pg_dump"), directory, url)
    restored = new_database("postgresql-empty")
    run(documented("pg_restore"), directory, restored)
    return restored


@pytest.mark.parametrize("kind", KINDS)
async def test_after_a_restore_the_queue_continues(kind: str, tmp_path: Path, new_database: NewDatabase) -> None:
    url = new_database(kind)
    store = JobStore(url)
    ended, ran, waits, later = [new_request() for _ in range(4)]
    for request in (ended, ran, waits):
        await store.requests.submit(request)
    done = await claim_next(store, LONG_S)
    assert await store.claims.succeed(done, make_output(done))
    running = await claim_next(store, lease_s=0.0)
    restored_url = backed_up_and_restored(kind, tmp_path, url, new_database)
    await store.requests.submit(later)
    await store.close()

    restored = JobStore(restored_url)
    try:
        assert await states(restored, ended, ran, waits) == ["succeeded", "processing", "queued"]
        assert await restored.claims.expire_leases(MODEL, max_attempts=3) == 1
        assert [render.render_id for render in await queued(restored)] == [running.render_id, running.render_id + 1]
        again = await claim_next(restored, LONG_S)
        assert (again.request_id, again.attempt) == (ran.id, 2)
        assert await restored.claims.succeed(again, make_output(again))
        await restored.requests.submit(later)  # it came after the backup, so it is new here
        assert await states(restored, ran, waits, later) == ["succeeded", "queued", "queued"]
    finally:
        await restored.close()
    assert kept_totals(restored_url) == counted_totals(restored_url)  # its triggers are there, too


async def states(store: JobStore, *requests: NewRequest) -> list[RenderState]:
    return [(await store.requests.get(request.id)).renders[0].state for request in requests]
