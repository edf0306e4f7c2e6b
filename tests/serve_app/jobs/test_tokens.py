"""A token that a client brings is kept while its request is under way, and then nowhere."""

from collections.abc import Awaitable, Callable
from pathlib import Path
from time import time
from uuid import uuid4

import pytest
from pydantic import SecretStr

from serve_app.errors import RenderFailed
from serve_app.jobs.records import Claim, NewRequest, Output
from serve_app.jobs.spec import OutputFormat
from serve_app.jobs.store import JobStore
from tests.fixtures.specs import make_spec

TOKEN = "hf_KePtOnLyAsLoNgAsNeEdEd"  # noqa: S105 - the secret whose way is followed

End = Callable[[JobStore, Claim], Awaitable[object]]


async def succeed(store: JobStore, claim: Claim) -> None:
    spec = claim.spec
    output = Output(
        name="v.mp4", format=OutputFormat.MP4, width=64, height=64, num_frames=5, fps=16, seed=spec.seed, metadata={}
    )
    assert await store.succeed(claim, output)


ENDS: dict[str, End] = {
    "succeeded": succeed,
    "failed": lambda store, claim: store.fail(claim, RenderFailed("no luck")),
    "canceled while running": lambda store, claim: store.cancel_claim(claim),
    "lost for good": lambda store, claim: store.release(claim, max_attempts=1),
}


async def submit(store: JobStore, renders: int = 1) -> str:
    specs = tuple(make_spec(seed=index) for index in range(renders))
    new = NewRequest(id=str(uuid4()), model="wan22_14b_t2v", created_at=time(), specs=specs, hf_token=SecretStr(TOKEN))
    await store.submit(new)
    return new.id


async def claim_next(store: JobStore) -> Claim:
    (oldest,) = await store.waiting(1)
    claim = await store.claim(oldest.render_id, "replica", 30)
    assert claim is not None
    return claim


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
    await store.release(await claim_next(store), max_attempts=3)
    again = await claim_next(store)
    assert again.attempt == 2
    assert again.hf_token is not None


@pytest.mark.parametrize("end", ENDS.values(), ids=ENDS)
async def test_it_is_gone_from_the_disk_when_the_request_has_ended(store: JobStore, tmp_path: Path, end: End) -> None:
    await submit(store)
    claim = await claim_next(store)
    assert files_with_token(tmp_path)
    await end(store, claim)
    assert files_with_token(tmp_path) == []


async def test_it_is_gone_when_a_queued_request_is_canceled(store: JobStore, tmp_path: Path) -> None:
    await store.cancel(await submit(store))
    assert files_with_token(tmp_path) == []


async def test_it_stays_until_the_last_render_has_ended(store: JobStore, tmp_path: Path) -> None:
    await submit(store, renders=2)
    await succeed(store, await claim_next(store))
    last = await claim_next(store)
    assert last.hf_token is not None
    await succeed(store, last)
    assert files_with_token(tmp_path) == []


async def test_the_end_of_one_request_leaves_the_token_of_another(store: JobStore) -> None:
    await submit(store)
    await submit(store)
    await succeed(store, await claim_next(store))
    assert (await claim_next(store)).hf_token is not None
