"""Deleting a request takes its rows and its files with it."""

import httpx

from tests.client import body
from tests.fixtures.api import LEASE_S, Api, on_both_databases
from tests.fixtures.specs import MODEL

pytestmark = on_both_databases


async def test_a_request_that_has_ended_is_gone_with_its_files(api: Api) -> None:
    request_id = await api.submit(body({}, {}))
    outputs = [await api.finish(await api.claim()) for _ in range(2)]
    paths = [api.outputs.local_path(output.name) for output in outputs]
    assert all(path is not None and path.exists() for path in paths)
    answer = await api.http.delete(f"/v1/requests/{request_id}")
    assert (answer.status_code, answer.json()) == (200, {"request_id": request_id, "deleted": True})
    assert not any(path is not None and path.exists() for path in paths)
    for path in ("status", "result", "outputs/0"):
        gone = await api.http.get(f"/v1/requests/{request_id}/{path}")
        assert gone.status_code == httpx.codes.NOT_FOUND
    assert (await api.http.delete(f"/v1/requests/{request_id}")).status_code == httpx.codes.NOT_FOUND


async def test_files_of_attempts_that_never_counted_go_too(api: Api) -> None:
    request_id = await api.submit(body())
    first = await api.claim(lease_s=-1)
    leftover = api.outputs.local_path(f"{request_id}/0-{first.attempt}.mp4")
    assert leftover is not None
    leftover.parent.mkdir(parents=True)
    leftover.write_bytes(b"half a video")
    await api.store.claims.expire_leases(MODEL, max_attempts=3)
    await api.finish(await api.claim())
    await api.http.delete(f"/v1/requests/{request_id}")
    assert not leftover.exists()


async def test_one_that_has_not_ended_must_be_canceled_first(api: Api) -> None:
    request_id = await api.submit(body({}, {}))
    claim = await api.claim()
    await api.fail(claim)
    assert (await api.status(request_id))["status"] == "failed"
    waiting = await api.submit(body())
    running = await api.submit(body())
    for unfinished in (waiting, running):
        answer = await api.http.delete(f"/v1/requests/{unfinished}")
        assert answer.status_code == httpx.codes.CONFLICT
        assert answer.json()["detail"]["error"]["code"] == "REQUEST_NOT_ENDED"
    assert (await api.http.delete(f"/v1/requests/{request_id}")).status_code == httpx.codes.OK
    await api.http.post(f"/v1/requests/{waiting}/cancel")
    assert (await api.http.delete(f"/v1/requests/{waiting}")).status_code == httpx.codes.OK


async def test_a_failed_request_with_a_running_sibling_has_not_ended(api: Api) -> None:
    request_id = await api.submit(body({}, {}))
    failing, running = await api.claim(), await api.claim()
    await api.fail(failing)
    assert (await api.http.delete(f"/v1/requests/{request_id}")).status_code == httpx.codes.CONFLICT
    assert await api.store.claims.renew(running, 1, LEASE_S) is True
    assert await api.store.claims.cancel(running)
    assert (await api.http.delete(f"/v1/requests/{request_id}")).status_code == httpx.codes.OK
