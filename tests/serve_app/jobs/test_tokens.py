"""A token that a client brings is kept while its request is under way, and then nowhere."""

from collections.abc import Awaitable, Callable
from pathlib import Path

import pytest
from pydantic import SecretStr
from sqlalchemy import select

from serve_app.errors import RenderFailed
from serve_app.jobs.records import Claim
from serve_app.jobs.store import JobStore
from serve_app.jobs.tables import request_tokens
from tests.fixtures.store import connect
from tests.serve_app.jobs import helpers
from tests.serve_app.jobs.helpers import claim_next

TOKEN = "hf_KePtOnLyAsLoNgAsNeEdEd"  # noqa: S105 - the secret whose way is followed

End = Callable[[JobStore, Claim], Awaitable[object]]


async def succeed(store: JobStore, claim: Claim) -> None:
    assert await store.claims.succeed(claim, helpers.output(claim))


ENDS: dict[str, End] = {
    "succeeded": succeed,
    "failed": lambda store, claim: store.claims.fail(claim, RenderFailed("no luck")),
    "canceled while running": lambda store, claim: store.claims.cancel(claim),
    "lost for good": lambda store, claim: store.claims.release(claim, max_attempts=1),
}


async def submit(store: JobStore, renders: int = 1) -> str:
    return await helpers.submit(store, renders, hf_token=SecretStr(TOKEN))


# A server's files are read by nobody but the server, which may keep deleted rows for a while.
in_a_file = pytest.mark.parametrize("database_url", ["sqlite"], indirect=True)


def files_with_token(directory: Path) -> list[str]:
    return [path.name for path in directory.iterdir() if TOKEN.encode() in path.read_bytes()]


async def test_the_generator_gets_the_token_with_its_claim(store: JobStore) -> None:
    await submit(store)
    claim = await claim_next(store)
    assert claim.hf_token is not None
    assert claim.hf_token.get_secret_value() == TOKEN
    assert TOKEN not in repr(claim)


async def test_every_attempt_gets_it(store: JobStore) -> None:
    await submit(store)
    await store.claims.release(await claim_next(store), max_attempts=3)
    again = await claim_next(store)
    assert again.attempt == 2
    assert again.hf_token is not None


@in_a_file
@pytest.mark.parametrize("end", ENDS.values(), ids=ENDS)
async def test_it_is_gone_from_the_disk_when_the_request_has_ended(store: JobStore, tmp_path: Path, end: End) -> None:
    await submit(store)
    claim = await claim_next(store)
    assert files_with_token(tmp_path)
    await end(store, claim)
    assert files_with_token(tmp_path) == []


@in_a_file
async def test_it_is_gone_when_a_queued_request_is_canceled(store: JobStore, tmp_path: Path) -> None:
    await store.requests.cancel(await submit(store))
    assert files_with_token(tmp_path) == []


@in_a_file
async def test_it_stays_until_the_last_render_has_ended(store: JobStore, tmp_path: Path) -> None:
    await submit(store, renders=2)
    await succeed(store, await claim_next(store))
    last = await claim_next(store)
    assert last.hf_token is not None
    await succeed(store, last)
    assert files_with_token(tmp_path) == []


@pytest.mark.parametrize("end", ENDS.values(), ids=ENDS)
async def test_it_is_gone_from_the_database_when_the_request_has_ended(
    store: JobStore, database_url: str, end: End
) -> None:
    await submit(store)
    await end(store, await claim_next(store))
    with connect(database_url) as connection:
        assert connection.execute(select(request_tokens)).all() == []


async def test_the_end_of_one_request_leaves_the_token_of_another(store: JobStore) -> None:
    await submit(store)
    await submit(store)
    await succeed(store, await claim_next(store))
    assert (await claim_next(store)).hf_token is not None
