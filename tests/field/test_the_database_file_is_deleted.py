"""The file of the SQLite database is deleted or replaced under a running service: 503, a line in the log."""

import logging
import os
import shutil
from collections.abc import Callable
from pathlib import Path

import httpx
import pytest

from serve_app.jobs.schema import migrate
from tests.client import body
from tests.fixtures.api import Api
from tests.fixtures.store import connect

Harm = Callable[[Path], None]


def deleted(database: Path) -> None:
    database.unlink()


def deleted_with_its_wal(database: Path) -> None:
    for path in database.parent.glob(f"{database.name}*"):
        path.unlink()


def replaced_by_a_copy(database: Path) -> None:
    copy = database.with_name("copy")
    shutil.copyfile(database, copy)
    copy.replace(database)


def replaced_by_a_new_one(database: Path) -> None:
    migrate(f"sqlite:///{database.with_name('new.db')}")
    database.with_name("new.db").replace(database)


def replaced_by_an_empty_file(database: Path) -> None:
    database.unlink()
    database.touch()


def replaced_by_a_folder(database: Path) -> None:
    database.unlink()
    database.mkdir()


def replaced_by_a_fifo(database: Path) -> None:
    database.unlink()
    os.mkfifo(database)


def overwritten_by_an_empty_file(database: Path) -> None:
    os.truncate(database, 0)


def overwritten_by_another_program(database: Path) -> None:
    database.write_bytes(b"something else")


def its_wal_is_deleted(database: Path) -> None:
    database.with_name(f"{database.name}-wal").unlink()


def moved_away(database: Path) -> None:
    database.rename(database.with_name("aside"))


HARM = [
    *(deleted, deleted_with_its_wal, replaced_by_a_copy, replaced_by_a_new_one, replaced_by_an_empty_file),
    *(replaced_by_a_folder, replaced_by_a_fifo, its_wal_is_deleted, moved_away),
    *(overwritten_by_an_empty_file, overwritten_by_another_program),
]


def file_of(api: Api) -> Path:
    return Path(api.database_url.removeprefix("sqlite:///"))


@pytest.mark.parametrize("harm", HARM)
async def test_nothing_is_accepted_into_a_file_that_has_no_name(
    api: Api, harm: Harm, caplog: pytest.LogCaptureFixture
) -> None:
    known = await api.submit(body())
    harm(file_of(api))
    for _ in range(3):
        for answer in (await api.post(body()), await api.http.get(f"/v1/requests/{known}/status")):
            assert answer.status_code == httpx.codes.SERVICE_UNAVAILABLE, answer.text
            assert answer.json()["detail"]["error"]["code"] == "STORE_UNAVAILABLE"
            assert "deleted, replaced or overwritten" in answer.json()["detail"]["error"]["message"]
            assert int(answer.headers["Retry-After"]) > 0
    told = [record for record in caplog.records if record.levelno >= logging.CRITICAL]
    assert len(told) == 1  # once, and not with each request
    assert file_of(api).name in told[0].message


async def test_no_new_file_is_made_in_its_place(api: Api) -> None:
    await api.submit(body())
    deleted_with_its_wal(file_of(api))
    await api.post(body())
    assert not file_of(api).exists()


async def test_a_file_that_is_put_back_is_used_again(api: Api) -> None:
    known = await api.submit(body())
    aside = file_of(api).with_name("aside")
    shutil.move(file_of(api), aside)
    assert (await api.post(body())).status_code == httpx.codes.SERVICE_UNAVAILABLE
    shutil.move(aside, file_of(api))
    assert (await api.status(known))["status"] == "in_queue"
    await api.submit(body())
    with connect(api.database_url) as connection:
        assert connection.exec_driver_sql("SELECT count(*) FROM requests").scalar_one() == 2
