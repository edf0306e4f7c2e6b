"""Whether a service that other machines reach may start without keys."""

import asyncio
from pathlib import Path

import pytest

from serve_app.errors import ConfigurationInvalid
from serve_app.jobs.store import JobStore
from serve_app.launch.exposure import check_exposure, is_loopback
from serve_app.settings import Settings
from tests.fixtures.keys import ADMIN_KEY, make_key
from tests.fixtures.store import NewDatabase

EVERYWHERE = ("0.0.0.0", "::", "10.0.0.7", "render.example.com")  # noqa: S104 - compared, not bound


@pytest.fixture
def database(new_database: NewDatabase) -> str:
    return new_database("sqlite")


@pytest.mark.parametrize("host", EVERYWHERE)
def test_a_service_that_others_reach_does_not_start_without_a_key(host: str, database: str) -> None:
    with pytest.raises(ConfigurationInvalid, match="wan-lora keys make"):
        check_exposure(host, Settings(database_url=database))


@pytest.mark.parametrize("host", EVERYWHERE)
@pytest.mark.parametrize("args", [{"open": True}, {"admin_key": ADMIN_KEY}], ids=["open", "admin key"])
def test_it_starts_if_it_is_open_or_has_an_admin_key(host: str, args: dict[str, object], database: str) -> None:
    check_exposure(host, Settings.model_validate({"database_url": database, **args}))


def test_it_starts_once_a_key_was_made(database: str) -> None:
    async def make() -> None:
        store = JobStore(database)
        await make_key(store, "team-a")
        await store.close()

    asyncio.run(make())
    check_exposure("0.0.0.0", Settings(database_url=database))  # noqa: S104 - compared, not bound


@pytest.mark.parametrize("host", ["127.0.0.1", "127.1.2.3", "::1", "localhost"])
def test_on_the_loopback_no_key_is_needed(host: str, tmp_path: Path) -> None:
    assert is_loopback(host)
    check_exposure(host, Settings(database_url=f"sqlite:///{tmp_path}/never-opened.db"))


def test_a_short_admin_key_is_refused_and_a_hash_is_taken_as_it_is() -> None:
    with pytest.raises(ConfigurationInvalid, match=r"admin_key: .*32 characters") as refused:
        Settings.from_args({"admin_key": "hush-hush"})
    assert "hush-hush" not in str(refused.value)
    hashed = Settings(admin_key=ADMIN_KEY).admin_key
    assert hashed is not None
    assert ADMIN_KEY not in hashed
    assert Settings(admin_key=hashed).retuned({"max_queued": 1}).admin_key == hashed
